//! Connection slots: as many as may be served, and a few overflow slots in which excess connections are
//! answered with 503 instead of waiting in vain. File descriptors are reserved for the overflow, and
//! released when the process has no others.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::connection::SlotKind;

/// All connection slots of a gateway. Owned by the acceptor.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    served: Arc<Semaphore>,
    /// How many there are to be.
    limit: Cell<usize>,
    /// How many more there are for now: those that were in use when the limit was lowered.
    surplus: Cell<usize>,
    overflow: Arc<Semaphore>,
    /// Of a kind that needs no file system, which may be closed to the process by now.
    spares: RefCell<Vec<UnixDatagram>>,
    /// Whether spares have been given up since they were last complete.
    pressed: Cell<bool>,
    /// When the lack of slots was last logged.
    logged: Cell<Option<Instant>>,
}

/// The slot of one connection, released on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    pub(super) kind: SlotKind,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlots {
    pub(super) fn new(served: NonZeroUsize) -> Self {
        let slots = Self {
            served: Arc::new(Semaphore::new(served.get())),
            limit: Cell::new(served.get()),
            surplus: Cell::new(0),
            overflow: Arc::new(Semaphore::new(OVERFLOW)),
            spares: RefCell::default(),
            pressed: Cell::new(false),
            logged: Cell::new(None),
        };
        slots.fill_spares();
        slots
    }

    /// Serves so many from now on. Connections beyond that stay.
    pub(super) fn set_limit(&self, limit: NonZeroUsize) {
        let before = self.limit.replace(limit.get());
        let added = limit.get().saturating_sub(before);
        // What is still to go need not be made anew.
        let spared = added.min(self.surplus.get());
        self.served.add_permits(added - spared);
        let gone = before.saturating_sub(limit.get());
        self.surplus.set(self.surplus.get() - spared + gone);
        self.remove_surplus();
    }

    fn remove_surplus(&self) {
        let surplus = self.surplus.get();
        if surplus > 0 {
            self.surplus
                .set(surplus - self.served.forget_permits(surplus));
        }
    }

    /// Accepts a connection once there is a slot for it, of whichever kind. None when the slot was
    /// taken meanwhile, by another listener's connection.
    pub(super) async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<Option<(TcpStream, SocketAddr, ConnectionSlot)>> {
        self.remove_surplus();
        // Not kept: a listener that waits for connections must not hold a slot.
        tokio::select! {
            biased;
            slot = self.served.acquire() => drop(slot),
            slot = self.overflow.acquire() => drop(slot),
        }
        self.fill_spares();
        let (socket, peer) = loop {
            match listener.accept().await {
                Err(error) if is_out_of_descriptors(&error) && self.give_up_a_spare() => {}
                accepted => break accepted?,
            }
        };
        Ok(self.take().map(|slot| (socket, peer, slot)))
    }

    /// A regular slot, or an overflow slot if there is none or no descriptor is left.
    fn take(&self) -> Option<ConnectionSlot> {
        self.remove_surplus();
        let pressed = self.pressed.get();
        let served = || Arc::clone(&self.served).try_acquire_owned().ok();
        if let Some(permit) = (!pressed).then(served).flatten() {
            return Some(ConnectionSlot {
                kind: SlotKind::Served,
                _permit: permit,
            });
        }
        self.log_full(pressed);
        let permit = Arc::clone(&self.overflow).try_acquire_owned().ok()?;
        Some(ConnectionSlot {
            kind: SlotKind::Overflow,
            _permit: permit,
        })
    }

    /// One line a minute: each refused connection is in the access log.
    fn log_full(&self, pressed: bool) {
        let now = Instant::now();
        if self.logged.get().is_none_or(|at| at + QUIET <= now) {
            self.logged.set(Some(now));
            if pressed {
                tracing::error!("out of file descriptors: new connections are answered with 503");
            } else {
                tracing::error!(
                    "connection limit reached (limits.connections): further ones are answered \
                     with 503"
                );
            }
        }
    }

    fn fill_spares(&self) {
        let mut spares = self.spares.borrow_mut();
        while spares.len() < OVERFLOW {
            match UnixDatagram::unbound() {
                Ok(spare) => spares.push(spare),
                Err(error) if is_out_of_descriptors(&error) => return,
                // It is not for want of descriptors.
                Err(_) => break,
            }
        }
        self.pressed.set(false);
    }

    fn give_up_a_spare(&self) -> bool {
        let given_up = self.spares.borrow_mut().pop().is_some();
        self.pressed.set(self.pressed.get() || given_up);
        given_up
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// Connections beyond the limit that are answered at once. Each lasts no longer than a handshake may.
pub(crate) const OVERFLOW: usize = 32;

const QUIET: Duration = Duration::from_secs(60);
