//! A request on its way to the upstream: its head, and its body as it comes from the client. One chunk
//! of the body is held.

use std::cell::Cell;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http_body::Body as _;

use super::error::UpstreamBreak;
use super::stream::UpstreamStream;
use crate::body::BodyAborted;
use crate::body::request::RequestBody;
use crate::message::request_head::BodyFraming;

/// A request of which not all was written.
#[derive(Debug)]
pub(super) struct Sending {
    /// What is to be written before the chunk: the head, a chunk's size.
    prefix: Vec<u8>,
    chunk: Bytes,
    /// What is to be written after the chunk.
    suffix: &'static [u8],
    /// How much was written of prefix, chunk and suffix.
    written: usize,
    /// Until all of it was taken.
    body: Option<RequestBody>,
    /// The chunk that completes the announced length, until the client's end of the body is there:
    /// with it the upstream has a whole request, whatever the client still sends.
    completing: Bytes,
    framing: BodyFraming,
    /// How long the head is, until the part that begins with it is written.
    head: usize,
    /// How much had been written to the connection when the request began to be.
    begun_at: u64,
}

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum SendError {
    /// The body was aborted; its transfer knows why.
    Body(BodyAborted),
    /// The body has another length than its client announced.
    Length,
    /// The upstream takes no more.
    Broken(UpstreamBreak),
}

impl Sending {
    /// A request whose head `write_head` writes. Where the framing leaves no room for a body, the
    /// body has ended.
    pub(super) fn new(
        body: RequestBody,
        framing: BodyFraming,
        write_head: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let mut prefix = SPARE.take();
        prefix.clear();
        write_head(&mut prefix);
        Self {
            head: prefix.len(),
            prefix,
            chunk: Bytes::new(),
            suffix: b"",
            written: 0,
            body: framing.has_body().then_some(body),
            completing: Bytes::new(),
            framing,
            begun_at: 0,
        }
    }

    /// Addresses a request of which nothing was written to another host: `Host` is its first field.
    pub(super) fn set_host(&mut self, host: &HeaderValue) {
        let before = self.prefix.len();
        replace_host(&mut self.prefix, host);
        self.head = self.head + self.prefix.len() - before;
    }

    /// What is written next is the first of it on this connection.
    pub(super) fn begin_on(&mut self, stream: &mut UpstreamStream) {
        self.begun_at = stream.written();
    }

    /// Whether a part of it may have reached the upstream.
    pub(super) fn has_begun(&self, stream: &mut UpstreamStream) -> bool {
        stream.written() > self.begun_at
    }

    /// Whether all of its head was written: before that, nothing can be an answer to it.
    pub(super) fn has_sent_head(&self) -> bool {
        self.written >= self.head
    }

    /// Makes it ready to be written from its beginning, if all of that is still here. It always is where
    /// nothing was written; over TLS some of it may have been encrypted all the same.
    pub(super) fn rewind(&mut self) -> bool {
        self.written = 0;
        self.head > 0
    }

    /// The body, where there is some left of it.
    pub(super) fn into_body(mut self) -> Option<RequestBody> {
        self.body.take()
    }

