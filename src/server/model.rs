//! The life of a connection, explored: whatever order early answers, pieces of bodies, pauses and
//! goodbyes come in, the backend sees exactly the bodies that belong to the heads, and the client
//! exactly one answer to each request.
//!
//! The real connection code runs over real sockets, on one thread with the client and the backend,
//! by a clock that stands still but when a step says so.

mod windows;

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::advance;

use super::drain::Drain;
use super::http2::scheduler::{StreamExecutor, StreamScheduler};
use super::stream::{ClientStream, Wire};
use super::{http1, http2};
use crate::app::Components;
use crate::audit::PreparedTrail;
use crate::clock::Clock;
use crate::config::Config;
use crate::connection::{ClientConnection, Http1, Http2, SlotKind, State, Transport};
use crate::gateway::WorkerGateway;
use crate::gateway::record::AccessLog;
use crate::metrics::Load;
use crate::password::Password;
use crate::session::{Login, Session};
use crate::store::Prepared;
use crate::tls::development;
use crate::token::IssuedToken;
use crate::upstream::Resolver;

/// What happens next, where it can.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client sends the head of a request, in chunks or with a length, and perhaps a part of its
    /// body at once.
    Head { chunked: bool, with_piece: bool },
    /// It sends a piece of the body.
    Piece,
    /// It sends the rest of the body.
    End,
    /// It sends an empty line between two requests, where HTTP/1.1 allows that.
    EmptyLine,
    /// The backend answers the oldest request that it has not answered, whether it has all of it or
    /// not.
    Answer { chunked: bool },
    /// The backend ends its connection.
    BackendGone,
    /// Nothing happens for so many seconds.
    Pause(u64),
    /// The client ends its side of the connection.
    Goodbye,
    /// The client is gone.
    ClientGone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), any::<bool>())
            .prop_map(|(chunked, with_piece)| Step::Head { chunked, with_piece }),
        4 => Just(Step::Piece),
        4 => Just(Step::End),
        2 => Just(Step::EmptyLine),
        5 => any::<bool>().prop_map(|chunked| Step::Answer { chunked }),
        1 => Just(Step::BackendGone),
        // Over the time after which a connection rests, that of a head, and that of a rest.
        4 => prop_oneof![Just(2_u64), Just(7), Just(25)].prop_map(Step::Pause),
        // And over that of a body and of the backend's answer.
        1 => Just(Step::Pause(400)),
        1 => Just(Step::Goodbye),
        1 => Just(Step::ClientGone),
    ]
}

const HEADER_READ: u64 = 5;
const KEEP_ALIVE: u64 = 20;
/// Longer than all pauses but the longest, put together.
const BODY_GRACE: u64 = 390;

/// Looks like a request, were it read as a head.
fn piece(request: usize, number: usize) -> Vec<u8> {
    format!(
        "POST /api/SyncVoucher HTTP/1.1\r\nHost: smuggled\r\nX-Mark: {request}\r\n\
         Content-Length: 0\r\nX-Piece: {number}\r\n\r\n"
    )
    .into_bytes()
}

const PIECES: usize = 3;

fn body(request: usize) -> Vec<u8> {
    (0..PIECES)
        .flat_map(|number| piece(request, number))
        .collect()
}

/// What the backend has of one request.
#[derive(Clone, Debug, Default)]
struct Seen {
    mark: String,
    body: Vec<u8>,
    whole: bool,
    over: bool,
}

#[derive(Default)]
struct Backend {
    seen: Vec<Seen>,
    /// Answers that may be given, each to the next request of its connection.
    allowed: VecDeque<bool>,
    answered: usize,
    /// How many bytes longer than two the bodies of answers are.
    padding: usize,
    gone: bool,
}

type SharedBackend = Rc<RefCell<Backend>>;

/// One connection to the backend: what was read and is nobody's yet, and the request under way.
#[derive(Default)]
struct Exchange {
    bytes: Vec<u8>,
    present: Option<Present>,
}

struct Present {
    number: usize,
    head: String,
    answered: bool,
}

