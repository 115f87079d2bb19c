//! The upstream's response body on its way to the client.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Sleep, sleep};

use super::body::{RequestBody, Transfer};
use super::pool::Pool;
use crate::wake;

/// A response body that gives its connection back to the pool when both directions are complete,
/// and ends it otherwise.
#[derive(Debug)]
pub struct RelayedBody {
    incoming: Incoming,
    exchange: Option<Exchange>,
    stall: Duration,
    /// Runs only while the upstream is waited for.
    waiting: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

#[derive(Debug)]
struct Exchange {
    sender: SendRequest<RequestBody>,
    transfer: Rc<Transfer>,
    pool: Rc<Pool>,
}

impl RelayedBody {
    pub(super) fn new(
        incoming: Incoming,
        sender: SendRequest<RequestBody>,
        transfer: Rc<Transfer>,
        pool: Rc<Pool>,
        stall: Duration,
    ) -> Self {
        let ended = incoming.is_end_stream();
        let exchange = Some(Exchange {
            sender,
            transfer,
            pool,
        });
        Self {
            incoming,
            exchange,
            stall,
            waiting: None,
            ended,
        }
    }

    /// Whether the upstream has sent all of it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended
    }
}

impl Body for RelayedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match wake::poll_frame(&mut self.incoming, cx) {
                Poll::Ready(None) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting = None;
                    // Trailers are hop-by-hop for a client that did not ask for them.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    self.ended = self.incoming.is_end_stream();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.exchange = None;
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
                Poll::Pending => {
                    let stall = self.stall;
                    let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(stall)));
                    if waiting.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.exchange = None;
                    let error = io::Error::from(io::ErrorKind::TimedOut);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RelayedBody {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take()
            && self.ended
            && exchange.transfer.is_ended()
        {
            exchange.pool.keep(exchange.sender);
        }
    }
}