    /// Writes what there is to write; ready when all was written. The head and what there is of the
    /// body at once are written together.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut UpstreamStream,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let mut waits = false;
            // What is joined to the prefix leaves room for more, unless the prefix is being written.
            while self.written == 0
                && self.chunk.is_empty()
                && self.suffix.is_empty()
                && self.body.is_some()
            {
                match self.poll_chunk(cx) {
                    Poll::Ready(result) => result?,
                    // What is there goes first.
                    Poll::Pending => {
                        waits = true;
                        break;
                    }
                }
            }
            let broken = |error| SendError::Broken(UpstreamBreak::Write(error));
            ready!(self.poll_write(cx, stream)).map_err(broken)?;
            if waits {
                // Whether it has left already or not, the client is waited for.
                if let Poll::Ready(Err(error)) = stream.poll_flush(cx) {
                    return Poll::Ready(Err(broken(error)));
                }
                return Poll::Pending;
            }
            if self.body.is_none() {
                return stream.poll_flush(cx).map_err(broken);
            }
        }
    }

    /// Takes the body's next chunk, or its end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        let (mut chunk, ended) = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => (frame.into_data().unwrap_or_default(), body.is_end_stream()),
            Some(Err(given_up)) => return Poll::Ready(Err(SendError::Body(given_up))),
            None => (Bytes::new(), true),
        };
        let mut whole = ended;
        if let BodyFraming::Length(left) = &mut self.framing {
            let less = left.checked_sub(chunk.len() as u64);
            let Some(less) = less.filter(|less| *less == 0 || !ended) else {
                return Poll::Ready(Err(SendError::Length));
            };
            *left = less;
            if less == 0 && !chunk.is_empty() {
                self.completing = std::mem::take(&mut chunk);
            }
            whole = less == 0 && ended;
            if whole {
                chunk = std::mem::take(&mut self.completing);
            }
        } else {
            if !chunk.is_empty() {
                // Writing to a vector does not fail.
                let _ = write!(self.prefix, "{:x}\r\n", chunk.len());
            }
            self.suffix = match (chunk.is_empty(), ended) {
                (true, false) => b"",
                (true, true) => b"0\r\n\r\n",
                (false, false) => b"\r\n",
                (false, true) => b"\r\n0\r\n\r\n",
            };
        }
        if whole {
            self.body = None;
        }
        self.chunk = chunk;
        self.join();
        Poll::Ready(Ok(()))
    }

    /// Copies together what is short.
    fn join(&mut self) {
        let length = self.prefix.len() + self.chunk.len() + self.suffix.len();
        if length <= JOINED && !self.prefix.is_empty() {
            self.prefix.extend_from_slice(&self.chunk);
            self.prefix.extend_from_slice(self.suffix);
            self.chunk = Bytes::new();
            self.suffix = b"";
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut UpstreamStream,
    ) -> Poll<io::Result<()>> {
        loop {
            let [prefix, chunk, suffix] = self.left();
            let written = if chunk.is_empty() && suffix.is_empty() {
                if prefix.is_empty() {
                    self.finish_part();
                    return Poll::Ready(Ok(()));
                }
                ready!(stream.poll_write(cx, prefix))?
            } else if prefix.is_empty() && suffix.is_empty() {
                ready!(stream.poll_write(cx, chunk))?
            } else {
                let slices = [prefix, chunk, suffix].map(IoSlice::new);
                ready!(stream.poll_write_vectored(cx, &slices))?
            };
            self.written += at_least_one(written)?;
        }
    }

    /// What is left to write of prefix, chunk and suffix.
    fn left(&self) -> [&[u8]; 3] {
        let mut written = self.written;
        [&self.prefix[..], &self.chunk, self.suffix].map(|part| {
            let skipped = written.min(part.len());
            written -= skipped;
            &part[skipped..]
        })
    }

    /// Makes room for the next part of the body: all of this one was written.
    fn finish_part(&mut self) {
        self.prefix.clear();
        self.chunk = Bytes::new();
        self.suffix = b"";
        self.written = 0;
        self.head = 0;
    }

    /// Leaves the prefix's buffer to the next request.
    fn spare_prefix(&mut self) {
        if (1..=MAX_SPARE).contains(&self.prefix.capacity()) {
            SPARE.set(std::mem::take(&mut self.prefix));
        }
    }
}

fn replace_host(head: &mut Vec<u8>, host: &HeaderValue) {
    let Some(start) = memchr::memmem::find(head, HOST).map(|at| at + HOST.len()) else {
        return;
    };
    let rest = &head[start..];
    let length = memchr::memmem::find(rest, b"\r\n").unwrap_or(rest.len());
    let host = host.as_bytes().iter().copied();
    head.splice(start..start + length, host);
}

fn at_least_one(written: usize) -> io::Result<usize> {
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(written),
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.spare_prefix();
    }
}

/// How a head goes on after its request line.
const HOST: &[u8] = b" HTTP/1.1\r\nhost: ";

/// Up to how many bytes a head and a body are copied together, since one chunk costs the kernel less
/// than two do by more than such a copy.
const JOINED: usize = 4 * 1024;

/// The largest buffer that is kept for the next request.
const MAX_SPARE: usize = 16 * 1024;

thread_local! {
    /// The buffer of a request that was sent, for the next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