impl Exchange {
    /// Takes in what there is, strictly. Returns an answer that may be given now.
    fn step(&mut self, state: &mut Backend) -> Option<String> {
        if self.present.is_none() {
            let end = find(&self.bytes, b"\r\n\r\n")?;
            let head = self.bytes.drain(..end + 4).collect();
            let head = String::from_utf8(head).expect("a head");
            state.seen.push(Seen {
                mark: field(&head, "x-mark").unwrap_or_default(),
                ..Seen::default()
            });
            self.present = Some(Present {
                number: state.seen.len() - 1,
                head,
                answered: false,
            });
        }
        let present = self.present.as_mut()?;
        let seen = &mut state.seen[present.number];
        if !seen.over {
            take_body(&present.head, &mut self.bytes, seen);
        }
        let (mark, over) = (seen.mark.clone(), seen.over);
        let mut answer = None;
        if !present.answered
            && let Some(chunked) = state.allowed.pop_front()
        {
            present.answered = true;
            state.answered += 1;
            let body = format!("{{}}{}", " ".repeat(state.padding));
            let length = body.len();
            let (framing, body) = match chunked {
                true => (
                    "Transfer-Encoding: chunked".to_owned(),
                    format!("{length:x}\r\n{body}\r\n0\r\n\r\n"),
                ),
                false => (format!("Content-Length: {length}"), body),
            };
            answer = Some(format!(
                "HTTP/1.1 200 OK\r\nX-Mark: {mark}\r\n{framing}\r\n\r\n{body}"
            ));
        }
        if present.answered && over {
            self.present = None;
        }
        answer
    }
}

