//! A client's request body on its way: counted, bounded, held to a minimum rate, trailers dropped.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use super::form_watch::FormWatch;
use crate::body::{BodyState, MinRate, Transfer};
use crate::limits::Limits;
use crate::policy::form::{FormLimits, FormViolation};
use crate::policy::rights::Mode;
use crate::traffic::BodyInFlight;
use crate::waker_suppression;

/// The request body as the gateway lets it through.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    end: EndMark,
    transfer: Rc<Transfer>,
    limit: u64,
    rate: MinRate,
    /// When the whole request is given up, if ever.
    deadline: Option<Instant>,
    /// While the client is waited for.
    waiting: Option<Pin<Box<Sleep>>>,
    /// How much of a body that nobody wants is read.
    discarded: u64,
    /// Once it is known whose it is.
    counted: Option<BodyInFlight>,
    /// Only where a right depends on the body.
    form: Option<Box<FormWatch>>,
}

/// How a body that ends is told from one that merely stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndMark {
    /// HTTP/1: hyper reports whatever breaks off as an error.
    Framing,
    /// HTTP/2: the stream must have carried END_STREAM. hyper takes RST_STREAM with NO_ERROR for an
    /// end, which a server may send (RFC 9113 section 8.1), and nobody else.
    EndStream,
}

impl RequestBody {
    /// The body of a request of this version that arrived `now`, with no bound on its length yet.
    #[must_use]
    pub fn new(incoming: Incoming, version: Version, limits: &Limits, now: Instant) -> Self {
        let state = match incoming.is_end_stream() {
            true => BodyState::Ended,
            false => BodyState::Arriving,
        };
        Self {
            incoming,
            end: match version < Version::HTTP_2 {
                true => EndMark::Framing,
                false => EndMark::EndStream,
            },
            transfer: Rc::new(Transfer::new(state, now)),
            limit: u64::MAX,
            rate: MinRate::new(limits.body_min_rate.as_u64(), limits.body_grace),
            deadline: (!limits.request.is_zero()).then(|| now + limits.request),
            waiting: None,
            discarded: limits.refused_body.as_u64(),
            counted: None,
            form: None,
        }
    }

    /// What is known of the transfer.
    #[must_use]
    pub fn transfer(&self) -> &Rc<Transfer> {
        &self.transfer
    }

    /// Bounds the body to `limit` bytes.
    ///
    /// # Errors
    /// At once when the client has announced more.
    pub fn limit_to(&mut self, limit: u64) -> Result<(), BodyError> {
        if self.incoming.size_hint().lower() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        self.limit = limit;
        Ok(())
    }

    /// Lets the client take no longer than the grace for all of it, however steadily it sends: for a
    /// body that is short.
    pub fn must_arrive_within_grace(&mut self) {
        self.rate.earn_nothing();
    }

    /// Counts the body among those of its user until it is sent: by its length where that was
    /// announced, else by what has arrived of it.
    ///
    /// # Errors
    /// At once when the client has announced more than there is room for; later the body is given up.
    pub fn count_in(&mut self, mut counted: BodyInFlight) -> Result<(), BodyError> {
        if !self.incoming.is_end_stream() {
            let announced = self.incoming.size_hint().lower();
            let limit = counted.limit();
            (counted.grow_to(announced)).map_err(|_| BodyError::OverQuota { limit })?;
            self.counted = Some(counted);
        }
        Ok(())
    }

