//! Requests over one connection whose bodies come in pieces and with pauses, pipelined or not, to a
//! backend that answers when it likes: the backend sees exactly the bodies that belong to the heads,
//! and the client exactly the answers that belong to its requests. Every body is made of requests that
//! would be forwarded if one of its bytes were ever read as a head. Client, gateway and backend share
//! a thread whose clock stands still unless the input lets it run, so that every deadline can pass.
//!
//! The input: how many requests, four bytes for each, then steps of the client. The backend is reached
//! over TLS if its length is odd.

#![no_main]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use syncgate::server::LocalGateway;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::task::{JoinSet, spawn_local, yield_now};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[path = "../gateway.rs"]
mod gateway;
#[path = "../scene.rs"]
mod scene;

use gateway::{Gateway, Link};
use scene::{After, Answering, Request, Scene, Step};

thread_local! {
    static PLAIN: World = World::start(Link::Plain);
    static TLS: World = World::start(Link::Tls);
}

fuzz_target!(|input: &[u8]| {
    let worlds = if input.len() % 2 == 0 { &PLAIN } else { &TLS };
    worlds.with(|world| {
        if let Some(scene) = world.scene(input) {
            world.runtime.block_on(world.play(scene));
        }
    });
});

/// What outlives an input: the gateway with its connections to the backend, so that what one input
/// leaves behind in them meets the next.
struct World {
    runtime: LocalRuntime,
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    local: Rc<LocalGateway>,
    gateway: Gateway,
    played: Cell<u64>,
}

impl World {
    fn start(link: Link) -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true);
        let runtime = runtime
            .build_local(LocalOptions::default())
            .expect("a runtime");
        let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let backend = bind().expect("a free port");
        let listener = bind().expect("a free port");
        let at = backend.local_addr().expect("an address");
        let (gateway, local) = Gateway::start(at, link, |server, config| {
            server.local(config).expect("a gateway on this thread")
        });
        let acceptor = TlsAcceptor::from(Arc::clone(&gateway.backend_tls));
        runtime.spawn_local(serve_backend(
            backend,
            (link == Link::Tls).then_some(acceptor),
        ));
        Self {
            address: listener.local_addr().expect("an address"),
            listener,
            tls: Arc::clone(&gateway.tls),
            local: Rc::new(local),
            runtime,
            gateway,
            played: Cell::new(0),
        }
    }

    fn scene(&self, input: &[u8]) -> Option<Scene> {
        let number = self.played.replace(self.played.get() + 1);
        let token = std::str::from_utf8(&self.gateway.token).expect("a token");
        Scene::read(input, number, token)
    }

    async fn play(&self, scene: Scene) {
        // While it runs the runtime is never idle, and so its clock stands still.
        let keeper = spawn_local(async {
            loop {
                yield_now().await;
            }
        });
        let played = Rc::new(Played {
            scene,
            seen: RefCell::default(),
            whole: RefCell::default(),
        });
        PLAYED.set(Some(Rc::clone(&played)));
        let scene = &played.scene;
        let (ours, theirs) = tokio::join!(TcpStream::connect(self.address), self.listener.accept());
        let (socket, peer) = theirs.expect("a connection");
        let local = Rc::clone(&self.local);
        let serving = spawn_local(async move { local.serve(socket, peer).await });
        let ours = ours.expect("a connection");
        // Every step is to arrive as it is.
        ours.set_nodelay(true).expect("a socket that can be set");
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(name, ours);
        let (mut read, mut write) = tokio::io::split(connecting.await.expect("a handshake"));
        let came: Rc<RefCell<Vec<u8>>> = Rc::default();
        let coming = Rc::clone(&came);
        let reading = spawn_local(async move {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = read.read(&mut piece).await {
                coming.borrow_mut().extend_from_slice(&piece[..length]);
            }
        });
        let mut sent = 0;
        for step in &scene.steps {
            match *step {
                Step::Send(until) if until > sent => {
                    // The gateway may have ended the connection.
                    let _ = write.write_all(&scene.bytes[sent..until]).await;
                    let _ = write.flush().await;
                    sent = until;
                }
                Step::Send(_) => {}
                Step::Pause(time) => pass(time).await,
            }
            settle().await;
        }
        settle().await;
        let started = Instant::now();
        let served = scene.served(sent);
        while scene.check_answers(&came.borrow(), sent) < served || !played.got_whole(served) {
            assert!(
                started.elapsed() < REAL_PATIENCE,
                "not all of the first {served} were served, or their bodies did not come whole\n{scene}"
            );
            settle().await;
        }
        let _ = write.shutdown().await;
        settle().await;
        reading.abort();
        drop(write);
        let _ = reading.await;
        // Longer than anything waits for.
        pass(Duration::from_secs(200)).await;
        assert!(serving.is_finished(), "a connection outlived all deadlines");
        scene.check_answers(&came.borrow(), sent);
        self.local.tidy();
        settle().await;
        keeper.abort();
    }
}

/// Lets everybody do what there is to do. What the kernel hands on later comes with the next step.
async fn settle() {
    for _ in 0..60 {
        yield_now().await;
    }
}

/// In steps, since timers are set anew when they fire.
async fn pass(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(Duration::from_millis(if left.as_secs() > 20 {
            5000
        } else {
            250
        }));
        tokio::time::advance(step).await;
        for _ in 0..4 {
            yield_now().await;
        }
        left -= step;
    }
    settle().await;
}

