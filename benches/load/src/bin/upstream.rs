//! The upstream behind every peer: one thread, a fixed 120-byte JSON reply to any request,
//! connections kept alive. Listens on TCP, on a Unix socket, and on TLS for the figure
//! without any proxy.
//!
//! `upstream [--tcp ADDRESS]... [--unix PATH] [--tls ADDRESS --certificate FILE --key FILE]`

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use syncgate_load::arguments::Arguments;
use syncgate_load::reply::header;
use syncgate_load::tls;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::from_env()?;
    let tcp = arguments.all("tcp");
    let unix: Option<String> = arguments.optional("unix")?;
    let encrypted: Option<SocketAddr> = arguments.optional("tls")?;
    let certificate: Option<String> = arguments.optional("certificate")?;
    let key: Option<String> = arguments.optional("key")?;
    arguments.finish()?;

    let mut poll = Poll::new()?;
    let mut listeners = Vec::new();
    for address in tcp {
        listeners.push(Listener::Tcp(TcpListener::bind(address.parse()?)?));
    }
    if let Some(path) = unix {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => listeners.push(Listener::Unix(UnixListener::bind(path)?)),
        }
    }
    if let Some(address) = encrypted {
        let certificate = certificate.ok_or("--tls wants --certificate")?;
        let config = server_config(&certificate, &key.ok_or("--tls wants --key")?)?;
        listeners.push(Listener::Tls(TcpListener::bind(address)?, config));
    }
    for (index, listener) in listeners.iter_mut().enumerate() {
        let source: &mut dyn mio::event::Source = match listener {
            Listener::Tcp(listener) | Listener::Tls(listener, _) => listener,
            Listener::Unix(listener) => listener,
        };
        poll.registry()
            .register(source, Token(index), Interest::READABLE)?;
    }
    println!("listening");

    let reply = reply();
    let mut buffer = vec![0; 256 * 1024];
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let mut next = listeners.len();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in events.iter() {
            if let Some(listener) = listeners.get(event.token().0) {
                while let Some(mut stream) = listener.accept()? {
                    let token = Token(next);
                    next += 1;
                    poll.registry().register(stream.source(), token, BOTH)?;
                    connections.insert(
                        token,
                        Connection {
                            stream,
                            framing: Framing::default(),
                        },
                    );
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&event.token()) else {
                continue;
            };
            // A peer that resets its connection is that peer's affair.
            if !connection.serve(&mut buffer, &reply).unwrap_or(false) {
                connections.remove(&event.token());
            }
        }
    }
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

fn reply() -> Vec<u8> {
    let mut body = String::from(r#"{"success":true,"code":200,"records":[],"pad":""#);
    while body.len() < 118 {
        body.push('.');
    }
    body.push_str("\"}");
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn server_config(certificate: &str, key: &str) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    Tls(TcpListener, Arc<ServerConfig>),
}

impl Listener {
    fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match self {
            Self::Tcp(listener) => listener.accept().map(|(socket, _)| Stream::Tcp(socket)),
            Self::Unix(listener) => listener.accept().map(|(socket, _)| Stream::Unix(socket)),
            Self::Tls(listener, config) => listener.accept().and_then(|(socket, _)| {
                let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Ok(Stream::Tls(socket, Box::new(tls)))
            }),
        };
        match accepted {
            Ok(Stream::Tcp(socket)) => {
                socket.set_nodelay(true)?;
                Ok(Some(Stream::Tcp(socket)))
            }
            Ok(Stream::Tls(socket, tls)) => {
                socket.set_nodelay(true)?;
                Ok(Some(Stream::Tls(socket, tls)))
            }
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TcpStream, Box<ServerConnection>),
}

impl Stream {
    fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Tcp(socket) | Self::Tls(socket, _) => socket,
            Self::Unix(socket) => socket,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Unix(socket) => socket.read(buffer),
            Self::Tls(socket, tls) => loop {
                match tls.reader().read(buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => return result,
                }
                if tls.read_tls(socket)? == 0 {
                    return Ok(0);
                }
                tls.process_new_packets().map_err(io::Error::other)?;
                while tls.wants_write() {
                    tls.write_tls(socket)?;
                }
            },
        }
    }

    /// Replies are tiny and awaited, so they always fit the socket's buffer.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.write_all(bytes),
            Self::Unix(socket) => socket.write_all(bytes),
            Self::Tls(socket, tls) => {
                tls.writer().write_all(bytes)?;
                while tls.wants_write() {
                    tls.write_tls(socket)?;
                }
                Ok(())
            }
        }
    }
}

struct Connection {
    stream: Stream,
    framing: Framing,
}

