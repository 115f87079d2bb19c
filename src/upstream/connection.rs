//! One connection to the upstream as it is read from: the answer's head, then what its body is made
//! of. Polled by the request's own task; nothing runs while a connection is idle, which keeps neither
//! buffer nor waker.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::error::UpstreamBreak;
use super::in_flight::InFlight;
use super::stream::UpstreamStream;
use crate::message::response_head::{self, Malformed, ParsedHead, ResponseHead};

/// A connection to the upstream.
#[derive(Debug)]
pub(super) struct Connection {
    /// What is written to; it is read from through the connection.
    pub(super) stream: UpstreamStream,
    /// What was read and is nobody's yet.
    pub(super) buffer: BytesMut,
    /// The timer of whoever waits for the upstream.
    pub(super) deadline: Deadline,
    /// How much the next read of a body makes room for.
    room: usize,
    /// The request that is in flight on it.
    pub(super) in_flight: Option<InFlight>,
    /// Of the server's addresses, those that it was opened by.
    pub(super) generation: u32,
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum HeadError {
    Broken(UpstreamBreak),
    Malformed(&'static str),
}

impl From<Malformed> for HeadError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::Malformed(reason)
    }
}

/// How far the reading of an answer's head has come.
#[derive(Debug, Default)]
pub(super) struct HeadProgress {
    searched: usize,
    interim: u8,
}

impl Connection {
    pub(super) fn new(stream: UpstreamStream, generation: u32) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            deadline: Deadline::default(),
            room: MIN_ROOM,
            in_flight: None,
            generation,
        }
    }

    /// Whether nothing arrived since the last answer, not even the end, as far as the runtime was told.
    pub(super) fn is_silent(&mut self) -> bool {
        self.buffer.is_empty() && self.stream.is_silent()
    }

    /// The same, as the system knows it at this moment.
    pub(super) fn is_silent_now(&mut self) -> bool {
        self.buffer.is_empty() && self.stream.is_silent_now()
    }

    /// The head of the final answer to a request with this method.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        progress: &mut HeadProgress,
    ) -> Poll<Result<ResponseHead, HeadError>> {
        loop {
            while !self.buffer.is_empty() {
                let Some(length) = response_head::find(&self.buffer, progress.searched)? else {
                    break;
                };
                progress.searched = 0;
                let head = self.buffer.split_to(length).freeze();
                match response_head::parse(&head, method)? {
                    ParsedHead::Final(head) => return Poll::Ready(Ok(head)),
                    ParsedHead::Interim if progress.interim == MAX_INTERIM => {
                        return Poll::Ready(Err(HeadError::Malformed("too many interim answers")));
                    }
                    ParsedHead::Interim => progress.interim += 1,
                }
            }
            progress.searched = self.buffer.len();
            match ready!(self.poll_read_head(cx)) {
                Ok(0) => return Poll::Ready(Err(HeadError::Broken(UpstreamBreak::Closed))),
                Ok(_) => {}
                Err(error) => {
                    return Poll::Ready(Err(HeadError::Broken(UpstreamBreak::Read(error))));
                }
            }
        }
    }

    /// Reads by way of a buffer of the thread's, so that what is kept is as large as what came.
    fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READING.with_borrow_mut(|bytes| {
            bytes.resize(MIN_ROOM, 0);
            let mut read = ReadBuf::new(bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            self.buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Reads more of a body, of which `left` bytes are still to come where that is known, straight
    /// into the buffer.
    pub(super) fn poll_read_body(
        &mut self,
        cx: &mut Context<'_>,
        left: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        // Who waits for long keeps no room for what may come.
        ready!(self.stream.poll_readable(cx))?;
        let left = left.map_or(usize::MAX, |left| {
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        // With a little more, so that a read which ends the body is seen to have emptied the socket.
        let room = self.room.min(left.saturating_add(64));
        self.buffer.reserve(room);
        let spare = self.buffer.capacity() - self.buffer.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.buffer)).poll(cx))?;
        if read == spare {
            self.room = (self.room * 2).min(MAX_ROOM);
        } else if read < self.room / 4 {
            self.room = (self.room / 2).max(MIN_ROOM);
        }
        Poll::Ready(Ok(read))
    }

    /// Gives up what only a connection in use needs.
    pub(super) fn rest(&mut self) {
        self.buffer = BytesMut::new();
        self.room = MIN_ROOM;
        self.in_flight = None;
    }
}

/// A timer that is set once for many waits: it is asked only when it fires whether the present wait
/// is over, and set anew if not.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Ready when more than `most` have passed since the moment that `since` tells.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        most: Duration,
        since: impl Fn() -> Instant,
    ) -> Poll<()> {
        loop {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(most)));
            ready!(sleep.as_mut().poll(cx));
            let until = since() + most;
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}

thread_local! {
    /// Of use only while it is read into and copied from.
    static READING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How much is read at once at first, and at most, in bytes: each read costs the kernel a message to
/// the upstream that there is room again.
const MIN_ROOM: usize = 16 * 1024;
const MAX_ROOM: usize = 256 * 1024;

/// How many interim answers may precede the final one.
const MAX_INTERIM: u8 = 16;
