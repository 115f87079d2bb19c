//! Whose turn it is to change tokens.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::delegate::{Call, Calls, Delegate};
use crate::store::StoreError;

/// Every change takes a turn; to freeze the store is to take all of them.
#[derive(Debug)]
pub(in crate::store) struct Gate {
    turns: Arc<Semaphore>,
    /// Changed under the lock of `delegate` alone.
    pub(super) phase: AtomicU8,
    delegate: Mutex<Option<Delegate>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What somebody may do who wants to change something.
#[derive(Debug)]
pub(in crate::store) enum Turn<'a> {
    /// Change it here, while this is held.
    Own { _turn: SemaphorePermit<'a> },
    /// Have it changed by the process that took over.
    Delegated(Delegate),
}

/// This process changes its tokens.
pub(super) const OWN: u8 = 0;
/// Nothing changes.
const FROZEN: u8 = 1;
/// Nothing is even found.
const DECIDING: u8 = 2;
/// Another process has the tokens.
const DELEGATED: u8 = 3;

impl Default for Gate {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(TURNS as usize)),
            phase: AtomicU8::new(OWN),
            delegate: Mutex::default(),
            thread: Mutex::default(),
        }
    }
}

impl Gate {
    /// Waits for a turn.
    ///
    /// # Errors
    /// When none comes for long.
    pub(in crate::store) async fn turn(&self) -> Result<Turn<'_>, StoreError> {
        let turn = match self.turns.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                let turn = timeout(PATIENCE, self.turns.acquire()).await;
                let turn = turn.map_err(|_| StoreError::Unavailable)?;
                turn.map_err(|_| StoreError::Unavailable)?
            }
        };
        match (self.phase.load(Ordering::Acquire), self.delegate()) {
            (DELEGATED, Some(delegate)) => Ok(Turn::Delegated(delegate)),
            _ => Ok(Turn::Own { _turn: turn }),
        }
    }

    /// A turn for work that can as well be done later.
    pub(in crate::store) fn try_turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.turns.try_acquire().ok()?;
        (self.phase.load(Ordering::Acquire) == OWN).then_some(turn)
    }

    /// Takes all turns, once nobody has one.
    pub(super) async fn all(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let turns = Arc::clone(&self.turns).acquire_many_owned(TURNS).await;
        turns.map_err(|_| StoreError::Unavailable)
    }

    /// Whether this process makes its changes itself, and at once.
    pub(in crate::store) fn is_own(&self) -> bool {
        self.phase.load(Ordering::Acquire) == OWN
    }

    /// Whether what is in memory here may be looked at.
    pub(in crate::store) fn may_look(&self) -> bool {
        self.phase.load(Ordering::Acquire) < DECIDING
    }

    pub(super) fn freeze(&self, delegate: Delegate) {
        let mut held = self.held();
        *held = Some(delegate);
        self.phase.store(FROZEN, Ordering::Release);
    }

    pub(super) fn decide(&self) {
        let _held = self.held();
        self.phase.store(DECIDING, Ordering::Release);
    }

    /// Where a server keeps the tokens, it goes on to do so.
    pub(super) fn hand_over(&self, thread: Option<JoinHandle<()>>, is_shared: bool) {
        let _held = self.held();
        let phase = if is_shared { OWN } else { DELEGATED };
        self.phase.store(phase, Ordering::Release);
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = thread;
    }

    /// Goes on as before. Returns what was put off.
    pub(super) fn thaw(&self, calls: &mut Calls) -> Vec<Call> {
        let mut held = self.held();
        *held = None;
        self.phase.store(OWN, Ordering::Release);
        calls.close();
        let mut put_off = Vec::new();
        while let Ok(call) = calls.try_recv() {
            put_off.push(call);
        }
        put_off
    }

    /// Does something here with `own`, or puts it off, or has the other process told of it. Never waits.
    pub(in crate::store) fn now_or_told<T>(
        &self,
        own: impl FnOnce() -> T,
        told: impl FnOnce(&Delegate),
    ) -> Option<T> {
        let held = self.held();
        match (&*held, self.phase.load(Ordering::Acquire)) {
            (Some(delegate), FROZEN..) => {
                told(delegate);
                None
            }
            _ => Some(own()),
        }
    }

    pub(super) fn delegate(&self) -> Option<Delegate> {
        self.held().clone()
    }

    /// Returns once the other process was told everything, or is gone.
    pub(in crate::store) fn close(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let (Some(delegate), Some(thread)) = (self.delegate(), thread) {
            delegate.end();
            if thread.join().is_err() {
                tracing::error!("the thread that talks to the new process had panicked");
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Delegate>> {
        self.delegate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than there are requests.
const TURNS: u32 = 1 << 24;
/// How long a change waits for a takeover to succeed or fail, which has a deadline of its own.
const PATIENCE: Duration = Duration::from_secs(30);
