//! A scriptable upstream on a TCP port, with or without TLS, or unix socket, on a thread of its own. It records what
//! arrives, byte for byte, and misbehaves on demand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{HandshakeKind, ServerConfig};
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::ask;
use super::wire::{Broken, Framing, Head, Reader};
use super::within;

/// What the upstream does with one request.
#[derive(Clone, Debug)]
pub enum Script {
    /// Reads the request, then answers with its length and SHA-256 as JSON.
    Echo,
    /// Reads the request, then writes these bytes.
    Answer(Vec<u8>),
    /// Writes these bytes as soon as the head is there, and reads the body afterwards.
    Early(Vec<u8>),
    /// Writes the first of these as soon as the head is there, the other when it has read the body.
    EarlyInParts(Vec<u8>, Vec<u8>),
    /// Writes these bytes as soon as the head is there, then closes; the body is never read.
    EarlyThenClose(Vec<u8>),
    /// Reads the request, then writes these bytes and closes.
    AnswerThenClose(Vec<u8>),
    /// Reads the request, then writes these bytes one at a time.
    Dribble(Vec<u8>),
    /// Reads the request, then answers with so many bytes of the pattern.
    Stream { length: u64, sized: bool },
    /// Writes these bytes as soon as there is a connection, and never reads.
    Unread(Vec<u8>),
    /// As `Echo`, and writes these bytes when it is released, though nobody has asked.
    Unasked(Vec<u8>),
    /// As `Echo`, but closes at this stage; over TLS in order.
    Close(Stage),
    /// As `Echo`, but resets the connection at this stage.
    Reset(Stage),
    /// As `Echo`, but waits at this stage until released.
    Stall(Stage),
}

/// The stages of an exchange, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Accept,
    AfterHead,
    MidBody,
    BeforeResponse,
    MidResponseHead,
    MidResponseBody,
    /// The answer is written whole and the connection could be used again.
    Idle,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    ByGateway,
    ByUpstream,
}

/// A request as it arrived.
#[derive(Clone, Default)]
pub struct Seen {
    pub connection: usize,
    pub head: Head,
    pub framing: Framing,
    /// The decoded body, up to a bound.
    pub body: Vec<u8>,
    pub length: u64,
    pub sha256: String,
    pub trailers: Vec<String>,
    /// `None` while it arrives, then whether it came whole.
    pub whole: Option<bool>,
}

#[derive(Default)]
struct Link {
    /// Over TLS, whether an earlier session was resumed.
    resumed: Option<bool>,
    bytes: Vec<u8>,
    total: u64,
    closed: Option<Closed>,
    /// Whether the gateway ended it in order, over TLS with `close_notify`, after whole requests.
    ended: bool,
}

#[derive(Default)]
struct State {
    links: Vec<Link>,
    requests: Vec<Seen>,
    queue: VecDeque<Script>,
    usual: Option<Script>,
    released: usize,
    stalls: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no upstream task panicked")
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    async fn until<T>(&self, mut ready: impl FnMut(&State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(value) = ready(&self.lock()) {
                return value;
            }
            changed.changed().await.expect("the upstream lives");
        }
    }
}

/// How much of a connection and of a body is kept.
const KEPT: usize = 1024 * 1024;

pub struct Upstream {
    url: String,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener),
}

impl Upstream {
    /// Listens on a free TCP port of the loopback interface.
    pub fn tcp() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Listens where one listened that is gone.
    pub fn revived(address: SocketAddr) -> Self {
        Self::at(address)
    }

    fn at(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("an address to listen on");
        let address = listener.local_addr().expect("a bound address");
        listener
            .set_nonblocking(true)
            .expect("a socket that does not block");
        Self::start(format!("http://{address}"), move || {
            Listener::Tcp(TcpListener::from_std(listener).expect("a listener for the runtime"))
        })
    }

