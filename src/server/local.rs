//! A gateway on the thread of whoever asks for it, without a listener: connections are handed to it,
//! and whoever drives the clock of that thread's runtime drives every deadline. For tests of what
//! depends on time and order; nothing of the program uses it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::connection::{self, Arrived, Protocol, Service};
use super::drain::Drain;
use super::load::Load;
use super::turns::Rota;
use crate::client::Standing;
use crate::gateway::record::AccessLog;
use crate::gateway::{Gateway, Shared};
use crate::upstream::{Upstream, UpstreamSection};

/// One more worker of a server, as it were, on the present thread.
pub struct LocalGateway {
    gateway: Rc<Gateway>,
    drain: Rc<Drain>,
    rota: Rc<Rota>,
    load: Arc<Load>,
    service: Service,
}

impl LocalGateway {
    /// One more worker with what all workers share, serving this protocol.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, protocol: Protocol, upstream: &UpstreamSection) -> Self {
        let upstream = Upstream::new(upstream);
        Self {
            gateway: Rc::new(Gateway::new(shared, upstream, AccessLog::new(None))),
            drain: Rc::default(),
            rota: Rc::default(),
            load: Arc::default(),
            service: Service {
                protocol,
                proxy_protocol: false,
            },
        }
    }

    /// Serves a connection of a client until it ends. Within a runtime of the present thread.
    pub async fn serve(&self, socket: TcpStream, peer: SocketAddr) {
        let keeper = tokio::task::spawn_local(Rc::clone(&self.rota).keep());
        let arrived = Arrived {
            socket,
            peer,
            service: self.service.clone(),
            standing: Standing::Served,
        };
        let watch = self.drain.watch(self.load.count()).await;
        connection::serve(
            arrived,
            Rc::clone(&self.gateway),
            watch,
            Rc::clone(&self.rota),
        )
        .await;
        keeper.abort();
    }

    /// The small regular work of a worker.
    pub fn tidy(&self) {
        self.gateway.tidy();
    }
}

impl std::fmt::Debug for LocalGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalGateway").finish_non_exhaustive()
    }
}
