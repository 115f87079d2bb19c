//! Serving until the operating system says stop.

use std::io;

use rustix::process::Signal as Process;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Interval, interval, sleep};

use crate::app::Server;
use crate::process::service_manager::{self, Notice};

/// Lets a write beyond the limit of file sizes (`RLIMIT_FSIZE`) fail like one to a full disk. Without this the
/// system ends the process with SIGXFSZ.
///
/// # Errors
/// When signals cannot be received.
pub(super) fn outlive_file_size_limit() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    // The handler stays in place when nobody listens any more, and with one the write returns EFBIG.
    signal(SignalKind::from_raw(Process::XFSZ.as_raw())).map(drop)
}

/// The signals of the operating system. From [`receive`](Self::receive) on none of them ends the
/// process by itself: a signal that arrives while the server starts is handled once it serves.
pub(super) struct Signals {
    runtime: Runtime,
    received: Received,
}

struct Received {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// # Errors
    /// When signals cannot be received.
    pub(super) fn receive() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let received = runtime.block_on(async {
            Ok::<_, io::Error>(Received {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hang_up: signal(SignalKind::hangup())?,
            })
        })?;
        Ok(Self { runtime, received })
    }

    /// Serves until SIGTERM or SIGINT, then drains: readiness is off at once, and no connections are accepted
    /// after `limits.drain_delay`. SIGHUP reloads everything. The service manager is told of all of it.
    ///
    /// # Errors
    /// At a second SIGTERM or SIGINT, at once, while the gateway still drains: the process is to end
    /// with it.
    pub(super) fn serve_until_stopped(self, server: Server) -> io::Result<()> {
        let Self {
            runtime,
            received: mut signals,
        } = self;
        runtime.block_on(async {
            service_manager::notify(Notice::Ready);
            signals.stop_requested(&server).await;
            service_manager::notify(Notice::Stopping);
            server.begin_drain();
            let delay = server.drain_delay();
            if !delay.is_zero() {
                tracing::info!(?delay, "stopping: not ready any more, but still serving");
                tokio::select! {
                    () = sleep(delay) => {}
                    () = signals.stop() => return Err(stopped_at_once()),
                }
            }
            tracing::info!("stopping: no new connections, what is under way is finished");
            let (drained, done) = oneshot::channel();
            let draining = std::thread::Builder::new().name("syncgate-drain".to_owned());
            draining.spawn(move || {
                server.drain();
                let _ = drained.send(());
            })?;
            tokio::select! {
                _ = done => tracing::info!("stopped"),
                // The caller ends the process, and with it what was still under way.
                () = signals.stop() => return Err(stopped_at_once()),
            }
            Ok(())
        })
    }
}

fn stopped_at_once() -> io::Error {
    io::Error::other("stopped by a second signal")
}

impl Received {
    async fn stop_requested(&mut self, server: &Server) {
        let mut watchdog = Watchdog::new(server);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    service_manager::notify(Notice::Reloading);
                    server.reload().all();
                    service_manager::notify(Notice::Ready);
                }
                () = watchdog.due() => watchdog.look(server),
            }
        }
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells the service manager that the process is alive, as long as every worker makes progress.
struct Watchdog {
    interval: Option<Interval>,
    seen: Vec<usize>,
}

impl Watchdog {
    fn new(server: &Server) -> Self {
        Self {
            interval: service_manager::watchdog_interval().map(interval),
            seen: vec![usize::MAX; server.beats().len()],
        }
    }

    /// Never, if the service manager does not ask for it. Cancel safe.
    async fn due(&mut self) {
        match &mut self.interval {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }

    fn look(&mut self, server: &Server) {
        let before = std::mem::replace(&mut self.seen, server.beats());
        if self
            .seen
            .iter()
            .zip(&before)
            .all(|(now, before)| now != before)
        {
            service_manager::notify(Notice::Alive);
        } else {
            tracing::error!(
                "a worker makes no progress: the service manager is not told that all is well"
            );
        }
    }
}