impl Connection {
    /// Reads what is there and answers each whole request. `false` when the peer is gone.
    fn serve(&mut self, buffer: &mut [u8], reply: &[u8]) -> io::Result<bool> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            for _ in 0..self.framing.push(&buffer[..count])? {
                self.stream.write(reply)?;
            }
            // A short read has emptied the socket: the next byte makes a new event.
            if count < buffer.len() && !matches!(self.stream, Stream::Tls(..)) {
                return Ok(true);
            }
        }
    }
}

/// Finds the ends of requests in a stream of bytes.
#[derive(Default)]
struct Framing {
    state: State,
    /// The unfinished line or head.
    pending: Vec<u8>,
}

#[derive(Default, Clone, Copy)]
enum State {
    #[default]
    Head,
    Body(usize),
    ChunkSize,
    ChunkBody(usize),
    Trailer,
}

impl Framing {
    /// Takes bytes; how many requests ended in them.
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let mut ended = 0;
        while !bytes.is_empty() {
            self.state = match self.state {
                State::Head => {
                    let Some(head) = self.until(&mut bytes, b"\r\n\r\n") else {
                        break;
                    };
                    match (
                        header(&head, "transfer-encoding"),
                        header(&head, "content-length"),
                    ) {
                        (Some(_), _) => State::ChunkSize,
                        (None, Some(length)) => match number(length, 10)? {
                            0 => self.end(&mut ended),
                            length => State::Body(length),
                        },
                        (None, None) => self.end(&mut ended),
                    }
                }
                State::Body(left) => match skip(&mut bytes, left) {
                    0 => self.end(&mut ended),
                    left => State::Body(left),
                },
                State::ChunkSize => {
                    let Some(line) = self.until(&mut bytes, b"\r\n") else {
                        break;
                    };
                    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                    let digits = str::from_utf8(digits).map_err(io::Error::other)?;
                    match number(digits.trim(), 16)? {
                        0 => State::Trailer,
                        length => State::ChunkBody(length + 2),
                    }
                }
                State::ChunkBody(left) => match skip(&mut bytes, left) {
                    0 => State::ChunkSize,
                    left => State::ChunkBody(left),
                },
                State::Trailer => {
                    let Some(line) = self.until(&mut bytes, b"\r\n") else {
                        break;
                    };
                    match line.len() {
                        2 => self.end(&mut ended),
                        _ => State::Trailer,
                    }
                }
            };
        }
        Ok(ended)
    }

    fn end(&mut self, ended: &mut usize) -> State {
        *ended += 1;
        State::Head
    }

    /// Takes bytes up to and including `mark`; keeps them when the mark is not there yet.
    fn until<'a>(&mut self, bytes: &mut &'a [u8], mark: &[u8]) -> Option<Cow<'a, [u8]>> {
        if self.pending.is_empty()
            && let Some(at) = bytes.windows(mark.len()).position(|window| window == mark)
        {
            let (found, rest) = bytes.split_at(at + mark.len());
            *bytes = rest;
            return Some(Cow::Borrowed(found));
        }
        let from = self.pending.len().saturating_sub(mark.len() - 1);
        let before = self.pending.len();
        self.pending.extend_from_slice(bytes);
        let found = self.pending[from..]
            .windows(mark.len())
            .position(|window| window == mark);
        let Some(at) = found else {
            *bytes = &[];
            return None;
        };
        let end = from + at + mark.len();
        *bytes = &bytes[end - before..];
        self.pending.truncate(end);
        Some(Cow::Owned(std::mem::take(&mut self.pending)))
    }
}

/// Skips up to `left` bytes; how many are still missing.
fn skip(bytes: &mut &[u8], left: usize) -> usize {
    let count = left.min(bytes.len());
    *bytes = &bytes[count..];
    left - count
}

fn number(digits: &str, radix: u32) -> io::Result<usize> {
    usize::from_str_radix(digits, radix).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
        GET / HTTP/1.1\r\n\r\n\
        POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\n\
        POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn requests_end_at_the_same_places_however_they_are_cut() {
        for cut in 1..REQUESTS.len() {
            let mut framing = Framing::default();
            let pieces = REQUESTS.chunks(cut);
            let ended: usize = pieces
                .map(|piece| framing.push(piece).expect("framing"))
                .sum();
            assert_eq!(ended, 4, "pieces of {cut} bytes");
            assert!(framing.pending.is_empty());
        }
    }

    #[test]
    fn the_reply_is_120_bytes() {
        let reply = reply();
        let head = reply
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        assert_eq!(reply.len() - head - 4, 120);
    }
}
