//! What the service manager (systemd) is told of the process, and the listeners that it hands over: sd_notify(3)
//! and sd_listen_fds(3). Without one nothing is told and nothing handed over.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It serves, or a reload is over.
    Ready,
    /// A reload begins.
    Reloading,
    /// It is about to end.
    Stopping,
    /// It makes progress.
    Alive,
    /// Another process is the one to watch from now on.
    MainProcess(u32),
}

/// Tells the service manager, if there is one.
pub(crate) fn notify(notice: Notice) {
    let told = match notice {
        Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
        // The time tells this reload from others.
        Notice::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Notice::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        Notice::MainProcess(pid) => sd_notify::notify(&[NotifyState::MainPid(pid)]),
    };
    if let Err(error) = told {
        tracing::warn!(%error, ?notice, "the service manager cannot be told");
    }
}

/// How often it must be told that the process is alive, if at all: twice in the time that it waits, which
/// sd_watchdog_enabled(3) recommends.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

/// Listeners that the service manager has bound.
#[derive(Debug, Default)]
pub(crate) struct PassedListeners(Vec<TcpListener>);

impl PassedListeners {
    /// Takes them over. Before there is a second thread, since it changes the environment.
    ///
    /// # Errors
    /// When one is not for TCP.
    pub(crate) fn receive() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let all = (0..passed.len()).filter_map(|index| passed.take_tcp_listener(index).transpose());
        let all: Vec<_> = all.collect::<io::Result<_>>()?;
        for listener in &all {
            listener.set_nonblocking(true)?;
        }
        Ok(Self(all))
    }

    /// The one for this address, if there is one.
    pub(crate) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_it = |it: &TcpListener| it.local_addr().is_ok_and(|it| it == address);
        let index = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(index))
    }

    /// The address of one that was not taken.
    pub(crate) fn left(&self) -> Option<SocketAddr> {
        self.0.first().and_then(|it| it.local_addr().ok())
    }
}
