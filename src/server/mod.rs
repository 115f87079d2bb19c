//! Listeners, workers and connections: threads and runtimes of the request path are known only here.
//! A request leaves it as a call of [`Gateway::handle`](crate::gateway::Gateway::handle).

mod connection;
mod drain;

mod http1;
mod http2;
mod listener;
mod listening;
mod local;
#[cfg(test)]
mod model;
mod proxied;
mod settings;
mod slots;
mod socket;
mod stream;

mod worker;

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle as Task;

use crate::gateway::Current;
use crate::metrics::Load;
use crate::observe::AccessSink;

use listening::Update;
use slots::ConnectionSlots;
use worker::Worker;

pub(crate) use connection::{Protocol, Service};
pub(crate) use listener::{BACKLOG, bind};
pub(crate) use listening::{Listener, ListenerControl};
pub use local::LocalGateway;
pub use settings::{ListenAddress, ListenSection};
pub(crate) use slots::OVERFLOW;

/// Clients' connections being accepted and served. Dropping it drains it.
#[derive(Debug)]
pub(crate) struct Frontend {
    loads: Vec<Arc<Load>>,
    listeners: ListenerControl,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// Work that the acceptor's thread does beside accepting, which is next to none. It ends with the
/// frontend.
pub(crate) type PeriodicTask = Box<dyn FnOnce() -> Task<()> + Send>;

/// What a frontend serves, and with what.
pub(crate) struct Serving {
    /// Where clients connect.
    pub(crate) listeners: Vec<Listener>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// What all workers share.
    pub(crate) current: Arc<Current>,
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
        let (updates, updated) = unbounded_channel();
        let mut frontend = Self {
            loads: Vec::new(),
            listeners: ListenerControl::new(&serving.listeners, updates),
            stop: None,
            threads: Vec::new(),
        };
        let mut workers = Vec::new();
        for number in 0..serving.workers {
            let current = Arc::clone(&serving.current);
            let (worker, thread) = Worker::start(number, current, serving.sink.clone())?;
            frontend.loads.push(Arc::clone(worker.load()));
            workers.push(worker);
            frontend.threads.push(thread);
        }
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            listeners: serving.listeners,
            workers,
            connections: serving.current.load().limits.connections,
            periodic_tasks: serving.periodic_tasks,
            updated,
        };
        let thread = thread::Builder::new()
            .name("syncgate-accept".to_owned())
            .spawn(move || acceptor.run(stopped))?;
        frontend.stop = Some(stop);
        frontend.threads.push(thread);
        Ok(frontend)
    }

    /// What changes where clients connect.
    pub(crate) fn listeners(&self) -> &ListenerControl {
        &self.listeners
    }

    /// How many connections each worker has at present.
    pub(crate) fn loads(&self) -> Vec<usize> {
        self.loads.iter().map(|load| load.connections()).collect()
    }

    /// A number for each worker that grows while it makes progress.
    pub(crate) fn beats(&self) -> Vec<usize> {
        self.loads.iter().map(|load| load.beats()).collect()
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
    listeners: Vec<Listener>,
    workers: Vec<Worker>,
    connections: NonZeroUsize,
    periodic_tasks: Vec<PeriodicTask>,
    updated: UnboundedReceiver<Update>,
}

impl Acceptor {
    fn run(self, stopped: oneshot::Receiver<()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match runtime.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(self.accept_until(stopped)),
            Err(error) => tracing::error!(%error, "connections cannot be accepted"),
        }
    }

    async fn accept_until(mut self, mut stopped: oneshot::Receiver<()>) {
        let slots = Rc::new(ConnectionSlots::new(self.connections));
        let workers = Rc::new(self.workers);
        let mut accepting = Accepting {
            open: Vec::new(),
            slots,
            workers,
        };
        accepting.listen(self.listeners);
        let mut tasks: Vec<_> = self
            .periodic_tasks
            .into_iter()
            .map(|start| start())
            .collect();
        loop {
            tokio::select! {
                // Ends by the sender being dropped.
                _ = &mut stopped => break,
                Some(update) = self.updated.recv() => {
                    accepting.slots.set_limit(update.connections);
                    accepting.listen(update.listeners);
                    drop(update.done);
                }
            }
        }
        let open = accepting.open.drain(..).map(|open| open.task);
        tasks.extend(open);
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// The open listeners, and what their connections need.
struct Accepting {
    open: Vec<OpenListener>,
    slots: Rc<ConnectionSlots>,
    workers: Rc<Vec<Worker>>,
}

struct OpenListener {
    bound: SocketAddr,
    /// Of connections that come from now on.
    service: Rc<RefCell<Service>>,
    task: Task<()>,
}

impl Accepting {
    /// Listens there and nowhere else.
    fn listen(&mut self, listeners: Vec<Listener>) {
        let mut before = std::mem::take(&mut self.open);
        for listener in listeners {
            let bound = listener.bound();
            let place = before.iter().position(|open| open.bound == bound);
            match (listener.socket, place) {
                (Some(socket), _) => self.open(bound, socket, listener.service),
                (None, Some(place)) => {
                    let open = before.remove(place);
                    open.service.replace(listener.service);
                    self.open.push(open);
                }
                (None, None) => tracing::error!(%bound, "a listener is gone"),
            }
        }
        for closed in before {
            closed.task.abort();
        }
    }

    fn open(&mut self, bound: SocketAddr, socket: TcpListener, service: Service) {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => {
                let service = Rc::new(RefCell::new(service));
                let (slots, workers) = (Rc::clone(&self.slots), Rc::clone(&self.workers));
                let accepting = listener::accept(listener, Rc::clone(&service), slots, workers);
                self.open.push(OpenListener {
                    bound,
                    service,
                    task: tokio::task::spawn_local(accepting),
                });
            }
            Err(error) => {
                tracing::error!(%error, "a listener could not be registered with the event loop")
            }
        }
    }
}
