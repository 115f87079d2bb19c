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
}

/// What a backend does beside answering.
#[derive(Clone, Debug)]
pub struct Habits {
    /// How many of a hundred connections it closes after an answer.
    pub closes: u64,
    /// How many milliseconds after the answer it does, at least and less than.
    pub after: Range<u64>,
    pub how: How,
}

impl Habits {
    /// Keeps every connection.
    pub fn none() -> Self {
        Self {
            closes: 0,
            after: 0..1,
            how: How::End,
        }
    }
}

/// What it has seen.
#[derive(Default)]
struct Shared {
    seen: Mutex<HashMap<String, u32>>,
    connections: AtomicUsize,
    /// Those that are open, to be ended by a restart.
    open: Mutex<HashMap<u64, TcpStream>>,
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
        format!("http://{}", self.address)
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
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) as u64;
        let registered = stream.try_clone().expect("a second handle");
        shared
            .open
            .lock()
            .expect("no thread panicked")
            .insert(number, registered);
        let (shared, habits) = (Arc::clone(shared), habits.clone());
        std::thread::spawn(move || {
            // A gateway that leaves is nothing to tell of.
            let _ = answer_requests(&stream, &shared, &habits);
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

/// Answers one request after the other, until one of the two closes.
fn answer_requests(mut stream: &TcpStream, shared: &Shared, habits: &Habits) -> io::Result<()> {
    let (mut buffer, mut block) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let head = loop {
            if let Some(end) = end_of_head(&buffer) {
                break end;
            }
            let length = stream.read(&mut block)?;
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
            let length = stream.read(&mut block)?;
            if length == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&block[..length]);
        }
        buffer.drain(..head + length);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
        if shared.one_of(100) < habits.closes {
            let Range { start, end } = habits.after;
            let after = start + shared.one_of(end - start);
            // A request that comes meanwhile is answered.
            if after > 0 && !wait(stream, Duration::from_millis(after), &mut buffer)? {
                continue;
            }
            if habits.how == How::Reset {
                SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
            }
            return Ok(());
        }
    }
}

/// Whether nothing comes for so long.
fn wait(mut stream: &TcpStream, time: Duration, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut block = [0; 16 * 1024];
    stream.set_read_timeout(Some(time))?;
    let read = stream.read(&mut block);
    stream.set_read_timeout(None)?;
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