    /// The same over TLS.
    pub fn tls(config: Arc<ServerConfig>) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        listener
            .set_nonblocking(true)
            .expect("a socket that does not block");
        Self::start(format!("https://{address}"), move || {
            let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
            Listener::Tls(listener, TlsAcceptor::from(config))
        })
    }

    /// Listens on a unix socket in this directory.
    pub fn unix(directory: &Path) -> Self {
        let path: PathBuf = directory.join("upstream.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a unix socket");
        listener
            .set_nonblocking(true)
            .expect("a socket that does not block");
        Self::start(format!("unix:{}", path.display()), move || {
            Listener::Unix(UnixListener::from_std(listener).expect("a listener for the runtime"))
        })
    }

    fn start(url: String, listener: impl FnOnce() -> Listener + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let stop = watch::Sender::new(false);
        let (serving, mut stopped) = (Arc::clone(&shared), stop.subscribe());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for the upstream");
            runtime.block_on(async move {
                let listener = listener();
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        });
        Self {
            url,
            shared,
            stop,
            thread: Some(thread),
        }
    }

    /// The address as `upstream.url` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens, if that is a TCP port.
    pub fn address(&self) -> SocketAddr {
        let address = self.url.strip_prefix("http://").expect("a TCP port");
        address.parse().expect("an address")
    }

    /// An address where nobody listens.
    pub fn nobody() -> SocketAddr {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.local_addr().expect("a bound address")
    }

    /// What to do with the next request, and with those after it as further calls say.
    pub fn next(&self, script: Script) {
        self.shared.change(|state| state.queue.push_back(script));
    }

    /// What to do with every request that no `next` speaks for.
    pub fn always(&self, script: Script) {
        self.shared.change(|state| state.usual = Some(script));
    }

    /// Lets one stalled exchange go on, now or when it comes to its stage.
    pub fn release(&self) {
        self.shared.change(|state| state.released += 1);
    }

    /// Waits until so many requests have shown their head; returns the last of them.
    pub async fn seen(&self, count: usize) -> Seen {
        let ready = |state: &State| state.requests.get(count - 1).cloned();
        within("a request at the upstream", self.shared.until(ready)).await
    }

    /// Waits until the request with this number (from 1) has come whole.
    pub async fn whole(&self, number: usize) -> Seen {
        let seen = self.ended(number).await;
        assert_eq!(
            seen.whole,
            Some(true),
            "request {number} broke off at the upstream"
        );
        seen
    }

    /// Waits until the request with this number (from 1) is at its end, whole or broken.
    pub async fn ended(&self, number: usize) -> Seen {
        let ready = |state: &State| {
            state
                .requests
                .get(number - 1)
                .filter(|seen| seen.whole.is_some())
                .cloned()
        };
        within(
            "the end of a request at the upstream",
            self.shared.until(ready),
        )
        .await
    }

    /// Waits until the connection with this number (from 1) is closed; by whom.
    pub async fn closed(&self, number: usize) -> Closed {
        let ready = |state: &State| state.links.get(number - 1).and_then(|link| link.closed);
        within(
            "the end of a connection to the upstream",
            self.shared.until(ready),
        )
        .await
    }

    /// Waits until so many connections, whichever, are closed.
    pub async fn closed_in_all(&self, count: usize) {
        let ready = |state: &State| {
            let closed = state
                .links
                .iter()
                .filter(|link| link.closed.is_some())
                .count();
            (closed >= count).then_some(())
        };
        within(
            "the end of connections to the upstream",
            self.shared.until(ready),
        )
        .await;
    }

    /// Waits until a `Stall` has come to its stage, the n-th in all.
    pub async fn stalled(&self, count: usize) {
        let ready = |state: &State| (state.stalls >= count).then_some(());
        within("a stalled exchange", self.shared.until(ready)).await;
    }

    /// Ends the upstream with all its connections.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// How many requests have shown their head so far.
    pub fn requests(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().links.len()
    }

    /// Whether a connection (from 1) resumed an earlier TLS session; `None` before the handshake is over.
    pub fn resumed(&self, number: usize) -> Option<bool> {
        self.shared.lock().links[number - 1].resumed
    }

    /// Whether the gateway ended a connection (from 1) in order, over TLS with `close_notify`, and not
    /// within a request.
    pub fn was_ended(&self, number: usize) -> bool {
        self.shared.lock().links[number - 1].ended
    }

    /// How often a request with this value of the field was seen.
    pub fn count(&self, field: &str, value: &str) -> usize {
        let state = self.shared.lock();
        let requests = state.requests.iter();
        requests
            .filter(|seen| seen.head.field(field) == Some(value))
            .count()
    }

    /// The raw bytes of a connection (from 1), up to a bound.
    pub fn bytes(&self, number: usize) -> Vec<u8> {
        self.shared.lock().links[number - 1].bytes.clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the upstream's thread panicked"
            );
        }
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut exchanges = tokio::task::JoinSet::new();
    loop {
        let number = |shared: &Shared| {
            shared.change(|state| {
                state.links.push(Link::default());
                state.links.len() - 1
            })
        };
        match &listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a socket that can be set");
                let link = number(&shared);
                let lingering = Lingering::of(&stream);
                exchanges.spawn(serve(stream, link, lingering, Arc::clone(&shared)));
            }
            Listener::Tls(listener, acceptor) => {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a socket that can be set");
                let link = number(&shared);
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                exchanges.spawn(async move {
                    let lingering = Lingering::of(&stream);
                    let Ok(stream) = acceptor.accept(stream).await else {
                        shared.change(|state| state.links[link].closed = Some(Closed::ByGateway));
                        return;
                    };
                    let kind = stream.get_ref().1.handshake_kind();
                    let resumed = Some(kind == Some(HandshakeKind::Resumed));
                    shared.change(|state| state.links[link].resumed = resumed);
                    serve(stream, link, lingering.over_tls(), shared).await;
                });
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await.expect("a connection");
                let link = number(&shared);
                exchanges.spawn(serve(
                    stream,
                    link,
                    Lingering::default(),
                    Arc::clone(&shared),
                ));
            }
        }
    }
}

