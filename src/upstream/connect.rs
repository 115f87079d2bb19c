//! Opening a connection to a server: its addresses one after the other, within one deadline.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::UpstreamError;
use super::server::{Place, Server};
use super::stream::{Address, Open, UpstreamStream};

/// A stream to the server, and the generation of the addresses that it was opened by. Of several
/// addresses, the one in place `first` is tried first.
///
/// # Errors
/// What the last address failed with.
pub(super) async fn connect(
    server: &Server,
    first: usize,
    within: Duration,
    open: &Rc<Cell<usize>>,
) -> Result<(UpstreamStream, u32), UpstreamError> {
    let name = match &server.state.place {
        Place::Name(name) => name,
        Place::Address(address) => {
            let stream = attempt(server, Address::Tcp(*address), within, open).await?;
            return Ok((stream, 0));
        }
        Place::Socket(path) => {
            let stream = attempt(server, Address::Unix(path), within, open).await?;
            return Ok((stream, 0));
        }
    };
    let deadline = Instant::now() + within;
    let (addresses, generation) = timeout(within, name.known_addresses())
        .await
        .map_err(|_| UpstreamError::ConnectTimeout)?
        .map_err(UpstreamError::Unreachable)?;
    let count = addresses.len();
    let mut last = UpstreamError::ConnectTimeout;
    for number in 0..count {
        let address = addresses[(first + number) % count];
        // What hangs leaves time for the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let others = u32::try_from(count - number).unwrap_or(u32::MAX);
        match attempt(server, Address::Tcp(address), left / others, open).await {
            Ok(stream) => return Ok((stream, generation)),
            Err(error) => last = error,
        }
    }
    name.refresh();
    Err(last)
}

async fn attempt(
    server: &Server,
    address: Address<'_>,
    within: Duration,
    open: &Rc<Cell<usize>>,
) -> Result<UpstreamStream, UpstreamError> {
    let secure = server.secure.as_ref();
    let connecting = UpstreamStream::connect(address, secure, Open::count(open));
    timeout(within, connecting)
        .await
        .map_err(|_| UpstreamError::ConnectTimeout)?
}
