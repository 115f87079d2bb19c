//! A slow backend, which answers a request when it is told to and counts how often it had each whole, and a
//! client that does not wait for its answer but sends the request again.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::faulty::ITEM;
use super::{Answer, Ask, Client, tls, within};

pub struct SlowBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    processed: HashMap<String, u32>,
    released: HashSet<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no task panicked")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
    }

    async fn until(&self, ready: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        while !ready(&self.lock()) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl SlowBackend {
    /// Listens on a free port of the loopback interface.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener
            .set_nonblocking(true)
            .expect("a socket that does not block");
        let address = listener.local_addr().expect("a bound address");
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
                .expect("a runtime for the backend");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        });
        Self {
            address,
            shared,
            stop,
            thread: Some(thread),
        }
    }

    /// The address as `upstream.url` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often the backend had this request whole.
    pub fn processed(&self, item: &str) -> u32 {
        self.shared.lock().processed.get(item).copied().unwrap_or(0)
    }

    /// How many requests it had whole.
    pub fn total(&self) -> usize {
        self.shared.lock().processed.len()
    }

    /// Waits until it has had this request whole.
    pub async fn has(&self, item: &str) {
        let has = |state: &State| state.processed.contains_key(item);
        self.shared.until(has).await;
    }

    /// Waits until it has had so many requests whole.
    pub async fn has_had(&self, count: usize) {
        let has = |state: &State| state.processed.len() >= count;
        self.shared.until(has).await;
    }

    /// Lets it answer this request, now or when it comes.
    pub fn release(&self, item: &str) {
        let item = item.to_owned();
        self.shared.change(|state| {
            state.released.insert(item);
        });
    }
}

impl Drop for SlowBackend {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "it panicked");
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut serving = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // Whatever is wrong with a connection ends it.
        serving.spawn(async move { drop(serve(stream, shared).await) });
        while serving.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let field = |name: &str| {
            text.lines().find_map(|line| {
                let (field, value) = line.split_once(": ")?;
                field.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let length = field("content-length").map_or(0, |it| it.parse().expect("a length"));
        let item = field(ITEM).expect("a request of this test");
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..head + length);
        shared.change(|state| *state.processed.entry(item.clone()).or_default() += 1);
        shared.until(|state| state.released.contains(&item)).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", item.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(item.as_bytes()).await?;
    }
}

/// What a client learned of its requests.
#[derive(Debug, Default, Clone, Copy)]
pub struct Learned {
    /// Stored answers.
    pub stored: usize,
    /// Answers of the backend to a repeat: the first had not arrived there.
    pub answered: usize,
    /// That the outcome was unknown, and the backend has it.
    pub unknown: usize,
    /// That the outcome was unknown, and the backend does not have it: it was sent with another key.
    pub anew: usize,
}

impl Learned {
    pub fn add(&mut self, other: Self) {
        self.stored += other.stored;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.anew += other.anew;
    }
}

/// Sends a request to one of these gateways, gives up as soon as the backend has it, and repeats it until it knows
/// what became of it.
pub async fn insist(gateways: &[Client], backend: &SlowBackend, number: usize) -> Learned {
    let item = number.to_string();
    let first = tokio::select! {
        answer = attempt(&gateways[number % gateways.len()], &item, &item) => answer,
        () = backend.has(&item) => None,
    };
    let mut learned = Learned::default();
    if first.is_some_and(|answer| answer.status == 200) {
        learned.answered = 1;
        return learned;
    }
    within("an answer to a repeated request", async {
        if number.is_multiple_of(2) {
            backend.release(&item);
            return repeat(gateways, backend, number).await;
        }
        let repeats = repeat(gateways, backend, number);
        let released = async { backend.release(&item) };
        let (learned, ()) = tokio::join!(biased; repeats, released);
        learned
    })
    .await
}

async fn repeat(gateways: &[Client], backend: &SlowBackend, number: usize) -> Learned {
    let (item, mut key) = (number.to_string(), number.to_string());
    let (mut learned, mut tries) = (Learned::default(), 0);
    loop {
        tries += 1;
        let gateway = &gateways[(number + tries) % gateways.len()];
        // One that is dead, or has lost its answer, is left for the next.
        let Some(answer) = attempt(gateway, &item, &key).await else {
            continue;
        };
        let stored = answer.header("proxy-status").is_some();
        let text = answer.text();
        match answer.status {
            200 => {
                assert_eq!(text, item);
                learned.stored += usize::from(stored);
                learned.answered += usize::from(!stored);
                return learned;
            }
            409 if text.contains("outcome is unknown") && backend.processed(&item) > 0 => {
                learned.unknown += 1;
                return learned;
            }
            409 if text.contains("outcome is unknown") => {
                key.push_str("-anew");
                learned.anew += 1;
            }
            409 | 502 | 503 => {}
            _ => panic!("{answer:?}"),
        }
    }
}

/// The answer of a gateway, if it gives one.
async fn attempt(gateway: &Client, item: &str, key: &str) -> Option<Answer> {
    let config = tls::client(
        &gateway.trusted,
        &["http/1.1"],
        rustls::ALL_VERSIONS,
        tls::provider(),
    );
    let mut connection = gateway.connect_with(config).await.ok()?;
    let ask = Ask::post("/api/SyncVoucher")
        .field(ITEM, item)
        .field("Idempotency-Key", key)
        .json(format!("{{\"number\":{item}}}"));
    let bytes = gateway.with_token(ask).bytes(&gateway.name);
    connection.try_write(&bytes).await.ok()?;
    connection.try_answer("POST").await.ok()
}
