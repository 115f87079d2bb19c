//! One request over one connection, up to the head of its answer. Driven by the task that waits for
//! it, and by nothing else.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::connection::{Connection, HeadError, HeadProgress};
use super::error::{Delivery, UpstreamBreak, UpstreamError};
use super::sending::{SendError, Sending};
use crate::body::{BodyError, BodyFault, Transfer};
use crate::message::response_head::ResponseHead;

/// What an exchange knows of its request.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) method: &'a Method,
    pub(super) transfer: &'a Transfer,
    /// When the connection was opened, if for this request.
    pub(super) connected: Option<Instant>,
    /// How long the upstream may take to begin its answer.
    pub(super) timeout: Duration,
}

/// How much of the request was sent when the answer's head was there.
#[derive(Debug)]
pub(super) enum Sent {
    Whole,
    Partly,
    /// The upstream takes no more of it.
    Broken,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Not one byte of the request was written.
    NotWritten(UpstreamBreak),
    Refused(UpstreamError),
}

impl Exchange<'_> {
    /// Sends the request and reads the answer's head, whichever comes first.
    pub(super) async fn run(
        &self,
        connection: &mut Connection,
        sending: &mut Sending,
    ) -> Result<(ResponseHead, Sent), Failure> {
        let mut progress = Progress::default();
        sending.begin_on(&mut connection.stream);
        poll_fn(|cx| self.poll(cx, connection, sending, &mut progress)).await
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        sending: &mut Sending,
        progress: &mut Progress,
    ) -> Poll<Result<(ResponseHead, Sent), Failure>> {
        if let Sent::Partly = progress.sent {
            match sending.poll(cx, &mut connection.stream) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => progress.sent = Sent::Whole,
                Poll::Ready(Err(SendError::Body(_))) => {
                    let fault = self.transfer.take_fault();
                    let fault = fault.unwrap_or(BodyError::TooSlow);
                    return Poll::Ready(Err(Failure::Refused(UpstreamError::Body(fault))));
                }
                Poll::Ready(Err(SendError::Length)) => {
                    let fault = BodyError::Malformed(BodyFault::Length);
                    return Poll::Ready(Err(Failure::Refused(UpstreamError::Body(fault))));
                }
                Poll::Ready(Err(SendError::Broken(cause)))
                    if !sending.has_begun(&mut connection.stream) =>
                {
                    return Poll::Ready(Err(Failure::NotWritten(cause)));
                }
                // It may have answered before it closed.
                Poll::Ready(Err(SendError::Broken(cause))) => {
                    progress.sent = Sent::Broken;
                    progress.broken = Some((cause, Instant::now()));
                }
            }
        }
        // Nothing can be an answer before there was a question.
        if sending.has_begun(&mut connection.stream)
            && let Poll::Ready(head) = connection.poll_head(cx, self.method, &mut progress.head)
        {
            return Poll::Ready(match head {
                Ok(_) if !sending.has_sent_head() => Err(Failure::Refused(
                    UpstreamError::Malformed("it came before the request's head was sent"),
                )),
                Ok(head) => Ok((head, std::mem::replace(&mut progress.sent, Sent::Broken))),
                Err(HeadError::Malformed(reason)) => {
                    Err(Failure::Refused(UpstreamError::Malformed(reason)))
                }
                Err(HeadError::Broken(cause)) => {
                    let first = progress.broken.take().map_or(cause, |(first, _)| first);
                    Err(Failure::Refused(UpstreamError::Broke(
                        first,
                        Delivery::Unknown,
                    )))
                }
            });
        }
        let since = || match (&progress.broken, self.connected) {
            (Some((_, at)), _) => *at,
            // A client that still has to send is judged by its rate, not the upstream.
            (None, None) => self.transfer.upstreams_turn_since(),
            (None, Some(at)) => self.transfer.upstreams_turn_since().max(at),
        };
        let waited = connection.deadline.poll(cx, self.timeout, since);
        waited.map(|()| Err(Failure::Refused(UpstreamError::Timeout)))
    }
}

#[derive(Debug)]
struct Progress {
    sent: Sent,
    /// Why the upstream takes no more, and since when.
    broken: Option<(UpstreamBreak, Instant)>,
    head: HeadProgress,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            sent: Sent::Partly,
            broken: None,
            head: HeadProgress::default(),
        }
    }
}
