//! The old process's end of the link, once it has handed its tokens over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::wire::{Op, Reply};
use crate::store::StoreError;
use crate::takeover::{HEAD, Kind, head, parse};

/// What has the process that took over make changes. Clones lead to the same.
#[derive(Debug, Clone)]
pub(in crate::store) struct Delegate(mpsc::Sender<Call>);

/// What somebody wants to be done there.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) op: Op,
    /// None when nobody waits for an answer.
    answer: Option<oneshot::Sender<Reply>>,
    /// Whether it is the last.
    is_last: bool,
}

pub(super) type Calls = mpsc::Receiver<Call>;

impl Delegate {
    pub(super) fn new(calls: mpsc::Sender<Call>) -> Self {
        Self(calls)
    }

    /// Has something done.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the other process is gone, or does not answer; whether it was done is
    /// not known then.
    pub(in crate::store) async fn ask(&self, op: Op) -> Result<Reply, StoreError> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            op,
            answer: Some(answer),
            is_last: false,
        };
        let asked = async {
            self.0.send(call).await.ok()?;
            answered.await.ok()
        };
        let answer = timeout(PATIENCE, asked).await.ok().flatten();
        answer.ok_or(StoreError::Unavailable)
    }

    /// Has something done of which nobody waits for the outcome. Never waits; what there is no room for is lost.
    pub(in crate::store) fn tell(&self, op: Op) {
        let _ = self.0.try_send(Call {
            op,
            answer: None,
            is_last: false,
        });
    }

    /// Nothing more will be asked. Waits until there is room to say so; not for asynchronous code.
    pub(super) fn end(&self) {
        let _ = self.0.blocking_send(Call {
            op: Op::Use {
                id: [0; 10],
                now: 0,
            },
            answer: None,
            is_last: true,
        });
    }
}

/// Talks to the other process until it is gone, or nothing more is to be said.
pub(super) fn run(stream: UnixStream, calls: Calls) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let talked = runtime.and_then(|runtime| runtime.block_on(talk(stream, calls)));
    if let Err(error) = talked {
        tracing::warn!(%error, "the process that took over cannot be reached: requests left here fail");
    }
}

async fn talk(stream: UnixStream, mut calls: Calls) -> io::Result<()> {
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let (mut from, mut to) = stream.into_split();
    let waiting: RefCell<HashMap<u64, oneshot::Sender<Reply>>> = RefCell::default();
    let reading = async {
        loop {
            let (id, reply): (u64, Reply) = read(&mut from, Kind::Answer).await?;
            let answer = waiting.borrow_mut().remove(&id);
            if let Some(answer) = answer {
                let _ = answer.send(reply);
            }
        }
    };
    let writing = async {
        let mut id = 0_u64;
        while let Some(Call {
            op,
            answer,
            is_last,
        }) = calls.recv().await
        {
            if is_last {
                break;
            }
            id += 1;
            let is_told = answer.is_none();
            if let Some(answer) = answer {
                waiting.borrow_mut().insert(id, answer);
            }
            let number = if is_told { 0 } else { id };
            let message = (number, op);
            let sent = write(&mut to, Kind::Call, &message);
            timeout(PATIENCE, sent).await??;
        }
        Ok(())
    };
    tokio::select! {
        broken = reading => broken,
        written = writing => written,
    }
}

/// Reads a frame of this kind. Not cancel safe.
pub(super) async fn read<T: serde::de::DeserializeOwned>(
    from: &mut tokio::net::unix::OwnedReadHalf,
    wanted: Kind,
) -> io::Result<T> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut start = [0; HEAD];
    from.read_exact(&mut start).await?;
    let (kind, length) = parse(start).ok_or_else(malformed)?;
    if kind != wanted {
        return Err(malformed());
    }
    let mut payload = Vec::new();
    let read = from.take(length as u64).read_to_end(&mut payload).await?;
    match read == length {
        true => serde_json::from_slice(&payload).map_err(|_| malformed()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes a frame.
pub(super) async fn write(
    to: &mut tokio::net::unix::OwnedWriteHalf,
    kind: Kind,
    message: &impl serde::Serialize,
) -> io::Result<()> {
    let payload = serde_json::to_vec(message)?;
    let start = head(kind, payload.len()).ok_or(io::ErrorKind::InvalidData)?;
    to.write_all(&start).await?;
    to.write_all(&payload).await
}

/// How long the other process may take for a change.
const PATIENCE: Duration = Duration::from_secs(30);
