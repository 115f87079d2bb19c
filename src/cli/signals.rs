//! Serving until the operating system says stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::server::Server;

/// Serves until SIGTERM or SIGINT, then drains. SIGHUP reads accounts, certificates and secrets
/// again.
///
/// # Errors
/// At a second SIGTERM or SIGINT, at once, while the gateway still drains: the process is to end with
/// it. When signals cannot be received; the gateway is drained then.
pub(super) fn serve_until_stopped(server: Server) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::receive()?;
        signals.stop_requested(&server).await;
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
            () = signals.stop() => return Err(io::Error::other("stopped by a second signal")),
        }
        Ok(())
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn receive() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn stop_requested(&mut self, server: &Server) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => server.reload().all(),
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
