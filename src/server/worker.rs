//! One worker: a thread, a current-thread runtime, an upstream pool and the connections handed to it.
//! A connection lives and dies on one worker.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{interval, sleep, timeout};

use super::connection::{self, Arrived, Service};
use super::drain::Drain;
use super::http2::scheduler::StreamScheduler;
use super::slots::ConnectionSlot;
use crate::gateway::record::AccessLog;
use crate::gateway::{Current, WorkerGateway};
use crate::lifecycle::Stage;
use crate::metrics::{Counted, Load};
use crate::observe::AccessSink;

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) service: Service,
    /// Free again when it ends.
    pub(super) slot: ConnectionSlot,
}

/// The acceptor's end of a worker. Dropping it makes the worker drain and end.
#[derive(Debug)]
pub(super) struct Worker {
    /// Unbounded by itself: every connection in it has one of a bounded number of slots.
    inbox: UnboundedSender<(Accepted, Counted)>,
    load: Arc<Load>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system gives no thread or no event queue.
    pub(super) fn start(
        number: usize,
        current: Arc<Current>,
        sink: Option<AccessSink>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (inbox, received) = unbounded_channel();
        let metrics = current.load().metrics.add_worker();
        let load = Arc::clone(&metrics.load);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().event_interval(EVENT_INTERVAL);
        let thread =
            Builder::new()
                .name(format!("syncgate-{number}"))
                .spawn(move || match runtime.build_local(LocalOptions::default()) {
                    Ok(runtime) => {
                        runtime.block_on(work(current, AccessLog::new(sink, metrics), received));
                    }
                    Err(error) => tracing::error!(%error, "a worker cannot start"),
                })?;
        Ok((Self { inbox, load }, thread))
    }

    /// What the worker has at present.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Hands a connection over. Only the acceptor does, so the load it chose by cannot have grown.
    pub(super) fn take(&self, accepted: Accepted) {
        let counted = self.load.count();
        if self.inbox.send((accepted, counted)).is_err() {
            tracing::error!("a worker is gone; its connection is closed");
        }
    }
}

async fn work(
    current: Arc<Current>,
    log: AccessLog,
    mut inbox: UnboundedReceiver<(Accepted, Counted)>,
) {
    let drain = Rc::new(Drain::default());
    let gateway = Rc::new(WorkerGateway::new(current, log));
    let tidier = tokio::task::spawn_local(tidy(Rc::clone(&gateway)));
    let scheduler = Rc::new(StreamScheduler::default());
    let scheduling = tokio::task::spawn_local(Rc::clone(&scheduler).run());
    while let Some((accepted, counted)) = inbox.recv().await {
        let (gateway, drain, scheduler) = (
            Rc::clone(&gateway),
            Rc::clone(&drain),
            Rc::clone(&scheduler),
        );
        tokio::task::spawn_local(serve(accepted, counted, gateway, drain, scheduler));
    }
    let grace = gateway.limits().drain;
    let lifecycle = Arc::clone(&gateway.shared().lifecycle);
    if lifecycle.stage() == Stage::HandedOver {
        // A client may send another request on a connection that is idle, and is not to find it closed.
        drain.linger();
        tokio::select! {
            () = drain.emptied() => {}
            () = lifecycle.draining() => {}
            () = sleep(grace) => {}
        }
    }
    drain.begin();
    if timeout(grace, drain.emptied()).await.is_err() {
        tracing::warn!(
            "requests were still in flight when the drain timeout expired (limits.drain)"
        );
    }
    scheduling.abort();
    tidier.abort();
    gateway.present().tidy();
}

async fn serve(
    accepted: Accepted,
    counted: Counted,
    gateway: Rc<WorkerGateway>,
    drain: Rc<Drain>,
    scheduler: Rc<StreamScheduler>,
) {
    let Accepted {
        socket,
        peer,
        service,
        slot,
    } = accepted;
    gateway.metrics().connections.accepted.add(1);
    let watch = drain.watch(counted).await;
    match tokio::net::TcpStream::from_std(socket) {
        Ok(socket) => {
            let arrived = Arrived {
                socket,
                peer,
                service,
                slot_kind: slot.kind,
            };
            connection::serve(arrived, gateway, watch, scheduler).await;
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be registered with the event loop")
        }
    }
    drop(slot);
}

async fn tidy(gateway: Rc<WorkerGateway>) {
    let mut tick = interval(TIDY);
    loop {
        tick.tick().await;
        gateway.present().tidy();
    }
}

/// How long an access record may wait in its buffer.
const TIDY: Duration = Duration::from_millis(250);

/// Tasks polled between two looks for new events of the kernel's. A worker is busy with short tasks
/// only, and each look is a system call.
const EVENT_INTERVAL: u32 = 200;
