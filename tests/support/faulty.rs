//! A backend that closes connections when and how it likes, restarts, and counts by the request's own id
//! how often it saw each: what tells a request that was sent twice from one that never came.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

/// The request field that holds the id which requests are counted by.
pub const ITEM: &str = "X-Item";

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In order: all that was sent arrives, then the end.
    End,
    /// Whatever is on its way is lost.
    Reset,
    /// Only its own direction, in order: it reads on, and acts upon what it reads.
    Half,
}

/// What a backend does beside answering.
#[derive(Clone, Debug)]
pub struct Habits {
    /// How many of a hundred connections it closes after an answer.
    pub closes: u64,
    /// How many milliseconds after the answer it does, at least and less than.
    pub after: Range<u64>,
    pub how: How,
    /// How it ends a connection, by its number (from 0), before the first request.
    pub at_once: fn(usize) -> Option<How>,
    /// Over TLS, with this.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Habits {
    /// Keeps every connection.
    pub fn none() -> Self {
        Self {
            closes: 0,
            after: 0..1,
            how: How::End,
            at_once: |_| None,
            tls: None,
        }
    }
}

/// What it has seen.
#[derive(Default)]
struct Shared {
    seen: Mutex<HashMap<String, u32>>,
    connections: AtomicUsize,
    /// Those that are open, to be ended by a restart.
    open: Mutex<HashMap<usize, TcpStream>>,
    stopping: AtomicBool,
    /// The state of a generator of random numbers.
    random: AtomicU64,
}

impl Shared {
    /// One of so many numbers, by a fixed sequence.
    fn one_of(&self, count: u64) -> u64 {
        // The increment and the mixing of SplitMix64.
        const INCREMENT: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.random.fetch_add(INCREMENT, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % count.max(1)
    }
}

pub struct FaultyBackend {
    address: SocketAddr,
    habits: Habits,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl FaultyBackend {
    /// Listens on a free port of the loopback interface.
    pub fn start(habits: Habits) -> Self {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let mut backend = Self {
            address,
            habits,
            shared: Arc::default(),
            listening: None,
        };
        backend.serve(listener);
        backend
    }

    /// The address as `upstream.url` takes it.
    pub fn url(&self) -> String {
        let scheme = match self.habits.tls {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often each request was seen, by its id.
    pub fn seen(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.shared.seen.lock().expect("no thread panicked")
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Ends every connection and the listener, as a process that stops does, and listens anew.
    pub fn restart(&mut self) {
        self.stop();
        self.shared.stopping.store(false, Ordering::Release);
        let listener = loop {
            match listen(self.address) {
                Ok(listener) => break listener,
                Err(error) if error.kind() == ErrorKind::AddrInUse => std::thread::yield_now(),
                Err(error) => panic!("the backend cannot listen again: {error}"),
            }
        };
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let (shared, habits) = (Arc::clone(&self.shared), self.habits.clone());
        self.listening = Some(std::thread::spawn(move || {
            accept(&listener, &shared, &habits)
        }));
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes the listener; there may be nobody left to accept it.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            let ended = listening.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the backend panicked"
            );
        }
        let mut open = self.shared.open.lock().expect("no thread panicked");
        for (_, stream) in open.drain() {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for FaultyBackend {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, habits: &Habits) {
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        stream.set_nodelay(true).expect("a socket that can be set");
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        let registered = stream.try_clone().expect("a second handle");
        shared
            .open
            .lock()
            .expect("no thread panicked")
            .insert(number, registered);
        let (shared, habits) = (Arc::clone(shared), habits.clone());
        std::thread::spawn(move || {
            // A gateway that leaves is nothing to tell of.
            let at_once = (habits.at_once)(number);
            let _ = Wire::accept(stream, &habits, at_once)
                .and_then(|wire| answer_requests(wire, &shared, &habits, at_once));
            // The other handle would keep it open.
            let other = shared
                .open
                .lock()
                .expect("no thread panicked")
                .remove(&number);
            drop(other);
        });
    }
}

/// A connection, in the clear or over TLS.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn accept(mut stream: TcpStream, habits: &Habits, at_once: Option<How>) -> io::Result<Self> {
        let Some(config) = &habits.tls else {
            // An acknowledgement of its own would tell the gateway that it reads on.
            SockRef::from(&stream).set_tcp_quickack(at_once.is_none())?;
            let mut wire = Self::Plain(stream);
            wire.end_at_once(at_once)?;
            return Ok(wire);
        };
        let mut session =
            ServerConnection::new(Arc::clone(config)).expect("a configuration that can be used");
        while session.is_handshaking() {
            if session.wants_write() {
                session.write_tls(&mut stream)?;
            } else if session.read_tls(&mut stream)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            session.process_new_packets().map_err(io::Error::other)?;
        }
        // What is said now is sent together with what ends the handshake.
        if at_once.is_some_and(|how| how != How::Reset) {
            session.send_close_notify();
        }
        let mut last = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut last)?;
        }
        stream.write_all(&last)?;
        let mut wire = Self::Tls(Box::new(StreamOwned::new(session, stream)));
        wire.end_at_once(at_once)?;
        Ok(wire)
    }

