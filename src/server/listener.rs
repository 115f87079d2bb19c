//! Listening sockets, and the acceptor that hands each connection to the worker with the fewest.
//!
//! One acceptor for all listeners: clients are few and stay long, so how evenly they are spread
//! matters more than how fast they are accepted.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol as IpProtocol, Socket, Type};
use tokio::time::sleep;

use super::connection::Service;
use super::slots::ConnectionSlots;
use super::worker::{Accepted, Worker};

/// Binds a listening socket.
///
/// # Errors
/// When the address is in use or not the machine's.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(IpProtocol::TCP),
    )?;
    // A restarted gateway must not wait for the connections of the one before to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections for ever. While as many are open as allowed, and as many more as the reserve
/// has slots for, further ones wait in the kernel's queue.
pub(super) async fn accept(
    listener: tokio::net::TcpListener,
    service: Rc<RefCell<Service>>,
    slots: Rc<ConnectionSlots>,
    workers: Rc<Vec<Worker>>,
) {
    let mut pause = Duration::ZERO;
    loop {
        let accepted = slots.accept(&listener).await.and_then(|accepted| {
            let Some((socket, peer, slot)) = accepted else {
                return Ok(None);
            };
            socket.set_nodelay(true)?;
            Ok(Some(Accepted {
                socket: socket.into_std()?,
                peer,
                service: service.borrow().clone(),
                slot,
            }))
        });
        match accepted {
            Ok(accepted) => {
                pause = Duration::ZERO;
                let fewest = workers
                    .iter()
                    .min_by_key(|worker| worker.load().connections());
                if let (Some(worker), Some(accepted)) = (fewest, accepted) {
                    worker.take(accepted);
                }
            }
            // The client was gone before it was accepted.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: trying again at once would only burn time.
                pause = (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                tracing::error!(%error, ?pause, "connections cannot be accepted");
                sleep(pause).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}

/// Connections that the kernel completes before they are accepted; it cuts it to its own maximum.
pub(crate) const BACKLOG: i32 = 4096;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