/// Reads requests and answers when it is allowed to.
async fn backend(mut stream: TcpStream, state: SharedBackend) {
    let (mut read, mut write) = stream.split();
    let mut exchange = Exchange::default();
    loop {
        let answer = exchange.step(&mut state.borrow_mut());
        if let Some(answer) = answer {
            let _ = write.write_all(answer.as_bytes()).await;
        }
        if state.borrow().gone {
            return;
        }
        let mut some = [0; 4096];
        tokio::select! {
            biased;
            read = read.read(&mut some) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => exchange.bytes.extend_from_slice(&some[..length]),
            },
            () = yield_now() => {}
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn field(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// Moves what there is of a body from `bytes` to what was seen.
fn take_body(head: &str, bytes: &mut Vec<u8>, seen: &mut Seen) {
    if let Some(length) = field(head, "content-length") {
        let length: usize = length.parse().expect("a length");
        let here = bytes.len().min(length - seen.body.len());
        seen.body.extend(bytes.drain(..here));
        seen.over = seen.body.len() == length;
        seen.whole = seen.over;
        return;
    }
    if field(head, "transfer-encoding").is_none() {
        // The end of the stream was there before the request was sent.
        (seen.over, seen.whole) = (true, true);
        return;
    }
    assert_eq!(
        field(head, "transfer-encoding").as_deref(),
        Some("chunked"),
        "{head}"
    );
    while let Some(line) = find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if bytes.len() < line + 2 + size + 2 {
            return;
        }
        let chunk: Vec<u8> = bytes.drain(..line + 2 + size + 2).collect();
        seen.body
            .extend_from_slice(&chunk[line + 2..line + 2 + size]);
        if size == 0 {
            (seen.over, seen.whole) = (true, true);
            return;
        }
    }
}

/// What the client's side did and got.
#[derive(Default)]
struct Client {
    /// For each head that was sent, the pieces of its body that were, and whether its end was.
    sent: Vec<(usize, bool)>,
    chunked: bool,
    received: Vec<u8>,
    /// Whether something happened after which the gateway may end the connection.
    disturbed: bool,
    /// For how long the present request is under way, or there is none, in seconds of the clock.
    elapsed: u64,
}

impl Client {
    fn has_open_body(&self) -> bool {
        self.sent.last().is_some_and(|(_, ended)| !ended)
    }

    fn is_busy(&self) -> bool {
        self.has_open_body() || answers(&self.received).0.len() < self.sent.len()
    }

    /// Time passes.
    fn wait(&mut self, seconds: u64) {
        self.elapsed += seconds;
        let most = match (self.is_busy(), self.sent.is_empty()) {
            (true, _) => BODY_GRACE,
            (false, true) => HEADER_READ,
            (false, false) => KEEP_ALIVE,
        };
        self.disturbed |= self.elapsed >= most;
    }
}

struct World {
    gateway: Rc<WorkerGateway>,
    token: String,
    backend: SharedBackend,
    upstream: TcpListener,
}

impl World {
    async fn new() -> Self {
        Self::with("").await
    }

    /// One with these lines among its limits.
    async fn with(limits: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual("2026-01-31T18:00:00Z".parse().expect("a moment"));
        let certificate =
            development::write_certificate(directory.path(), &[], clock.now().timestamp());
        certificate.expect("a certificate");
        let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = upstream.local_addr().expect("an address");
        let users = directory.path().join("users.toml");
        let hash = crate::password::hash_password(&Password::new("x".to_owned()));
        let hash = hash.expect("a hash");
        let text = format!("[users.model]\nallow = \"*\"\npassword = \"{hash}\"\n");
        std::fs::write(&users, text).expect("written");
        std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let config = directory.path().join("config.toml");
        let text = format!(
            "[tls]\ncertificates = [{{ certificate = \"server.pem\", key = \"server.key\" }}]\n\
             [upstream]\nurl = \"http://{address}\"\nresponse_timeout = \"{BODY_GRACE}s\"\n\
             idle_timeout = \"1000s\"\n[limits]\nheader_read = \"{HEADER_READ}s\"\n\
             keep_alive = \"{KEEP_ALIVE}s\"\nbody_grace = \"{BODY_GRACE}s\"\nbody_min_rate = \"1B\"\n{limits}"
        );
        std::fs::write(&config, text).expect("written");
        let config = Config::load(&config).unwrap_or_else(|problems| panic!("{problems}"));
        let tokens = Prepared::open(&config.tokens, None).expect("a store");
        let trail = PreparedTrail::open(&config.audit, None).expect("no trail");
        let resolver = Resolver::system();
        let components = Components::open(&config, clock.clone(), resolver, tokens, trail);
        let current = components.unwrap_or_else(|error| panic!("{error}")).current;
        let shared = current.load();
        shared.tokens.load(clock.now()).expect("nothing to load");
        let account = shared.accounts.find("model").expect("an account");
        let token = IssuedToken::generate(&shared.random).expect("random bytes");
        let login = Login {
            account: account.id(),
            mark: account.password_mark(),
            source: crate::origin::Source::V4([127, 0, 0, 1]),
            at: clock.now().seconds(),
        };
        let session = Session::begin(login, Duration::from_secs(3600));
        let issued = shared.tokens.issue(token.digest(), session, clock.now());
        issued.await.expect("room for a token");
        let metrics = shared.metrics.add_worker();
        Self {
            token: token.expose().to_owned(),
            gateway: Rc::new(WorkerGateway::new(current, AccessLog::new(None, metrics))),
            backend: Rc::default(),
            upstream,
        }
    }

    /// A connection that the gateway serves, and how it ends.
    async fn connect(&self, h2: bool) -> (TcpStream, Rc<ClientConnection>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let ours = TcpStream::connect(address).await.expect("a connection");
        ours.set_nodelay(true).expect("a socket that can be set");
        let (theirs, peer) = listener.accept().await.expect("a connection");
        theirs.set_nodelay(true).expect("a socket that can be set");
        let limits = &*self.gateway.limits();
        let transport = Transport::Tls { server_name: None };
        let state = match h2 {
            true => State::Http2(Http2::default()),
            false => State::Http1(Http1::default()),
        };
        let slot_kind = SlotKind::Served;
        let client = ClientConnection::new(peer.into(), transport, slot_kind, state, limits);
        let client = Rc::new(client);
        let (gateway, known) = (Rc::clone(&self.gateway), Rc::clone(&client));
        spawn_local(async move {
            let load = std::sync::Arc::new(Load::default());
            let watch = Rc::new(Drain::default()).watch(load.count()).await;
            let scheduler = Rc::new(StreamScheduler::default());
            spawn_local(Rc::clone(&scheduler).run());
            let wire = Wire::Plain(theirs);
            if h2 {
                let executor = StreamExecutor::new(scheduler, Rc::clone(&known));
                let stream = ClientStream::http2(wire, Rc::clone(&known), executor.queue());
                http2::serve(stream, gateway, known, watch, executor).await;
            } else {
                let stream = ClientStream::http1(wire, Rc::clone(&known));
                http1::serve(stream, gateway, known, watch, scheduler).await;
            }
        });
        (ours, client)
    }

    /// Lets everything happen that can without time passing, and more of it until `is_settled`: on a
    /// busy machine the kernel may deliver late. Fails nothing by itself: what never comes is found
    /// missing by whoever looks then.
    async fn settle_until(&self, mut is_settled: impl FnMut() -> bool) {
        for _ in 0..200 {
            self.settle().await;
            if is_settled() {
                return;
            }
        }
    }

    /// Lets everything happen that can without time passing.
    async fn settle(&self) {
        for _ in 0..60 {
            tokio::select! {
                biased;
                Ok((stream, _)) = self.upstream.accept() => {
                    stream.set_nodelay(true).expect("a socket that can be set");
                    spawn_local(backend(stream, Rc::clone(&self.backend)));
                }
                () = yield_now() => {}
            }
        }
    }
}

/// The answers that stand in `bytes`, each with its status and mark, and what follows them.
fn answers(mut bytes: &[u8]) -> (Vec<(u16, String)>, &[u8]) {
    let mut answers = Vec::new();
    while let Some(end) = find(bytes, b"\r\n\r\n") {
        let head = std::str::from_utf8(&bytes[..end + 2]).expect("a head");
        let status = head[9..12].parse().expect("a status");
        let after = &bytes[end + 4..];
        let length = match field(head, "content-length") {
            Some(length) => length.parse().expect("a length"),
            // "2\r\n{}\r\n0\r\n\r\n"
            None => 12,
        };
        if after.len() < length {
            break;
        }
        answers.push((status, field(head, "x-mark").unwrap_or_default()));
        bytes = &after[length..];
    }
    (answers, bytes)
}

async fn play(steps: &[Step]) {
    let world = World::new().await;
    let (stream, connection) = world.connect(false).await;
    let (read, write) = stream.into_split();
    let mut write = Some(write);
    let mut client = Client::default();
    for step in steps {
        let mut text = Vec::new();
        let was_busy = client.is_busy();
        match *step {
            // Only as an honest client does: after the answer and the body before.
            Step::Head {
                chunked,
                with_piece,
            } if !was_busy => {
                let number = client.sent.len();
                let mut head = format!(
                    "POST /api/SyncData HTTP/1.1\r\nHost: a\r\nX-Mark: {number}\r\n\
                     Authorization: {}\r\n",
                    world.token
                );
                let _ = match chunked {
                    true => write!(head, "Transfer-Encoding: chunked\r\n\r\n"),
                    false => write!(head, "Content-Length: {}\r\n\r\n", body(number).len()),
                };
                text = head.into_bytes();
                client.chunked = chunked;
                client.sent.push((0, false));
                client.elapsed = 0;
                if with_piece {
                    send_piece(&mut client, &mut text);
                }
            }
            Step::EmptyLine if !client.has_open_body() => text = b"\r\n".to_vec(),
            Step::Piece if client.has_open_body() => send_piece(&mut client, &mut text),
            Step::End if client.has_open_body() => {
                for _ in 0..PIECES {
                    send_piece(&mut client, &mut text);
                }
                if client.chunked {
                    text.extend_from_slice(b"0\r\n\r\n");
                }
                if let Some((_, ended)) = client.sent.last_mut() {
                    *ended = true;
                }
            }
            Step::Answer { chunked } => {
                let mut backend = world.backend.borrow_mut();
                if backend.answered + backend.allowed.len() < backend.seen.len() {
                    backend.allowed.push_back(chunked);
                }
            }
            Step::BackendGone => {
                client.disturbed = true;
                world.backend.borrow_mut().gone = true;
            }
            Step::Pause(seconds) => {
                client.wait(seconds);
                for _ in 0..seconds {
                    advance(Duration::from_secs(1)).await;
                    world.settle().await;
                }
            }
            Step::Goodbye => {
                client.disturbed = true;
                write = None;
            }
            Step::ClientGone => {
                client.disturbed = true;
                break;
            }
            Step::Head { .. } | Step::Piece | Step::End | Step::EmptyLine => {}
        }
        if let Some(write) = &mut write {
            // The gateway may have gone.
            let _ = write.write_all(&text).await;
        }
        world
            .settle_until(|| {
                let mut some = [0; 16 * 1024];
                while let Ok(length @ 1..) = read.try_read(&mut some) {
                    client.received.extend_from_slice(&some[..length]);
                }
                client.disturbed || is_quiet(&world, &client, &connection)
            })
            .await;
        // It can be connected to again.
        world.backend.borrow_mut().gone = false;
        if was_busy && !client.is_busy() {
            client.elapsed = 0;
        }
        check(&world, &client, &connection, steps);
    }
    client.disturbed = true;
    drop((read, write));
    world.settle().await;
    check(&world, &client, &connection, steps);
}

fn send_piece(client: &mut Client, text: &mut Vec<u8>) {
    let request = client.sent.len() - 1;
    let (pieces, ended) = &mut client.sent[request];
    if *pieces == PIECES {
        return;
    }
    let piece = piece(request, *pieces);
    *pieces += 1;
    *ended = *pieces == PIECES && !client.chunked;
    if client.chunked {
        text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(&piece);
        text.extend_from_slice(b"\r\n");
    } else {
        text.extend_from_slice(&piece);
    }
}

/// Whether everything has arrived that was sent, while nobody has ended anything.
fn is_quiet(world: &World, client: &Client, connection: &ClientConnection) -> bool {
    let backend = world.backend.borrow();
    let bodies = backend.seen.iter().zip(&client.sent).all(|(seen, sent)| {
        let length: usize = (0..sent.0).map(|number| piece(0, number).len()).sum();
        seen.body.len() == length && seen.whole == sent.1
    });
    bodies
        && backend.seen.len() == client.sent.len()
        && backend.allowed.is_empty()
        && answers(&client.received).0.len() == backend.answered
        && (connection.in_flight() > 0) == client.is_busy()
}

/// What holds after every step.
fn check(world: &World, client: &Client, connection: &ClientConnection, steps: &[Step]) {
    let backend = world.backend.borrow();
    assert!(
        backend.seen.len() <= client.sent.len(),
        "a request out of nothing: {steps:?}"
    );
    for (seen, (number, (pieces, ended))) in backend.seen.iter().zip(client.sent.iter().enumerate())
    {
        assert_eq!(seen.mark, number.to_string(), "{steps:?}");
        let sent: Vec<u8> = (0..*pieces)
            .flat_map(|piece_of| piece(number, piece_of))
            .collect();
        assert!(
            sent.starts_with(&seen.body),
            "bytes of another request: {steps:?}"
        );
        assert!(
            !seen.whole || *ended && seen.body == body(number),
            "a whole request of half a body: {steps:?}"
        );
    }
    let (answers, rest) = answers(&client.received);
    assert!(
        answers.len() <= client.sent.len(),
        "an answer that nobody asked for: {steps:?}"
    );
    for (number, (status, mark)) in answers.iter().enumerate() {
        assert!(
            mark.is_empty() && *status >= 400 || *mark == number.to_string(),
            "the answer of another request, {status}: {steps:?}"
        );
    }
    if client.disturbed {
        return;
    }
    assert!(rest.is_empty(), "half an answer: {steps:?}");
    assert_eq!(
        backend.seen.len(),
        client.sent.len(),
        "a request got lost: {steps:?}"
    );
    for (seen, (pieces, _)) in backend.seen.iter().zip(&client.sent) {
        let sent: usize = (0..*pieces).map(|number| piece(0, number).len()).sum();
        assert_eq!(seen.body.len(), sent, "a piece got lost: {steps:?}");
        assert_eq!(seen.whole, seen.over, "{steps:?}");
    }
    assert_eq!(
        answers.len(),
        backend.answered,
        "an answer got lost: {steps:?}"
    );
    assert_eq!(connection.in_flight() > 0, client.is_busy(), "{steps:?}");
}

/// A body that the client feeds.
struct Fed(UnboundedReceiver<io::Result<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// A request over HTTP/2.
struct Stream {
    /// Until its end was sent.
    feed: Option<UnboundedSender<io::Result<Bytes>>>,
    pieces: usize,
    /// Whether the client has reset it.
    reset: bool,
    /// The status and the mark of its answer, or nothing where it has failed.
    answer: Rc<OnceCell<Option<(u16, String)>>>,
}

impl Stream {
    fn send_piece(&mut self, request: usize) {
        if let Some(feed) = &self.feed
            && self.pieces < PIECES
        {
            let _ = feed.send(Ok(piece(request, self.pieces).into()));
            self.pieces += 1;
        }
    }

    fn is_busy(&self) -> bool {
        !self.reset && (self.feed.is_some() || self.answer.get().is_none())
    }
}

async fn play_http2(steps: &[Step]) {
    let world = World::new().await;
    let (stream, connection) = world.connect(true).await;
    let tasks = LocalExecutor::default();
    let mut builder = hyper::client::conn::http2::Builder::new(tasks.clone());
    builder.timer(TokioTimer::new());
    let handshake = builder.handshake::<_, Fed>(TokioIo::new(stream));
    let (mut sender, driver) = handshake.await.expect("HTTP/2");
    tasks.execute(async {
        let _ = driver.await;
    });
    let mut streams: Vec<Stream> = Vec::new();
    let mut disturbed = false;
    let mut elapsed = 0;
    for step in steps {
        let last = streams.len().wrapping_sub(1);
        let open = streams.last().is_some_and(|stream| stream.feed.is_some());
        match *step {
            Step::Head {
                chunked,
                with_piece,
            } if streams.iter().filter(|stream| stream.is_busy()).count() < 3 => {
                let number = streams.len();
                let mut request = Request::post("https://a/api/SyncData")
                    .header("x-mark", number.to_string())
                    .header("authorization", &world.token);
                if !chunked {
                    request = request.header("content-length", body(number).len());
                }
                let (feed, fed) = unbounded_channel();
                let response = sender.send_request(request.body(Fed(fed)).expect("a request"));
                let answer = Rc::new(OnceCell::new());
                let cell = Rc::clone(&answer);
                spawn_local(async move {
                    let got = match response.await {
                        Ok(response) => {
                            let mark = response.headers().get("x-mark");
                            let mark = mark.map(|mark| mark.to_str().expect("text").to_owned());
                            let status = response.status().as_u16();
                            let whole = response.into_body().collect().await;
                            whole.ok().map(|_| (status, mark.unwrap_or_default()))
                        }
                        Err(_) => None,
                    };
                    cell.set(got).expect("set once");
                });
                let mut stream = Stream {
                    feed: Some(feed),
                    pieces: 0,
                    reset: false,
                    answer,
                };
                if with_piece {
                    stream.send_piece(number);
                }
                streams.push(stream);
                elapsed = 0;
            }
            Step::Piece if open => streams[last].send_piece(last),
            Step::End if open => {
                for _ in 0..PIECES {
                    streams[last].send_piece(last);
                }
                streams[last].feed = None;
            }
            Step::Goodbye | Step::ClientGone if open => {
                if let Some(feed) = streams[last].feed.take() {
                    let _ = feed.send(Err(io::ErrorKind::BrokenPipe.into()));
                }
                streams[last].reset = true;
            }
            Step::Answer { chunked } => {
                let mut backend = world.backend.borrow_mut();
                if backend.answered + backend.allowed.len() < backend.seen.len() {
                    backend.allowed.push_back(chunked);
                }
            }
            Step::BackendGone => {
                disturbed = true;
                world.backend.borrow_mut().gone = true;
            }
            Step::Pause(seconds) => {
                elapsed += seconds;
                let busy = streams.iter().any(Stream::is_busy);
                let idle = if streams.is_empty() {
                    HEADER_READ
                } else {
                    KEEP_ALIVE
                };
                disturbed |= elapsed >= if busy { BODY_GRACE } else { idle };
                for _ in 0..seconds {
                    advance(Duration::from_secs(1)).await;
                    world.settle().await;
                }
            }
            Step::Head { .. }
            | Step::Piece
            | Step::End
            | Step::EmptyLine
            | Step::Goodbye
            | Step::ClientGone => {}
        }
        let undisturbed = !disturbed && streams.iter().all(|stream| !stream.reset);
        let is_quiet = || {
            let answered = streams.iter().filter_map(|stream| stream.answer.get());
            (connection.in_flight() > 0) == streams.iter().any(Stream::is_busy)
                && answered.count() == world.backend.borrow().answered
                && world.backend.borrow().allowed.is_empty()
        };
        world.settle_until(|| !undisturbed || is_quiet()).await;
        assert!(!undisturbed || is_quiet(), "{steps:?}");
        world.backend.borrow_mut().gone = false;
        check_http2(&world, &streams, steps);
    }
    // The client is gone.
    tasks.abort();
    world.settle_until(|| connection.in_flight() == 0).await;
    for stream in &mut streams {
        stream.reset |= stream.feed.is_some();
    }
    check_http2(&world, &streams, steps);
    assert_eq!(connection.in_flight(), 0, "{steps:?}");
}

fn check_http2(world: &World, streams: &[Stream], steps: &[Step]) {
    let backend = world.backend.borrow();
    for seen in &backend.seen {
        let number: usize = seen.mark.parse().expect("a mark");
        let stream = &streams[number];
        let sent: Vec<u8> = (0..stream.pieces)
            .flat_map(|of| piece(number, of))
            .collect();
        assert!(
            sent.starts_with(&seen.body),
            "bytes of another request: {steps:?}"
        );
        let ended = stream.feed.is_none() && !stream.reset;
        assert!(
            !seen.whole || ended && seen.body == body(number),
            "a whole request of half a body: {steps:?}"
        );
    }
    let mut marks: Vec<&str> = backend.seen.iter().map(|seen| &*seen.mark).collect();
    marks.sort_unstable();
    let count = marks.len();
    marks.dedup();
    assert_eq!(marks.len(), count, "a request twice: {steps:?}");
    for (number, stream) in streams.iter().enumerate() {
        if let Some(Some((status, mark))) = stream.answer.get() {
            assert!(
                mark.is_empty() && *status >= 400 || *mark == number.to_string(),
                "the answer of another request, {status}: {steps:?}"
            );
        }
    }
}

/// Spawns what a client's connection consists of.
#[derive(Clone, Default)]
struct LocalExecutor(Rc<RefCell<Vec<AbortHandle>>>);

impl LocalExecutor {
    fn abort(&self) {
        for task in self.0.take() {
            task.abort();
        }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        let task = spawn_local(future).abort_handle();
        self.0.borrow_mut().push(task);
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).event_interval(1);
    let runtime = runtime.build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_an_http_1_exchange_keeps_requests_apart(
        steps in prop::collection::vec(step(), 1..14),
    ) {
        run(play(&steps));
    }

    #[test]
    fn every_order_of_http_2_exchanges_keeps_requests_apart(
        steps in prop::collection::vec(step(), 1..14),
    ) {
        run(play_http2(&steps));
    }
}
