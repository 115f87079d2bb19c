//! A request on its way to the upstream: its head, and its body as it comes from the client. At most
//! one chunk of the body is held.

use std::cell::Cell;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderValue;
use http_body::Body as _;

use super::connection::UpstreamBreak;
use super::stream::UpstreamStream;
use crate::body::request::{BodyAborted, RequestBody};
use crate::message::request_head::BodyFraming;

/// A request of which not all was written.
#[derive(Debug)]
pub(super) struct Sending {
    /// What is to be written before the chunk: the head, a chunk's size.
    prefix: Vec<u8>,
    /// How much of it was written.
    prefix_written: usize,
    chunk: Bytes,
    /// What is to be written after the chunk.
    suffix: &'static [u8],
    /// Until all of it was taken.
    body: Option<RequestBody>,
    /// The chunk that completes the announced length, until the client's end of the body is there:
    /// with it the upstream has a whole request, whatever the client still sends.
    completing: Bytes,
    framing: BodyFraming,
    /// How many bytes of the head were not written.
    head_left: usize,
    begun: bool,
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
            head_left: prefix.len(),
            prefix,
            prefix_written: 0,
            chunk: Bytes::new(),
            suffix: b"",
            body: framing.has_body().then_some(body),
            completing: Bytes::new(),
            framing,
            begun: false,
        }
    }

    /// Addresses a request of which nothing was written to another host: `Host` is its first field.
    pub(super) fn set_host(&mut self, host: &HeaderValue) {
        let start = memchr::memmem::find(&self.prefix, HOST).map(|at| at + HOST.len());
        let Some(start) = start.filter(|_| !self.begun) else {
            return;
        };
        let rest = &self.prefix[start..];
        let length = memchr::memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        self.head_left = self.head_left - length + host.len();
        self.prefix
            .splice(start..start + length, host.as_bytes().iter().copied());
    }

    /// Whether a part of it may have reached an upstream.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether all of its head was written: before that, nothing can be an answer to it.
    pub(super) fn has_sent_head(&self) -> bool {
        self.head_left == 0
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
            while self.prefix_written == 0
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
            ready!(self.poll_write(cx, stream))
                .map_err(|error| SendError::Broken(UpstreamBreak::Write(error)))?;
            if waits {
                return Poll::Pending;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
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
        let length = self.prefix.len() - self.prefix_written + self.chunk.len() + self.suffix.len();
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
            let prefix = &self.prefix[self.prefix_written..];
            let written = if self.chunk.is_empty() && self.suffix.is_empty() {
                if prefix.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                ready!(stream.poll_write(cx, prefix))?
            } else if prefix.is_empty() && self.suffix.is_empty() {
                ready!(stream.poll_write(cx, &self.chunk))?
            } else {
                let slices = [prefix, &self.chunk, self.suffix].map(IoSlice::new);
                ready!(stream.poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            self.advance(written);
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.head_left = self.head_left.saturating_sub(written);
        let of_prefix = written.min(self.prefix.len() - self.prefix_written);
        self.prefix_written += of_prefix;
        written -= of_prefix;
        if self.prefix_written == self.prefix.len() {
            self.prefix.clear();
            self.prefix_written = 0;
            if self.body.is_none() {
                self.spare_prefix();
            }
        }
        let of_chunk = written.min(self.chunk.len());
        self.chunk.advance(of_chunk);
        self.suffix = &self.suffix[written - of_chunk..];
    }

    /// Leaves the prefix's buffer to the next request.
    fn spare_prefix(&mut self) {
        if (1..=MAX_SPARE).contains(&self.prefix.capacity()) {
            SPARE.set(std::mem::take(&mut self.prefix));
        }
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
