//! Reads the PROXY header of a connection, and not one byte more.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::origin::proxy_header::{self, MAX_LENGTH, ProxyHeaderError};

/// Why a connection cannot be served whose listener requires a PROXY header.
#[derive(Debug, Error)]
pub(super) enum Unproxied {
    #[error(transparent)]
    Header(#[from] ProxyHeaderError),
    #[error("the connection broke within its PROXY header")]
    Broken(#[from] io::Error),
}

/// The client that the header names; `None` for a connection of the proxy's own. Bytes are looked
/// at before they are taken, so that what follows the header stays with the kernel.
pub(super) async fn client_of(socket: &mut TcpStream) -> Result<Option<SocketAddr>, Unproxied> {
    let mut header = Vec::new();
    loop {
        let taken = header.len();
        header.resize(MAX_LENGTH, 0);
        let seen = socket.peek(&mut header[taken..]).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        header.truncate(taken + seen);
        let whole = proxy_header::parse(&header)?;
        let end = whole.map_or(header.len(), |whole| whole.length);
        socket.read_exact(&mut header[taken..end]).await?;
        if let Some(whole) = whole {
            return Ok(whole.client);
        }
    }
}
