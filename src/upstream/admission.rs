//! The limit of requests in flight at a server, and the queue of those that wait for one to end. Shared by
//! all workers: divided among them, few connections would find one worker full and the others idle.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::UpstreamError;
use super::fair_queue::FairQueue;
use super::server::Server;
use super::settings::UpstreamSection;

/// Counts the requests in flight at the servers of one upstream.
#[derive(Debug)]
pub(super) struct Admission {
    servers: Arc<[Arc<Server>]>,
    /// None where servers have no limit.
    limit: Option<Limit>,
}

/// What servers may have in flight, and who waits.
#[derive(Debug)]
struct Limit {
    /// Requests in flight at one server, at most.
    most: u32,
    /// How long a request may wait.
    wait: Duration,
    /// How many wait: looked at without the lock whenever a request ends.
    waiting: AtomicUsize,
    queue: Mutex<FairQueue<oneshot::Sender<Slot>>>,
}

/// A request that counts as in flight at a server, on its way to the worker that waits for it.
#[derive(Debug)]
struct Slot {
    admission: Arc<Admission>,
    place: usize,
    taken: bool,
}

impl Slot {
    /// The server's place; whoever takes it ends the request.
    fn take(mut self) -> usize {
        self.taken = true;
        self.place
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.taken {
            self.admission.end(self.place);
        }
    }
}

impl Admission {
    pub(super) fn new(servers: Arc<[Arc<Server>]>, settings: &UpstreamSection) -> Self {
        let limit = settings.max_requests.map(|most| Limit {
            most: most.get(),
            wait: settings.queue_wait,
            waiting: AtomicUsize::new(0),
            queue: Mutex::new(FairQueue::new(settings.queue)),
        });
        Self { servers, limit }
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        (self.limit.as_ref()).map_or(0, |limit| limit.waiting.load(Ordering::Relaxed))
    }

    /// Counts a request as in flight at a server, unless it has as many as it may, or others wait.
    pub(super) fn begin(&self, place: usize) -> bool {
        let server = &self.servers[place];
        match &self.limit {
            None => {
                server.begin();
                true
            }
            Some(limit) => !limit.is_waited_for() && server.begin_below(limit.most),
        }
    }

    /// A request is not in flight any more.
    pub(super) fn end(self: &Arc<Self>, place: usize) {
        self.servers[place].end();
        self.admit_waiting();
    }

    /// Whether a server has as many requests in flight as it may, or others wait for one.
    pub(super) fn is_full(&self, place: usize) -> bool {
        (self.limit.as_ref()).is_some_and(|limit| {
            limit.is_waited_for() || self.servers[place].has_in_flight(limit.most)
        })
    }

    /// Waits in the queue for a server, in the user's turn.
    ///
    /// # Errors
    /// When the queue is full, the turn does not come in time, or no server is available any more.
    pub(super) async fn wait_for_server(
        self: &Arc<Self>,
        user: &[u8],
    ) -> Result<usize, UpstreamError> {
        let Some(limit) = &self.limit else {
            return Err(UpstreamError::Busy);
        };
        let (sender, slot) = oneshot::channel();
        let id = {
            let mut queue = limit.queue();
            let id = queue.push(user, sender);
            limit.note_length(&queue);
            id.ok_or(UpstreamError::Busy)?
        };
        let _waiting = Waiting { limit, user, id };
        // A request may have ended after the servers were found full.
        self.admit_waiting();
        match timeout(limit.wait, slot).await {
            Ok(Ok(slot)) => Ok(slot.take()),
            Ok(Err(_)) => Err(UpstreamError::NoServer),
            Err(_) => Err(UpstreamError::Busy),
        }
    }

    /// Gives what is free to those who wait, and sends them away if there is no server to wait for. To be
    /// called whenever a server may have become free, available or unavailable.
    pub(super) fn admit_waiting(self: &Arc<Self>) {
        let Some(limit) = &self.limit else {
            return;
        };
        // Whoever begins to wait looks for a server afterwards, and whoever ends a request looks afterwards for
        // somebody who waits: one of both sees the other.
        fence(Ordering::SeqCst);
        while limit.is_waited_for() {
            if !self.servers.iter().any(|it| it.is_available()) {
                // Who waits is told by its sender's end.
                drop(limit.pop());
                continue;
            }
            let Some(place) = self.begin_anywhere(limit.most) else {
                return;
            };
            let mut slot = Slot {
                admission: Arc::clone(self),
                place,
                taken: false,
            };
            loop {
                let Some(waiter) = limit.pop() else {
                    self.servers[slot.take()].end();
                    return;
                };
                match waiter.send(slot) {
                    Ok(()) => break,
                    // It has just given up.
                    Err(unsent) => slot = unsent,
                }
            }
        }
    }

    /// Counts a request as in flight at the available server that has the fewest for its weight.
    fn begin_anywhere(&self, most: u32) -> Option<usize> {
        for backup in [false, true] {
            let servers = self.servers.iter().enumerate();
            let available: Vec<_> = servers
                .filter(|(_, it)| it.backup == backup && it.is_available())
                .collect();
            let free = available.iter().filter(|(_, it)| !it.has_in_flight(most));
            let least = free.min_by(|(_, one), (_, other)| one.usage().total_cmp(&other.usage()));
            if let Some((place, server)) = least
                && server.begin_below(most)
            {
                return Some(*place);
            }
            if !available.is_empty() {
                return None;
            }
        }
        None
    }
}

impl Limit {
    fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<oneshot::Sender<Slot>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<oneshot::Sender<Slot>> {
        let mut queue = self.queue();
        let next = queue.pop();
        self.note_length(&queue);
        next
    }

    fn note_length(&self, queue: &FairQueue<oneshot::Sender<Slot>>) {
        self.waiting.store(queue.len(), Ordering::SeqCst);
    }
}

/// A place in the queue, given up when this is dropped.
struct Waiting<'a> {
    limit: &'a Limit,
    user: &'a [u8],
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.limit.queue();
        queue.remove(self.user, self.id);
        self.limit.note_length(&queue);
    }
}