    /// The whole body; for one that was limited to a small size.
    ///
    /// # Errors
    /// When the body breaks off, is too long or too slow.
    pub async fn collect(mut self) -> Result<BytesMut, BodyError> {
        let mut whole = BytesMut::new();
        while let Some(data) = self.next_chunk().await? {
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }

    /// Reads and forgets a body that nobody wants, so that the connection can carry the next
    /// request. Stops early when it is longer than `limits.refused_body`, broken or too slow; the
    /// transfer tells whether it ended.
    pub async fn discard(mut self) {
        if self.limit_to(self.discarded).is_ok() {
            while let Ok(Some(_)) = self.next_chunk().await {}
        }
    }

    /// Reads a body to its end of which the upstream is told nothing: a request without a body is
    /// whole as soon as its head is sent, so the client must have ended it before.
    ///
    /// # Errors
    /// When the body breaks off, is too slow, longer than `limits.refused_body`, or there although
    /// its announced length is zero.
    pub async fn read_out(&mut self) -> Result<(), BodyError> {
        let limit = match self.size_hint().exact() {
            Some(0) => 0,
            Some(_) | None => self.discarded,
        };
        let mut length = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
            let data = frame.map_err(|BodyGivenUp| self.fault())?.into_data();
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

    /// Reads as far as the root object's `form` and holds back what was read. From then on the
    /// body is watched to its end, and its last part held back until the whole of it held; what is
    /// found wrong with it only then ends it, or is noted where `mode` is to report.
    ///
    /// # Errors
    /// When the body is refused, breaks off, or does not hold a form early enough. The body can
    /// still be sent then, unwatched, with what was held back first.
    pub async fn read_form(&mut self, limits: FormLimits, mode: Mode) -> Result<String, BodyError> {
        let form = self.form.insert(Box::new(FormWatch::new(limits, mode)));
        // Apart from `self`, so that reading can go on while it is filled.
        let mut watch = std::mem::replace(form, Box::new(FormWatch::unwatched()));
        let found = self.find_form(&mut watch).await;
        if found.is_err() {
            watch.stop_watching();
        }
        self.form = Some(watch);
        found
    }

    async fn find_form(&mut self, watch: &mut FormWatch) -> Result<String, BodyError> {
        loop {
            match self.next_chunk().await? {
                Some(data) => watch.take(data).map_err(BodyError::Form)?,
                None => watch.finish().map_err(BodyError::Form)?,
            }
            if self.incoming.is_end_stream() {
                watch.finish().map_err(BodyError::Form)?;
            }
            if let Some(form) = watch.form() {
                return Ok(form.to_owned());
            }
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        match poll_fn(|cx| self.poll_data(cx)).await {
            None => Ok(None),
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(BodyGivenUp)) => Err(self.fault()),
        }
    }

    /// What the body was given up for.
    fn fault(&self) -> BodyError {
        self.transfer.take_fault().unwrap_or(BodyError::TooSlow)
    }

    /// The next bytes from the client, within all bounds.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyGivenUp>>> {
        loop {
            let frame = match waker_suppression::poll_frame(&mut self.incoming, cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.transfer.awaits_client();
                    let fault = ready!(self.poll_too_late(cx));
                    return self.give_up(fault);
                }
            };
            let now = Instant::now();
            let Some(frame) = frame else {
                self.transfer.arrived(0, now);
                if self.end == EndMark::EndStream && !self.incoming.is_end_stream() {
                    return self.give_up(BodyError::Malformed(BodyFault::Abandoned));
                }
                self.transfer.end();
                return Poll::Ready(None);
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    return self.give_up(BodyError::Malformed(BodyFault::Broken(error)));
                }
            };
            // Trailers are dropped: a backend may merge them into the headers that were checked.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let received = self.transfer.arrived(data.len() as u64, now);
            self.waiting = None;
            self.rate.progress(data.len() as u64, now);
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                return self.give_up(BodyError::RequestTooLong);
            }
            if received > self.limit {
                let limit = self.limit;
                return self.give_up(BodyError::TooLarge { limit });
            }
            if let Some(counted) = &mut self.counted
                && counted.grow_to(received).is_err()
            {
                let limit = counted.limit();
                return self.give_up(BodyError::OverQuota { limit });
            }
            if self.incoming.is_end_stream() {
                self.transfer.end();
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    /// Ready when the client has been waited for too long.
    fn poll_too_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let begins = self.rate.deadline().is_none();
        let too_slow = self.rate.wait(0, Instant::now());
        if begins && self.end == EndMark::Framing {
            // hyper hands on what has arrived of an HTTP/1 body only once it was asked for any: the timer
            // is for what is not there at the second look, which follows at once.
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

    fn give_up<T>(&self, fault: BodyError) -> Poll<Option<Result<T, BodyGivenUp>>> {
        self.transfer.give_up(fault);
        Poll::Ready(Some(Err(BodyGivenUp)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyGivenUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyGivenUp>>> {
        let this = &mut *self;
        loop {
            if let Some(watch) = &mut this.form {
                if let Some(data) = watch.release() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                if watch.is_finished() {
                    return Poll::Ready(None);
                }
            }
            let data = match ready!(this.poll_data(cx)) {
                Some(Ok(data)) => Some(data),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            let Some(watch) = &mut this.form else {
                return Poll::Ready(data.map(|data| Ok(Frame::data(data))));
            };
            let ended = data.is_none() || this.incoming.is_end_stream();
            let mut held = data.map_or(Ok(()), |data| watch.take(data));
            if ended {
                held = held.and_then(|()| watch.finish());
            }
            if let Err(violation) = held {
                match watch.mode() {
                    Mode::Enforce => return this.give_up(BodyError::Form(violation)),
                    Mode::Report => this.transfer.report(violation),
                }
                watch.stop_watching();
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.form {
            None => self.incoming.is_end_stream(),
            Some(watch) => watch.is_finished() && watch.held() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.incoming.size_hint();
        if let Some(watch) = &self.form {
            let held = watch.held();
            match hint.exact() {
                Some(exact) => hint.set_exact(exact + held),
                None => hint.set_lower(hint.lower() + held),
            }
        }
        hint
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.transfer.release();
    }
}

/// Why the rest of a body is not read.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It broke off or its framing was wrong.
    #[error("the client's body is malformed or was cut off")]
    Malformed(#[source] BodyFault),
    /// It is longer than allowed.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It comes below the minimum rate.
    #[error("the client was too slow to send its body")]
    TooSlow,
    /// The request as a whole took too long.
    #[error("the request took longer than it may")]
    RequestTooLong,
    /// Its user's bodies are as large as they may be, all together.
    #[error("{limit} bytes of the user's bodies may be in flight")]
    OverQuota {
        /// How many bytes may be.
        limit: u64,
    },
    /// A right depends on its form, which cannot be read beyond doubt.
    #[error("the body is refused: {0}")]
    Form(FormViolation),
}

/// Why a body is malformed.
#[derive(Debug, Error)]
pub enum BodyFault {
    /// Its framing is wrong, or it broke off.
    #[error(transparent)]
    Broken(hyper::Error),
    /// The client stopped sending it without ending it.
    #[error("the client gave it up")]
    Abandoned,
    /// It has another length than was announced, or one that nothing announced.
    #[error("its length differs from Content-Length")]
    Length,
}

/// The body was given up for a reason that its [`Transfer`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyGivenUp;

impl fmt::Display for BodyGivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body was given up")
    }
}

impl std::error::Error for BodyGivenUp {}