/// How a connection is left.
#[derive(Default)]
struct Lingering {
    /// The socket once more, to be set before it is closed.
    socket: Option<Socket>,
    is_tls: bool,
}

impl Lingering {
    fn of(stream: &TcpStream) -> Self {
        let again = stream
            .as_fd()
            .try_clone_to_owned()
            .expect("a second handle");
        Self {
            socket: Some(again.into()),
            is_tls: false,
        }
    }

    fn over_tls(self) -> Self {
        Self {
            is_tls: true,
            ..self
        }
    }

    fn reset(&self) {
        let socket = self.socket.as_ref().expect("a reset is of TCP");
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a socket that can be set");
    }
}

async fn serve<S: AsyncRead + AsyncWrite>(
    stream: S,
    link: usize,
    lingering: Lingering,
    shared: Arc<Shared>,
) {
    let (read, write) = tokio::io::split(stream);
    let tap = Arc::clone(&shared);
    let reader = Reader::new(Box::pin(read), move |bytes| {
        tap.change(|state| {
            let link = &mut state.links[link];
            link.total += bytes.len() as u64;
            let room = KEPT.saturating_sub(link.bytes.len()).min(bytes.len());
            link.bytes.extend_from_slice(&bytes[..room]);
        });
    });
    let mut exchange = Exchange {
        reader,
        writer: Box::pin(write),
        link,
        shared: Arc::clone(&shared),
    };
    let served = exchange.serve().await;
    let ended = served.is_ok();
    let closed = match served {
        Err(ClosedBy::Script { goodbye }) => {
            if goodbye && lingering.is_tls {
                let _ = exchange.writer.shutdown().await;
            }
            Closed::ByUpstream
        }
        Err(ClosedBy::Reset) => {
            lingering.reset();
            Closed::ByUpstream
        }
        Ok(()) | Err(ClosedBy::Peer) => Closed::ByGateway,
    };
    drop((exchange, lingering));
    shared.change(|state| {
        state.links[link].closed = Some(closed);
        state.links[link].ended = ended;
    });
}

enum ClosedBy {
    Peer,
    /// In order, or (over TLS) without a word.
    Script {
        goodbye: bool,
    },
    Reset,
}

