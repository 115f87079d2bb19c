//! The limit of requests in flight at a server, and the queue of those that wait for one to end. Shared by
//! all workers: divided among them, few connections would find one worker full and the others idle.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::UpstreamError;
use super::fair_queue::FairQueue;
use super::settings::UpstreamSection;
use super::shared::SharedUpstream;

/// What is waited in for a server of one upstream.
#[derive(Debug)]
pub(super) struct Pressure {
    /// Requests in flight at one server, at most.
    most: u32,
    /// How many wait: looked at without the lock whenever a request ends.
    waiting: AtomicUsize,
    queue: Mutex<FairQueue<oneshot::Sender<Slot>>>,
}

impl Pressure {
    /// None where servers have no limit.
    pub(super) fn new(settings: &UpstreamSection) -> Option<Self> {
        Some(Self {
            most: settings.max_requests?.get(),
            waiting: AtomicUsize::new(0),
            queue: Mutex::new(FairQueue::new(settings.queue)),
        })
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

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn note_length(&self, queue: &FairQueue<oneshot::Sender<Slot>>) {
        self.waiting.store(queue.len(), Ordering::SeqCst);
    }
}

/// A request that counts as in flight at a server, on its way to the worker that waits for it.
#[derive(Debug)]
pub(super) struct Slot {
    upstream: Arc<SharedUpstream>,
    place: usize,
    taken: bool,
}

impl Slot {
    /// The server's place; whoever takes it ends the request.
    pub(super) fn take(mut self) -> usize {
        self.taken = true;
        self.place
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.taken {
            self.upstream.end(self.place);
        }
    }
}

impl SharedUpstream {
    /// Counts a request as in flight at a server, unless it has as many as it may, or others wait.
    pub(super) fn begin(&self, place: usize) -> bool {
        let server = &self.servers[place];
        match &self.pressure {
            None => {
                server.begin();
                true
            }
            Some(pressure) => {
                pressure.waiting.load(Ordering::SeqCst) == 0 && server.begin_below(pressure.most)
            }
        }
    }

    /// A request is not in flight any more.
    pub(super) fn end(self: &Arc<Self>, place: usize) {
        self.servers[place].end();
        self.admit_waiting();
    }

    /// Whether a server has as many requests in flight as it may, or others wait for one.
    pub(super) fn is_full(&self, place: usize) -> bool {
        self.pressure.as_ref().is_some_and(|pressure| {
            pressure.waiting.load(Ordering::SeqCst) > 0
                || self.servers[place].has_in_flight(pressure.most)
        })
    }

    /// Waits in the queue for a server, in the user's turn.
    ///
    /// # Errors
    /// When the queue is full, or the turn does not come in time.
    pub(super) async fn wait_for_server(
        self: &Arc<Self>,
        user: &[u8],
    ) -> Result<usize, UpstreamError> {
        let Some(pressure) = &self.pressure else {
            return Err(UpstreamError::Busy);
        };
        let (sender, slot) = oneshot::channel();
        let id = {
            let mut queue = pressure.queue();
            let id = queue.push(user, sender);
            pressure.note_length(&queue);
            id.ok_or(UpstreamError::Busy)?
        };
        let _waiting = Waiting { pressure, user, id };
        // A request may have ended after the servers were found full.
        self.admit_waiting();
        match timeout(self.settings.queue_wait, slot).await {
            Ok(Ok(slot)) => Ok(slot.take()),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy),
        }
    }

    /// Gives what is free to those who wait.
    pub(super) fn admit_waiting(self: &Arc<Self>) {
        let Some(pressure) = &self.pressure else {
            return;
        };
        // Whoever begins to wait looks for a server afterwards, and whoever ends a request looks afterwards for
        // somebody who waits: one of both sees the other.
        fence(Ordering::SeqCst);
        while pressure.waiting.load(Ordering::SeqCst) > 0 {
            let Some(place) = self.begin_anywhere(pressure.most) else {
                return;
            };
            let mut slot = Slot {
                upstream: Arc::clone(self),
                place,
                taken: false,
            };
            loop {
                let Some(waiter) = pressure.pop() else {
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
                .filter(|(_, it)| it.backup == backup && it.present_weight() > 0)
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

/// A place in the queue, given up when this is dropped.
struct Waiting<'a> {
    pressure: &'a Pressure,
    user: &'a [u8],
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.pressure.queue();
        queue.remove(self.user, self.id);
        self.pressure.note_length(&queue);
    }
}
