//! A client's request body: counted, bounded, held to a minimum rate, without trailers.

mod form;
mod guarded;
mod receiving;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::form_inspector::FormInspector;
use super::withheld::WithheldBody;
use crate::body::{BodyAborted, BodyError, BodyFault, BodyState, MinRate, Transfer};
use crate::limits::Limits;
use crate::traffic::BodyInFlight;

/// A request body, as the gateway reads it.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    end: EndDetection,
    transfer: Rc<Transfer>,
    limit: u64,
    rate: MinRate,
    /// The deadline of the whole request, if any.
    deadline: Option<Instant>,
    /// The timer while waiting for the client.
    waiting: Option<Pin<Box<Sleep>>>,
    /// How much of an unwanted body is read.
    discarded: u64,
    /// Set once the user is known.
    counted: Option<BodyInFlight>,
    /// Set if a right depends on the body.
    form: Option<Box<FormInspector>>,
    /// Set if the route is guarded against repeated requests.
    withheld: Option<Box<WithheldBody>>,
}

/// How the end of a body is told from an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndDetection {
    /// HTTP/1: hyper reports an incomplete body as an error.
    Framing,
    /// HTTP/2: there must be an END_STREAM flag. hyper treats RST_STREAM with NO_ERROR as an end, but only
    /// servers may use that (RFC 9113 section 8.1).
    EndStream,
}

impl RequestBody {
    /// The body of a request that arrived `now`, not yet limited in length.
    #[must_use]
    pub fn new(incoming: Incoming, version: Version, limits: &Limits, now: Instant) -> Self {
        let state = match incoming.is_end_stream() {
            true => BodyState::Ended,
            false => BodyState::Arriving,
        };
        Self {
            incoming,
            end: match version < Version::HTTP_2 {
                true => EndDetection::Framing,
                false => EndDetection::EndStream,
            },
            transfer: Rc::new(Transfer::new(state, now)),
            limit: u64::MAX,
            rate: MinRate::new(limits.body_min_rate.as_u64(), limits.body_grace),
            deadline: (!limits.request.is_zero()).then(|| now + limits.request),
            waiting: None,
            discarded: limits.refused_body.as_u64(),
            counted: None,
            form: None,
            withheld: None,
        }
    }

    /// The state of the transfer.
    #[must_use]
    pub fn transfer(&self) -> &Rc<Transfer> {
        &self.transfer
    }

    /// Limits the body to `limit` bytes.
    ///
    /// # Errors
    /// If the client has announced more.
    pub fn limit_to(&mut self, limit: u64) -> Result<(), BodyError> {
        if self.incoming.size_hint().lower() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        self.limit = limit;
        Ok(())
    }

    /// Requires the whole body within the grace, however steadily the client sends: for short bodies.
    pub fn must_arrive_within_grace(&mut self) {
        self.rate.stop_replenishing();
    }

    /// Charges the body to its user's quota until it is sent: its announced length, or otherwise what has
    /// arrived.
    ///
    /// # Errors
    /// If the announced length exceeds the quota. If it is exceeded later, the body is aborted.
    pub fn charge(&mut self, mut counted: BodyInFlight) -> Result<(), BodyError> {
        if !self.incoming.is_end_stream() {
            let announced = self.incoming.size_hint().lower();
            let limit = counted.limit();
            (counted.grow_to(announced)).map_err(|_| BodyError::OverQuota { limit })?;
            self.counted = Some(counted);
        }
        Ok(())
    }

    /// Reads the whole body, which must be limited to a small size.
    ///
    /// # Errors
    /// If the body is incomplete, too long or too slow.
    pub async fn collect(mut self) -> Result<BytesMut, BodyError> {
        let mut whole = BytesMut::new();
        while let Some(data) = self.next_chunk().await? {
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }

    /// Discards an unwanted body, so that the connection can be reused. Stops early if it is longer than
    /// `limits.refused_body`, malformed or too slow; the transfer tells whether it ended.
    pub async fn discard(mut self) {
        if self.limit_to(self.discarded).is_ok() {
            while let Ok(Some(_)) = self.next_chunk().await {}
        }
    }

    /// Reads the end of a body that is not forwarded: a request without a body is complete once its head is
    /// sent, so the client must have completed it before.
    ///
    /// # Errors
    /// If the body is incomplete, too slow, longer than `limits.refused_body`, or not empty although its
    /// announced length is zero.
    pub async fn read_to_end(&mut self) -> Result<(), BodyError> {
        let limit = match self.size_hint().exact() {
            Some(0) => 0,
            Some(_) | None => self.discarded,
        };
        let mut length = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
            let data = frame.map_err(|BodyAborted| self.fault())?.into_data();
            length += data.map_or(0, |data| data.len() as u64);
            if length > 0 && limit == 0 {
                return Err(BodyError::Malformed(BodyFault::Length));
            }
            if length > limit {
                return Err(BodyError::TooLarge { limit });
            }
        }
        Ok(())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyAborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyAborted>>> {
        match self.withheld {
            None => self.poll_inspected(cx),
            Some(_) => self.poll_withheld(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.withheld {
            None => self.has_ended(),
            Some(withheld) => withheld.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.incoming.size_hint();
        let inspected = self.form.as_ref().map_or(0, |inspector| inspector.held());
        let withheld = self.withheld.as_ref().map_or(0, |withheld| withheld.held());
        let held = inspected + withheld;
        match hint.exact() {
            Some(exact) => hint.set_exact(exact + held),
            None => hint.set_lower(hint.lower() + held),
        }
        hint
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.transfer.release();
    }
}
