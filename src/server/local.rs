//! A gateway on the thread of whoever asks for it, without a listener: connections are handed to it,
//! and whoever drives the clock of that thread's runtime drives every deadline. For tests of what
//! depends on time and order; nothing of the program uses it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::connection::{self, Arrived, Protocol, Service};
use super::drain::Drain;
use super::http2::scheduler::StreamScheduler;
use crate::connection::SlotKind;
use crate::gateway::record::AccessLog;
use crate::gateway::{Current, WorkerGateway};
use crate::metrics::Load;

/// One more worker of a server, as it were, on the present thread.
pub struct LocalGateway {
    gateway: Rc<WorkerGateway>,
    drain: Rc<Drain>,
    scheduler: Rc<StreamScheduler>,
    load: Arc<Load>,
    service: Service,
}

impl LocalGateway {
    /// One more worker with what all workers share, serving this protocol.
    #[must_use]
    pub(crate) fn new(current: Arc<Current>, protocol: Protocol) -> Self {
        let metrics = current.load().metrics.add_worker();
        Self {
            load: Arc::clone(&metrics.load),
            gateway: Rc::new(WorkerGateway::new(current, AccessLog::new(None, metrics))),
            drain: Rc::default(),
            scheduler: Rc::default(),
            service: Service {
                protocol,
                proxy_protocol: false,
            },
        }
    }

    /// Serves a connection of a client until it ends. Within a runtime of the present thread.
    pub async fn serve(&self, socket: TcpStream, peer: SocketAddr) {
        let scheduling = tokio::task::spawn_local(Rc::clone(&self.scheduler).run());
        let arrived = Arrived {
            socket,
            peer,
            service: self.service.clone(),
            slot_kind: SlotKind::Served,
        };
        let watch = self.drain.watch(self.load.count()).await;
        connection::serve(
            arrived,
            Rc::clone(&self.gateway),
            watch,
            Rc::clone(&self.scheduler),
        )
        .await;
        scheduling.abort();
    }

    /// The small regular work of a worker.
    pub fn tidy(&self) {
        self.gateway.present().tidy();
    }
}

impl std::fmt::Debug for LocalGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalGateway").finish_non_exhaustive()
    }
}