/// A scene, and what the backend saw of it.
struct Played {
    scene: Scene,
    /// The requests that have shown their head.
    seen: RefCell<HashSet<String>>,
    /// Those whose bodies came whole.
    whole: RefCell<HashSet<String>>,
}

impl Played {
    /// Whether the bodies of so many requests, from the first on, came whole.
    fn got_whole(&self, count: usize) -> bool {
        let whole = self.whole.borrow();
        let mut first = self.scene.requests.iter().take(count);
        first.all(|request| whole.contains(&request.marker))
    }
}

thread_local! {
    /// What is played: the backend takes its part from it.
    static PLAYED: RefCell<Option<Rc<Played>>> = const { RefCell::new(None) };
}

/// How long the kernel may take to hand on what was sent, on a machine that has much else to do.
const REAL_PATIENCE: Duration = Duration::from_secs(30);

async fn serve_backend(listener: TcpListener, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        match tls.clone() {
            None => connections.spawn_local(serve(stream)),
            Some(tls) => connections.spawn_local(async move {
                // The gateway may have gone meanwhile.
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream).await;
                }
            }),
        };
        while connections.try_join_next().is_some_and(|ended| {
            if let Err(error) = ended {
                // Not caught: what was wrong ends the process.
                std::panic::resume_unwind(error.into_panic());
            }
            true
        }) {}
    }
}

/// A panic of a task would be caught by the runtime.
fn wrong(what: &str, scene: &Scene) -> ! {
    eprintln!("{what}\n{scene}");
    std::process::abort();
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = Vec::new();
    loop {
        let Some(head) = read_head(&mut stream, &mut buffer).await else {
            return;
        };
        let Some(played) = PLAYED.with_borrow(Clone::clone) else {
            return;
        };
        let scene = &played.scene;
        let marker = head
            .iter()
            .find_map(|line| line.strip_prefix("x-marker: "))
            .unwrap_or_else(|| wrong(&format!("a head without a marker: {head:?}"), scene));
        let Some(request) = scene.request(marker) else {
            wrong(&format!("not a head of the client's: {head:?}"), scene);
        };
        if !played.seen.borrow_mut().insert(marker.to_owned()) {
            wrong(&format!("a request that came twice: {marker}"), scene);
        }
        let chunked = head.iter().any(|line| line == "transfer-encoding: chunked");
        let mut body = Body {
            chunked,
            left: match chunked {
                true => 0,
                false => request.body.len(),
            },
            ended: !chunked && request.body.is_empty(),
            received: Vec::new(),
        };
        let Answering { after, then, .. } = request.answering;
        let early = match after {
            After::Bytes(count) => count.min(request.body.len()),
            After::Whole => usize::MAX,
        };
        let mut answered = false;
        loop {
            if !answered && (body.ended || body.received.len() >= early) {
                answered = true;
                let answer = request.answer();
                if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                if then == scene::Then::Close {
                    return;
                }
            }
            if body.ended {
                break;
            }
            if !body.read(&mut stream, &mut buffer, scene).await {
                // Broken off: what came must be of this body all the same.
                check_body(scene, request, &body.received);
                return;
            }
            check_body(scene, request, &body.received);
        }
        if body.received != request.body {
            wrong(&format!("a body that is not whole: {marker}"), scene);
        }
        played.whole.borrow_mut().insert(marker.to_owned());
        if then == scene::Then::CloseAtEnd {
            return;
        }
    }
}

fn check_body(scene: &Scene, request: &Request, received: &[u8]) {
    if !request.body.starts_with(received) {
        let what = format!("bytes of something else in the body of {}", request.marker);
        wrong(&what, scene);
    }
}

/// The lines of a head in small letters, or nothing where the connection ends before one is whole.
async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<Vec<String>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = buffer.drain(..end + 4).collect::<Vec<u8>>();
            let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
            return Some(text.split("\r\n").map(str::to_owned).collect());
        }
        if !fill(stream, buffer).await {
            return None;
        }
    }
}

async fn fill(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(buffer).await, Ok(1..))
}

/// A body as it comes to the backend.
struct Body {
    chunked: bool,
    /// Of the body, or of the chunk.
    left: usize,
    ended: bool,
    received: Vec<u8>,
}

impl Body {
    /// Reads on; whether the connection did not end.
    async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
        scene: &Scene,
    ) -> bool {
        if buffer.is_empty() && !fill(stream, buffer).await {
            return false;
        }
        if self.left > 0 {
            let here = self.left.min(buffer.len());
            self.received.extend(buffer.drain(..here));
            self.left -= here;
            self.ended = !self.chunked && self.left == 0;
            return true;
        }
        // A chunk's end, and the size of the next.
        let start = if self.received.is_empty() { 0 } else { 2 };
        while buffer.len() < start || !buffer[start..].windows(2).any(|two| two == b"\r\n") {
            if !fill(stream, buffer).await {
                return false;
            }
        }
        let end = start
            + buffer[start..]
                .windows(2)
                .position(|two| two == b"\r\n")
                .unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[start..end]).into_owned();
        let Ok(size) = usize::from_str_radix(&text, 16) else {
            wrong(&format!("no size of a chunk: {text:?}"), scene);
        };
        buffer.drain(..end + 2);
        self.left = size;
        if size == 0 {
            while buffer.len() < 2 {
                if !fill(stream, buffer).await {
                    return false;
                }
            }
            buffer.drain(..2);
            self.ended = true;
        }
        true
    }
}
