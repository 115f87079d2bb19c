//! The upstream's response body on its way to the client.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::connection::Connection;
use super::pool::Pool;
use super::sending::SendError;
use super::upload::Upload;
use crate::message::framing::{Decoder, Framing, FramingError};

/// A response body that gives its connection back to the pool when both directions are complete,
/// and ends it otherwise.
#[derive(Debug)]
pub struct RelayedBody(Content);

#[derive(Debug)]
enum Content {
    /// It came with the head, and the connection is free.
    Whole(Bytes),
    Streaming(Box<StreamingBody>),
    /// All of it was handed on.
    Ended,
    Broken,
}

impl RelayedBody {
    /// The body that follows the head which was read from the connection.
    ///
    /// # Errors
    /// When what was read with the head is no such body.
    pub(super) fn new(
        connection: Box<Connection>,
        framing: Framing,
        after: AfterResponse,
        pool: &Rc<Pool>,
        stall: Duration,
    ) -> Result<Self, FramingError> {
        let mut streaming = StreamingBody {
            connection,
            decoder: Decoder::new(framing),
            first: None,
            fault: None,
            after,
            pool: Rc::clone(pool),
            stall,
            waits_since: None,
        };
        let first = streaming.next()?;
        if streaming.decoder.is_ended() {
            streaming.end();
            return Ok(Self(first.map_or(Content::Ended, Content::Whole)));
        }
        streaming.first = first;
        Ok(Self(Content::Streaming(Box::new(streaming))))
    }

    /// A body that was read to its end.
    #[must_use]
    pub fn whole(data: Bytes) -> Self {
        Self(match data.is_empty() {
            true => Content::Ended,
            false => Content::Whole(data),
        })
    }

    /// The same body with what was read of it before its rest.
    #[must_use]
    pub fn preceded_by(mut self, data: Bytes) -> Self {
        match &mut self.0 {
            Content::Streaming(streaming) => streaming.first = Some(data),
            Content::Ended => self.0 = Content::Whole(data),
            Content::Whole(_) | Content::Broken => {}
        }
        self
    }

    /// Whether the upstream has sent all of it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.0, Content::Ended)
    }
}

impl Body for RelayedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let content = &mut self.0;
        let streaming = match content {
            Content::Streaming(streaming) => streaming,
            Content::Whole(data) => {
                let data = std::mem::take(data);
                *content = Content::Ended;
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Content::Ended | Content::Broken => return Poll::Ready(None),
        };
        let next = ready!(streaming.poll_next(cx));
        if next.is_err() {
            *content = Content::Broken;
        } else if streaming.is_over()
            && let Content::Streaming(streaming) = std::mem::replace(content, Content::Ended)
        {
            streaming.end();
        }
        Poll::Ready(next.transpose().map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Content::Streaming(streaming) => streaming.size_hint(),
            Content::Ended | Content::Broken => SizeHint::with_exact(0),
        }
    }
}

/// What becomes of the connection when the answer was read.
#[derive(Debug)]
pub(super) enum AfterResponse {
    /// It serves another request.
    Kept,
    /// It is closed.
    Closed,
    /// The request was not sent to its end when the answer began; the rest is, unless the upstream
    /// closes.
    Uploading {
        upload: Upload,
        /// Whether the upstream closes after its answer.
        closes: bool,
    },
}

/// A body of which some is still to be read, or to be handed on.
#[derive(Debug)]
struct StreamingBody {
    connection: Box<Connection>,
    decoder: Decoder,
    /// What came with the head.
    first: Option<Bytes>,
    /// What is wrong with the bytes after those that were handed on last.
    fault: Option<FramingError>,
    after: AfterResponse,
    pool: Rc<Pool>,
    /// How long the upstream may send nothing.
    stall: Duration,
    waits_since: Option<Instant>,
}

impl StreamingBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(Some(first)));
        }
        loop {
            if let Some(data) = self.next().map_err(io::Error::other)? {
                return Poll::Ready(Ok(Some(data)));
            }
            if self.decoder.is_ended() {
                return Poll::Ready(Ok(None));
            }
            self.poll_upload(cx)?;
            let left = self.decoder.left();
            match self.connection.poll_read_body(cx, left) {
                Poll::Ready(Ok(0)) => self.decoder.close().map_err(io::Error::other)?,
                Poll::Ready(Ok(_)) => self.waits_since = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let since = *self.waits_since.get_or_insert_with(Instant::now);
                    ready!(self.connection.deadline.poll(cx, self.stall, || since));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    /// The next bytes of the body among those that were read. What follows them is looked at, so
    /// that the last bytes are known to be the last.
    fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let buffer = &mut self.connection.buffer;
        buffer.advance(self.decoder.strip(buffer)?);
        let taken = self.decoder.take(buffer.len());
        if taken == 0 {
            return Ok(None);
        }
        let data = buffer.split_to(taken).freeze();
        match self.decoder.strip(buffer) {
            Ok(stripped) => buffer.advance(stripped),
            Err(fault) => self.fault = Some(fault),
        }
        Ok(Some(data))
    }

    /// The answer breaks when the request's body does: the upstream answers only a part of it.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let AfterResponse::Uploading { upload, closes } = &mut self.after else {
            return Ok(());
        };
        match upload.poll_end(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Err(SendError::Body(given_up))) => return Err(io::Error::other(given_up)),
            Poll::Ready(Err(SendError::Length)) => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // An upstream that takes no more may still answer to the end.
            Poll::Ready(Err(SendError::Broken(_))) => self.after = AfterResponse::Closed,
            Poll::Ready(Ok(())) if *closes => self.after = AfterResponse::Closed,
            Poll::Ready(Ok(())) => self.after = AfterResponse::Kept,
        }
        Ok(())
    }

    /// Whether all of it was handed on.
    fn is_over(&self) -> bool {
        self.decoder.is_ended() && self.first.is_none()
    }

    /// All of the answer was read.
    fn end(self) {
        match self.after {
            // Bytes that nobody asked for would pass for the next answer.
            AfterResponse::Kept if self.connection.buffer.is_empty() => {
                self.pool.keep(self.connection);
            }
            AfterResponse::Uploading {
                upload,
                closes: false,
            } => upload.detach(),
            AfterResponse::Kept | AfterResponse::Closed | AfterResponse::Uploading { .. } => {}
        }
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        match self.decoder.left() {
            // A length near the end of the range cannot be told together with what is there.
            Some(left) if left.checked_add(first).is_some() => SizeHint::with_exact(left + first),
            _ => SizeHint::default(),
        }
    }
}
