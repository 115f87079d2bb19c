//! Receiving a body from the client, within all limits, until its end or an abort.

use std::future::{Future as _, poll_fn};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::{Instant, sleep_until};

use super::{EndDetection, RequestBody};
use crate::body::{BodyAborted, BodyError, BodyFault};
use crate::waker_suppression;

impl RequestBody {
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        match poll_fn(|cx| self.poll_data(cx)).await {
            None => Ok(None),
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(BodyAborted)) => Err(self.fault()),
        }
    }

    /// Why the body was aborted.
    pub(super) fn fault(&self) -> BodyError {
        self.transfer.take_fault().unwrap_or(BodyError::TooSlow)
    }

    /// Polls for the next bytes from the client, within all limits.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyAborted>>> {
        loop {
            let frame = match waker_suppression::poll_frame(&mut self.incoming, cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.transfer.awaits_client();
                    let fault = ready!(self.poll_too_late(cx));
                    return self.abort(fault);
                }
            };
            let now = Instant::now();
            let Some(frame) = frame else {
                self.transfer.arrived(0, now);
                if self.end == EndDetection::EndStream && !self.incoming.is_end_stream() {
                    return self.abort(BodyError::Malformed(BodyFault::Abandoned));
                }
                self.transfer.end();
                return Poll::Ready(None);
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    return self.abort(BodyError::Malformed(BodyFault::Broken(error)));
                }
            };
            // Trailers are dropped: a backend may merge them into the header fields, which were checked.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let received = self.transfer.arrived(data.len() as u64, now);
            self.waiting = None;
            self.rate.progress(data.len() as u64, now);
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                return self.abort(BodyError::RequestTooLong);
            }
            if received > self.limit {
                let limit = self.limit;
                return self.abort(BodyError::TooLarge { limit });
            }
            if let Some(counted) = &mut self.counted
                && counted.grow_to(received).is_err()
            {
                let limit = counted.limit();
                return self.abort(BodyError::OverQuota { limit });
            }
            if self.incoming.is_end_stream() {
                self.transfer.end();
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    /// Ready once the client is too late.
    fn poll_too_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let begins = self.rate.deadline().is_none();
        let too_slow = self.rate.wait(0, Instant::now());
        if begins && self.end == EndDetection::Framing {
            // hyper passes on what has arrived of an HTTP/1 body only after the first poll. The timer starts
            // if nothing is there at the second one, which follows immediately.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let until = self.deadline.map_or(too_slow, |end| end.min(too_slow));
        let sleep = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        sleep.as_mut().poll(cx).map(|()| match until < too_slow {
            true => BodyError::RequestTooLong,
            false => BodyError::TooSlow,
        })
    }

    pub(super) fn abort<T>(&self, fault: BodyError) -> Poll<Option<Result<T, BodyAborted>>> {
        self.transfer.abort(fault);
        Poll::Ready(Some(Err(BodyAborted)))
    }
}
