//! One nonblocking HTTP/1.1 connection over TLS, one request at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup};

use crate::reply::ReplyReader;

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    tls: ClientConnection,
    reply: ReplyReader,
}

impl Connection {
    /// Starts to connect and registers for events under `token`.
    pub fn open(
        registry: &Registry,
        token: Token,
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            socket,
            tls,
            reply: ReplyReader::default(),
        })
    }

    /// Queues a request's bytes; `advance` and `push` move them.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(request)
    }

    /// Moves bytes until the socket would block, or returns a whole reply's status.
    /// After a reply nothing more is read until the next call.
    pub fn advance(&mut self) -> io::Result<Option<u16>> {
        self.push()?;
        let mut plain = [0; 16 * 1024];
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if is_not_ready(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            self.push()?;
            loop {
                match self.tls.reader().read(&mut plain) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        if let Some(status) = self.reply.push(&plain[..count])? {
                            return Ok(Some(status));
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Whether the last reply says that the connection takes no other request.
    pub fn closes(&self) -> bool {
        self.reply.closes()
    }

    /// Says goodbye; dropping closes the socket.
    pub fn close(mut self) {
        self.tls.send_close_notify();
        // The peer may be gone already; there is nobody left to tell.
        let _ = self.push();
    }

    /// Whether the handshake resumed an earlier session.
    pub fn resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the keys were exchanged with X25519MLKEM768.
    pub fn post_quantum(&self) -> bool {
        let group = self.tls.negotiated_key_exchange_group();
        group.is_some_and(|group| group.name() == NamedGroup::X25519MLKEM768)
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if is_not_ready(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Before the connection stands, the socket says that it is not connected.
fn is_not_ready(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

/// A POST of `length` bytes of JSON (or none) with a token, ready to send.
pub fn request(path: &str, token: &str, length: usize) -> Vec<u8> {
    const OPEN: &str = r#"{"form":"bench","pad":""#;
    let mut body = Vec::new();
    if length > 0 {
        body.extend_from_slice(OPEN.as_bytes());
        body.resize(length.saturating_sub(2).max(OPEN.len()), b'x');
        body.extend_from_slice(b"\"}");
    }
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.append(&mut body);
    request
}