struct Exchange<R, W> {
    reader: Reader<R>,
    writer: W,
    link: usize,
    shared: Arc<Shared>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Exchange<R, W> {
    async fn serve(&mut self) -> Result<(), ClosedBy> {
        let at_accept = |script: &Script| {
            matches!(
                script,
                Script::Close(Stage::Accept)
                    | Script::Reset(Stage::Accept)
                    | Script::Stall(Stage::Accept)
                    | Script::Unread(_)
            )
        };
        let first = self.shared.change(|state| {
            state
                .queue
                .front()
                .is_some_and(at_accept)
                .then(|| state.queue.pop_front())
                .flatten()
        });
        if let Some(script) = first {
            if let Script::Unread(bytes) = &script {
                self.write(bytes).await?;
                // Of no use to anybody: what counts is what the gateway does meanwhile.
                std::future::pending::<()>().await;
            }
            self.gate(&script, Stage::Accept).await?;
        }
        loop {
            let head = match self.reader.head().await {
                Ok(head) => head,
                Err(Broken::Ended) => return Ok(()),
                Err(_) => return Err(ClosedBy::Peer),
            };
            let framing = match head.stated_framing() {
                Ok(framing) => framing.unwrap_or(Framing::None),
                Err(broken) => panic!("the gateway wrote a request that is {broken}"),
            };
            let (number, script) = self.shared.change(|state| {
                state.requests.push(Seen {
                    connection: self.link + 1,
                    head,
                    framing,
                    ..Seen::default()
                });
                let usual = state.usual.clone().unwrap_or(Script::Echo);
                (
                    state.requests.len() - 1,
                    state.queue.pop_front().unwrap_or(usual),
                )
            });
            let played = self.play(number, framing, &script).await;
            if played.is_err() {
                self.shared.change(|state| {
                    state.requests[number].whole.get_or_insert(false);
                });
                return played;
            }
        }
    }

    async fn play(
        &mut self,
        number: usize,
        framing: Framing,
        script: &Script,
    ) -> Result<(), ClosedBy> {
        self.gate(script, Stage::AfterHead).await?;
        if let Script::Early(answer)
        | Script::EarlyInParts(answer, _)
        | Script::EarlyThenClose(answer) = script
        {
            self.write(answer).await?;
            if matches!(script, Script::EarlyThenClose(_)) {
                return Err(ClosedBy::Script { goodbye: false });
            }
        }
        if framing != Framing::None && framing != Framing::Length(0) {
            self.reader.readable().await.map_err(|_| ClosedBy::Peer)?;
        }
        self.gate(script, Stage::MidBody).await?;
        self.read_body(number, framing).await?;
        self.gate(script, Stage::BeforeResponse).await?;
        match script {
            Script::Early(_) | Script::EarlyThenClose(_) | Script::Unread(_) => {}
            Script::Answer(answer) | Script::EarlyInParts(_, answer) => self.write(answer).await?,
            Script::AnswerThenClose(answer) => {
                self.write(answer).await?;
                return Err(ClosedBy::Script { goodbye: false });
            }
            Script::Dribble(answer) => {
                for byte in answer {
                    self.write(&[*byte]).await?;
                    tokio::task::yield_now().await;
                }
            }
            Script::Stream { length, sized } => self.stream(*length, *sized).await?,
            Script::Echo | Script::Close(_) | Script::Reset(_) | Script::Stall(_) => {
                self.echo(number, script).await?
            }
            Script::Unasked(bytes) => {
                self.echo(number, script).await?;
                self.stall(Stage::Idle).await?;
                self.write(bytes).await?;
            }
        }
        self.gate(script, Stage::Idle).await
    }

    async fn read_body(&mut self, number: usize, framing: Framing) -> Result<(), ClosedBy> {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let (mut length, mut kept) = (0, Vec::new());
        let read = self
            .reader
            .body(framing, &mut |piece| {
                digest.update(piece);
                length += piece.len() as u64;
                kept.extend_from_slice(&piece[..KEPT.saturating_sub(kept.len()).min(piece.len())]);
            })
            .await;
        let broken = read.is_err();
        self.shared.change(|state| {
            let seen = &mut state.requests[number];
            seen.length = length;
            seen.sha256 = super::hex(digest.finish().as_ref());
            seen.body = kept;
            seen.trailers = read.unwrap_or_default();
            seen.whole = Some(!broken);
        });
        if broken { Err(ClosedBy::Peer) } else { Ok(()) }
    }

    async fn echo(&mut self, number: usize, script: &Script) -> Result<(), ClosedBy> {
        let (length, sha256) = {
            let state = self.shared.lock();
            (
                state.requests[number].length,
                state.requests[number].sha256.clone(),
            )
        };
        let answer = json(200, &echo_body(length, &sha256));
        let head = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap_or_default()
            + 4;
        let (in_head, in_body) = (head / 2, head + (answer.len() - head) / 2);
        self.write(&answer[..in_head]).await?;
        self.gate(script, Stage::MidResponseHead).await?;
        self.write(&answer[in_head..in_body]).await?;
        self.gate(script, Stage::MidResponseBody).await?;
        self.write(&answer[in_body..]).await
    }

    async fn stream(&mut self, length: u64, sized: bool) -> Result<(), ClosedBy> {
        let framing = if sized {
            format!("Content-Length: {length}")
        } else {
            "Transfer-Encoding: chunked".to_owned()
        };
        self.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes())
            .await?;
        let block = ask::pattern();
        let mut left = length;
        while left > 0 {
            let piece = &block[..left.min(block.len() as u64) as usize];
            if sized {
                self.write(piece).await?;
            } else {
                self.write(&ask::chunk(piece)).await?;
            }
            left -= piece.len() as u64;
        }
        if sized {
            Ok(())
        } else {
            self.write(b"0\r\n\r\n").await
        }
    }

