//! The places for connections: as many as may be served, and a small reserve for those that are too
//! many, so that they can be told to come back instead of waiting for nothing. For the reserve there
//! are file descriptors put by, which are given up when there are no others.

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

use crate::client::Standing;

/// All places of a gateway. Belongs to the acceptor.
#[derive(Debug)]
pub(super) struct Places {
    served: Arc<Semaphore>,
    surplus: Arc<Semaphore>,
    /// Of a kind that needs no file system, which may be closed to the process by now.
    spares: RefCell<Vec<UnixDatagram>>,
    /// Whether spares have been given up since they were last complete.
    pressed: Cell<bool>,
    /// When the operator was last told that there is no room.
    told: Cell<Option<Instant>>,
}

/// The place of one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) standing: Standing,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(served: NonZeroUsize) -> Self {
        let places = Self {
            served: Arc::new(Semaphore::new(served.get())),
            surplus: Arc::new(Semaphore::new(SURPLUS)),
            spares: RefCell::default(),
            pressed: Cell::new(false),
            told: Cell::new(None),
        };
        places.fill_spares();
        places
    }

    /// Accepts a connection once there is a place for it, of whichever kind. None when the place was
    /// taken meanwhile, by another listener's connection.
    pub(super) async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<Option<(TcpStream, SocketAddr, Place)>> {
        // Not kept: a listener that waits for connections must not hold a place.
        tokio::select! {
            biased;
            place = self.served.acquire() => drop(place),
            place = self.surplus.acquire() => drop(place),
        }
        self.fill_spares();
        let (socket, peer) = loop {
            match listener.accept().await {
                Err(error) if is_out_of_descriptors(&error) && self.give_up_a_spare() => {}
                accepted => break accepted?,
            }
        };
        Ok(self.take().map(|place| (socket, peer, place)))
    }

    /// A place to be served, or where there is none, or no descriptor left, one of the reserve.
    fn take(&self) -> Option<Place> {
        let pressed = self.pressed.get();
        let served = || Arc::clone(&self.served).try_acquire_owned().ok();
        if let Some(permit) = (!pressed).then(served).flatten() {
            return Some(Place {
                standing: Standing::Served,
                _permit: permit,
            });
        }
        self.tell(pressed);
        let permit = Arc::clone(&self.surplus).try_acquire_owned().ok()?;
        Some(Place {
            standing: Standing::Surplus,
            _permit: permit,
        })
    }

    /// One line a minute: whoever is turned away is in the access log.
    fn tell(&self, pressed: bool) {
        let now = Instant::now();
        if self.told.get().is_none_or(|told| told + QUIET <= now) {
            self.told.set(Some(now));
            if pressed {
                tracing::error!("out of file descriptors: connections are told to come back");
            } else {
                tracing::error!(
                    "as many connections as may be (limits.connections): further ones are told \
                     to come back"
                );
            }
        }
    }

    fn fill_spares(&self) {
        let mut spares = self.spares.borrow_mut();
        while spares.len() < SURPLUS {
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
pub(crate) const SURPLUS: usize = 32;

const QUIET: Duration = Duration::from_secs(60);
