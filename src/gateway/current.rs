//! Which snapshot is in force. A request keeps the one that it began with.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;

use super::record::AccessLog;
use super::response_body::ResponseBody;
use super::{Gateway, Shared};
use crate::connection::ClientConnection;
use crate::limits::Limits;
use crate::metrics::WorkerMetrics;

/// What all workers share at present: replaced as a whole by a reload.
#[derive(Debug)]
pub struct Current {
    shared: ArcSwap<Shared>,
    /// Grows with each replacement: cheaper to look at for each request.
    generation: AtomicU64,
}

impl Current {
    /// With this to begin with.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self {
            shared: ArcSwap::from_pointee(shared),
            generation: AtomicU64::new(0),
        }
    }

    /// What is in force now.
    #[must_use]
    pub fn load(&self) -> Arc<Shared> {
        self.shared.load_full()
    }

    /// Puts another in force: every request that begins after the return is served with it.
    pub fn replace(&self, shared: Shared) {
        self.shared.store(Arc::new(shared));
        // Whoever sees the new number finds what was stored before.
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// One worker's gateway, with what is in force.
pub struct WorkerGateway {
    current: Arc<Current>,
    gateway: RefCell<Rc<Gateway>>,
    generation: Cell<u64>,
    metrics: Arc<WorkerMetrics>,
}

impl fmt::Debug for WorkerGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerGateway").finish_non_exhaustive()
    }
}

impl WorkerGateway {
    /// A worker's gateway, with no connection to an upstream yet.
    #[must_use]
    pub fn new(current: Arc<Current>, log: AccessLog) -> Self {
        // First the number: with an older one, what is newer is only looked for once more.
        let generation = current.generation();
        let metrics = Arc::clone(log.metrics());
        let gateway = Gateway::new(&current, log);
        Self {
            metrics,
            current,
            gateway: RefCell::new(Rc::new(gateway)),
            generation: Cell::new(generation),
        }
    }

    /// The gateway with what is in force now.
    #[must_use]
    pub fn present(&self) -> Rc<Gateway> {
        let generation = self.current.generation();
        if generation != self.generation.get() {
            let next = self.gateway.borrow().succeeded_by(self.current.load());
            self.generation.set(generation);
            self.gateway.replace(Rc::new(next));
        }
        Rc::clone(&self.gateway.borrow())
    }

    /// What is in force now. Not to be kept for as long as a connection lives: it would keep all of a
    /// configuration that was replaced, and the health checks of its servers.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(self.present().shared())
    }

    /// The bounds and deadlines in force now.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.present().shared().limits)
    }

    /// What this worker counts.
    #[must_use]
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// Answers a request: see [`Gateway::handle`].
    pub async fn handle(
        &self,
        client: &Rc<ClientConnection>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        self.present().handle(client, request).await
    }
}
