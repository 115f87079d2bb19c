//! What lies between some gateways and a server, and holds up what a test names.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::DEADLINE;

/// Passes on what comes, but for what holds a given text: with all that follows on its connection that
/// waits until it is released.
pub struct Relay {
    pub address: String,
    held: watch::Sender<Option<&'static str>>,
    reached: watch::Receiver<u64>,
    cuts: watch::Sender<u64>,
}

impl Relay {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (held, holds) = watch::channel(None);
        let (reach, reached) = watch::channel(0);
        let (cuts, cut) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let ((from_near, to_near), (from_far, to_far)) =
                    (near.into_split(), far.into_split());
                let (holds, reach, mut cut) = (holds.clone(), reach.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let ask = pass(from_near, to_far, Some((holds, reach)));
                    let answer = pass(from_far, to_near, None);
                    tokio::select! {
                        () = ask => {}
                        () = answer => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            held,
            reached,
            cuts,
        }
    }

    /// Holds up what has this text, from now on.
    pub fn hold(&mut self, text: &'static str) {
        self.reached.mark_unchanged();
        self.held.send_replace(Some(text));
    }

    /// Waits until there is something that is held up.
    pub async fn reached(&mut self) {
        let reached = tokio::time::timeout(DEADLINE, self.reached.changed()).await;
        reached.expect("something to hold up").unwrap();
    }

    /// Passes everything on.
    pub fn release(&self) {
        self.held.send_replace(None);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

type Holds = (watch::Receiver<Option<&'static str>>, watch::Sender<u64>);

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut holds: Option<Holds>) {
    let mut buffer = vec![0; 64 * 1024];
    // A text may come in two pieces.
    let mut seen: Vec<u8> = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let passed = seen.len();
        seen.extend(&buffer[..length]);
        if let Some((held, reached)) = &mut holds {
            // What was passed on whole is not held up any more.
            let has = |text: &str| {
                let fresh = &seen[passed.saturating_sub(text.len() - 1)..];
                fresh.windows(text.len()).any(|it| it == text.as_bytes())
            };
            if held.borrow().is_some_and(has) {
                reached.send_modify(|times| *times += 1);
                if held.wait_for(Option::is_none).await.is_err() {
                    return;
                }
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        let keep = seen.len().min(LONGEST);
        seen.drain(..seen.len() - keep);
    }
}

/// Of what was passed on, so much is looked at again with what follows.
const LONGEST: usize = 64;
