//! Listeners, workers and connections: threads and runtimes of the request path are known only here.
//! A request leaves it as a call of [`Gateway::handle`](crate::gateway::Gateway::handle).

mod connection;
mod drain;

mod http1;
mod http2;
mod listener;
mod local;
#[cfg(test)]
mod model;
mod proxied;
mod settings;
mod slots;
mod socket;
mod stream;

mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio::task::JoinHandle as Task;

use crate::gateway::Shared;
use crate::metrics::Load;
use crate::observe::AccessSink;

use slots::ConnectionSlots;
use worker::Worker;

pub(crate) use connection::{Protocol, Service};
pub(crate) use listener::bind;
pub use local::LocalGateway;
pub use settings::{ListenAddress, ListenSection};
pub(crate) use slots::OVERFLOW;

/// Clients' connections being accepted and served. Dropping it drains it.
#[derive(Debug)]
pub(crate) struct Frontend {
    loads: Vec<Arc<Load>>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// Work that the acceptor's thread does beside accepting, which is next to none. It ends with the
/// frontend.
pub(crate) type PeriodicTask = Box<dyn FnOnce() -> Task<()> + Send>;

/// What a frontend serves, and with what.
pub(crate) struct Serving {
    /// Each listener with what is served on it.
    pub(crate) listeners: Vec<(TcpListener, Service)>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// What all workers share.
    pub(crate) shared: Arc<Shared>,
    /// Where access records go.
    pub(crate) sink: Option<AccessSink>,
    /// Started on the acceptor's thread, within its runtime.
    pub(crate) periodic_tasks: Vec<PeriodicTask>,
}

impl Frontend {
    /// Starts the threads; connections are accepted from then on.
    ///
    /// # Errors
    /// When the operating system gives no threads; nothing is left running then.
    pub(crate) fn start(serving: Serving) -> io::Result<Self> {
        let mut frontend = Self {
            loads: Vec::new(),
            stop: None,
            threads: Vec::new(),
        };
        let mut workers = Vec::new();
        for number in 0..serving.workers {
            let shared = Arc::clone(&serving.shared);
            let (worker, thread) = Worker::start(number, shared, serving.sink.clone())?;
            frontend.loads.push(Arc::clone(worker.load()));
            workers.push(worker);
            frontend.threads.push(thread);
        }
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            listeners: serving.listeners,
            workers,
            connections: serving.shared.limits.connections,
            periodic_tasks: serving.periodic_tasks,
        };
        let thread = thread::Builder::new()
            .name("syncgate-accept".to_owned())
            .spawn(move || acceptor.run(stopped))?;
        frontend.stop = Some(stop);
        frontend.threads.push(thread);
        Ok(frontend)
    }

    /// How many connections each worker has at present.
    pub(crate) fn loads(&self) -> Vec<usize> {
        self.loads.iter().map(|load| load.connections()).collect()
    }

    /// How many connections rest at present: between requests, with no more kept of them than their
    /// encrypted stream.
    pub(crate) fn resting(&self) -> usize {
        self.loads.iter().map(|load| load.resting()).sum()
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        // The acceptor ends, then the workers, whose inboxes it held.
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a gateway thread panicked");
            }
        }
    }
}

/// The thread that accepts connections.
struct Acceptor {
    listeners: Vec<(TcpListener, Service)>,
    workers: Vec<Worker>,
    connections: NonZeroUsize,
    periodic_tasks: Vec<PeriodicTask>,
}

impl Acceptor {
    fn run(self, stopped: oneshot::Receiver<()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match runtime.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(self.accept_until(stopped)),
            Err(error) => tracing::error!(%error, "connections cannot be accepted"),
        }
    }

    async fn accept_until(self, stopped: oneshot::Receiver<()>) {
        let slots = Rc::new(ConnectionSlots::new(self.connections));
        let workers = Rc::new(self.workers);
        let mut tasks = Vec::new();
        for (listener, service) in self.listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let (slots, workers) = (Rc::clone(&slots), Rc::clone(&workers));
                    let accepting = listener::accept(listener, service, slots, workers);
                    tasks.push(tokio::task::spawn_local(accepting));
                }
                Err(error) => {
                    tracing::error!(%error, "a listener could not be registered with the event loop")
                }
            }
        }
        tasks.extend(self.periodic_tasks.into_iter().map(|start| start()));
        drop(workers);
        // Ends by the sender being dropped.
        let _ = stopped.await;
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// The addresses that listeners are bound to, with the port that the system chose for port 0.
pub(crate) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect()
}