    fn end_at_once(&mut self, how: Option<How>) -> io::Result<()> {
        match how {
            Some(How::Reset) => {
                self.reset_when_dropped()?;
                Err(ErrorKind::ConnectionReset.into())
            }
            Some(How::End) => {
                self.end()?;
                Err(ErrorKind::UnexpectedEof.into())
            }
            Some(How::Half) => self.end(),
            None => Ok(()),
        }
    }

    fn reset_when_dropped(&self) -> io::Result<()> {
        SockRef::from(self.socket()).set_linger(Some(Duration::ZERO))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Ends its own direction, in order.
    fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Answers one request after the other, until one of the two closes.
fn answer_requests(
    mut wire: Wire,
    shared: &Shared,
    habits: &Habits,
    at_once: Option<How>,
) -> io::Result<()> {
    let (mut buffer, mut block) = (Vec::new(), [0; 16 * 1024]);
    let mut mute = at_once == Some(How::Half);
    loop {
        let head = loop {
            if let Some(end) = end_of_head(&buffer) {
                break end;
            }
            let length = wire.read(&mut block)?;
            if length == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&block[..length]);
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let item = field(&text, ITEM).unwrap_or_default().to_owned();
        *shared
            .seen
            .lock()
            .expect("no thread panicked")
            .entry(item)
            .or_default() += 1;
        let length: usize = field(&text, "Content-Length").map_or(0, |length| {
            length.parse().expect("the gateway's Content-Length")
        });
        while buffer.len() < head + length {
            let length = wire.read(&mut block)?;
            if length == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&block[..length]);
        }
        buffer.drain(..head + length);
        if mute {
            continue;
        }
        wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
        wire.flush()?;
        if shared.one_of(100) < habits.closes {
            let Range { start, end } = habits.after;
            let after = start + shared.one_of(end - start);
            // A request that comes meanwhile is answered.
            if after > 0 && !wait(&mut wire, Duration::from_millis(after), &mut buffer)? {
                continue;
            }
            match habits.how {
                How::End => return wire.end(),
                How::Reset => return wire.reset_when_dropped(),
                How::Half => {
                    wire.end()?;
                    mute = true;
                }
            }
        }
    }
}

/// Whether nothing comes for so long.
fn wait(wire: &mut Wire, time: Duration, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut block = [0; 16 * 1024];
    wire.socket().set_read_timeout(Some(time))?;
    let read = wire.read(&mut block);
    wire.socket().set_read_timeout(None)?;
    match read {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(length) => {
            buffer.extend_from_slice(&block[..length]);
            Ok(false)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Where the head ends.
fn end_of_head(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n");
    end.map(|end| end + 4)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
