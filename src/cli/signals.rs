//! Serving until the operating system says stop.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use rustix::process::Signal as Process;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Interval, interval_at, sleep};

use crate::app::Server;
use crate::control::UpgradeError;
use crate::error_chain::chain;
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

/// Lets the signals have no effect that have a running gateway reload, open its logs again or be upgraded.
///
/// # Errors
/// When signals cannot be received.
pub(super) fn outlive_reloads() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    signal(SignalKind::hangup()).map(drop)?;
    signal(SignalKind::user_defined1()).map(drop)?;
    signal(SignalKind::user_defined2()).map(drop)
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
    user_defined: Signal,
    upgrade: Signal,
}

/// Why a gateway stops serving.
enum Stop {
    /// It was told to.
    Requested,
    /// Another process serves.
    HandedOver,
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
                user_defined: signal(SignalKind::user_defined1())?,
                upgrade: signal(SignalKind::user_defined2())?,
            })
        })?;
        Ok(Self { runtime, received })
    }

    /// Serves until SIGTERM or SIGINT, then drains: readiness is off at once, and no connections are accepted
    /// after `limits.drain_delay`. SIGHUP reloads everything; SIGUSR1 has `reopen` called, which must not block, also
    /// while the gateway drains. The service manager is told of all of it.
    ///
    /// # Errors
    /// At a second SIGTERM or SIGINT, at once, while the gateway still drains: the process is to end
    /// with it.
    pub(super) fn serve_until_stopped(
        self,
        mut server: Server,
        reopen: &dyn Fn(),
    ) -> io::Result<()> {
        let Self {
            runtime,
            received: mut signals,
        } = self;
        let outcome = runtime.block_on(async {
            service_manager::notify(Notice::Ready);
            let mut watchdog = Watchdog::new(&server);
            match signals.stop_requested(&server, &mut watchdog, reopen).await {
                Stop::Requested => {}
                Stop::HandedOver => {
                    tracing::info!("handed over: what is under way here is finished");
                    server.hand_over();
                    return signals.finish(server).await;
                }
            }
            service_manager::notify(Notice::Stopping);
            server.begin_drain();
            let delay = server.drain_delay();
            if !delay.is_zero() {
                tracing::info!(?delay, "stopping: not ready any more, but still serving");
                let over = sleep(delay);
                signals
                    .unless_stopped(over, || watchdog.look(&server), reopen)
                    .await?;
            }
            tracing::info!("stopping: no new connections, what is under way is finished");
            let (drained, done) = oneshot::channel();
            let draining = std::thread::Builder::new().name("syncgate-drain".to_owned());
            draining.spawn(move || {
                server.drain();
                let _ = drained.send(());
            })?;
            // How long that takes is bounded by itself (`limits.drain`).
            let alive = || service_manager::notify(Notice::Alive);
            signals.unless_stopped(done, alive, reopen).await?;
            tracing::info!("stopped");
            Ok(())
        });
        // A reload that is still under way has nothing left to change.
        runtime.shutdown_background();
        outcome
    }
}

fn stopped_at_once() -> io::Error {
    io::Error::other("stopped by a second signal")
}

impl Received {
    /// Lets what is in flight finish after another process has taken over. That one is who the service manager
    /// watches.
    ///
    /// # Errors
    /// At a second SIGTERM or SIGINT.
    async fn finish(&mut self, server: Server) -> io::Result<()> {
        let lifecycle = server.lifecycle();
        let (drained, mut done) = oneshot::channel();
        let draining = std::thread::Builder::new().name("syncgate-drain".to_owned());
        draining.spawn(move || {
            server.drain();
            let _ = drained.send(());
        })?;
        loop {
            tokio::select! {
                _ = &mut done => break,
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            // Connections that are idle are not waited for any more.
            if !lifecycle.drain() {
                return Err(stopped_at_once());
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    async fn stop_requested(
        &mut self,
        server: &Server,
        watchdog: &mut Watchdog,
        reopen: &dyn Fn(),
    ) -> Stop {
        let mut reload: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Requested,
                _ = self.interrupt.recv() => return Stop::Requested,
                () = server.upgrade().handed_over() => return Stop::HandedOver,
                _ = self.upgrade.recv() => {
                    let upgrade = Arc::clone(server.upgrade());
                    // The log says what it comes to.
                    drop(spawn_blocking(move || match upgrade.run() {
                        Ok(_) | Err(UpgradeError::NewFailed(_)) => {}
                        Err(error) => tracing::error!("upgrade: {}", chain(&error)),
                    }));
                }
                // One after the other; further signals wait.
                _ = self.hang_up.recv(), if reload.is_none() => {
                    service_manager::notify(Notice::Reloading);
                    let all = Arc::clone(server.reload());
                    // Files are read, and a server may have to be told of tokens that end.
                    reload = Some(spawn_blocking(move || drop(all.all())));
                }
                _ = self.user_defined.recv() => reopen(),
                () = ended(&mut reload) => {
                    reload = None;
                    service_manager::notify(Notice::Ready);
                }
                () = watchdog.due() => watchdog.look(server),
            }
        }
    }

    /// Waits for an event, and has the service manager told meanwhile that the process is alive.
    ///
    /// # Errors
    /// At SIGTERM or SIGINT.
    async fn unless_stopped(
        &mut self,
        event: impl Future,
        mut tell: impl FnMut(),
        reopen: &dyn Fn(),
    ) -> io::Result<()> {
        let mut event = pin!(event);
        let mut pulse = Pulse::new();
        loop {
            tokio::select! {
                _ = &mut event => return Ok(()),
                _ = self.terminate.recv() => return Err(stopped_at_once()),
                _ = self.interrupt.recv() => return Err(stopped_at_once()),
                _ = self.user_defined.recv() => reopen(),
                () = pulse.due() => tell(),
            }
        }
    }
}

/// Waits for the end of a reload; forever if none is under way. Cancel safe.
async fn ended(reload: &mut Option<JoinHandle<()>>) {
    match reload {
        // That it panicked is in the log.
        Some(reload) => drop(reload.await),
        None => pending().await,
    }
}

/// When the service manager is to be told that the process is alive.
struct Pulse(Option<Interval>);

impl Pulse {
    fn new() -> Self {
        let first = |period| interval_at(Instant::now() + period, period);
        Self(service_manager::watchdog_interval().map(first))
    }

    /// Never, if the service manager does not ask for it. Cancel safe.
    async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => pending().await,
        }
    }
}

/// Tells the service manager that the process is alive, as long as every worker makes progress.
struct Watchdog {
    pulse: Pulse,
    seen: Vec<usize>,
}

impl Watchdog {
    fn new(server: &Server) -> Self {
        Self {
            pulse: Pulse::new(),
            seen: vec![usize::MAX; server.beats().len()],
        }
    }

    async fn due(&mut self) {
        self.pulse.due().await;
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