    /// Closes or waits, where the script says so.
    async fn gate(&mut self, script: &Script, stage: Stage) -> Result<(), ClosedBy> {
        match script {
            Script::Close(at) if *at == stage => Err(ClosedBy::Script { goodbye: true }),
            Script::Reset(at) if *at == stage => Err(ClosedBy::Reset),
            Script::Stall(at) if *at == stage => self.stall(stage).await,
            Script::Close(_)
            | Script::Reset(_)
            | Script::Stall(_)
            | Script::Echo
            | Script::Answer(_)
            | Script::Early(_)
            | Script::EarlyInParts(..)
            | Script::EarlyThenClose(_)
            | Script::AnswerThenClose(_)
            | Script::Dribble(_)
            | Script::Unread(_)
            | Script::Unasked(_)
            | Script::Stream { .. } => Ok(()),
        }
    }

    /// Waits for a release. Once the request has been read, the peer's leaving ends the wait too.
    async fn stall(&mut self, stage: Stage) -> Result<(), ClosedBy> {
        let turn = self.shared.change(|state| {
            state.stalls += 1;
            state.stalls
        });
        let shared = Arc::clone(&self.shared);
        let released = shared.until(|state| (state.released >= turn).then_some(()));
        let watching = !matches!(stage, Stage::Accept | Stage::AfterHead | Stage::MidBody);
        tokio::select! {
            () = released => Ok(()),
            left = self.reader.readable(), if watching => match left {
                Ok(()) => panic!("the gateway wrote a second request before it had an answer"),
                Err(_) => Err(ClosedBy::Peer),
            },
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClosedBy> {
        self.writer
            .write_all(bytes)
            .await
            .map_err(|_| ClosedBy::Peer)?;
        self.writer.flush().await.map_err(|_| ClosedBy::Peer)
    }
}

/// The body of an `Echo` answer, in the manner of the real backend: its own `code`.
pub fn echo_body(length: u64, sha256: &str) -> String {
    format!(
        r#"{{"success":true,"messages":"Success","length":{length},"sha256":"{sha256}","code":201}}"#
    )
}

/// A whole JSON response with this status.
pub fn json(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Some Reason\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
