//! A client's request body on its way: counted, bounded, held to a minimum rate, trailers dropped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::form_watch::FormWatch;
use crate::access::form::FormLimits;
use crate::access::rights::Mode;
use crate::limits::Limits;
use crate::refusal::Refusal;
use crate::traffic::BodyInFlight;
use crate::wake;

/// What is known of a request body while it moves; shared by the body, which may outlive the answer,
/// and the request it belongs to.
#[derive(Debug)]
pub struct Transfer {
    received: Cell<u64>,
    ended: Cell<bool>,
    /// Whether the next piece is the client's to send: the upstream has taken all before it.
    awaited: Cell<bool>,
    last: Cell<Instant>,
    fault: RefCell<Option<Refusal>>,
    would_refuse: Cell<Option<&'static str>>,
}

impl Transfer {
    fn new(now: Instant) -> Self {
        Self {
            received: Cell::new(0),
            ended: Cell::new(false),
            awaited: Cell::new(false),
            last: Cell::new(now),
            fault: RefCell::new(None),
            would_refuse: Cell::new(None),
        }
    }

    /// Bytes of the body that arrived.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Whether the whole body arrived.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// From when on the upstream has had nothing to wait for: now, while the client has yet to
    /// send what comes next, else when the body last moved.
    #[must_use]
    pub fn upstreams_turn_since(&self) -> Instant {
        if self.awaited.get() {
            Instant::now()
        } else {
            self.last.get()
        }
    }

    /// What the body would have been given up for, were the user's rights enforced.
    #[must_use]
    pub fn would_refuse(&self) -> Option<&'static str> {
        self.would_refuse.get()
    }

    /// Why the body was given up, if it was; told once.
    #[must_use]
    pub fn take_fault(&self) -> Option<Refusal> {
        self.fault.borrow_mut().take()
    }
}

/// The request body as the gateway lets it through.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    transfer: Rc<Transfer>,
    limit: u64,
    allowance: Allowance,
    /// Once it is known whose it is.
    counted: Option<BodyInFlight>,
    /// Only where a right depends on the body.
    form: Option<Box<FormWatch>>,
}

impl RequestBody {
    /// The body of a request that arrived `now`, with no bound on its length yet.
    #[must_use]
    pub fn new(incoming: Incoming, limits: &Limits, now: Instant) -> Self {
        let transfer = Transfer::new(now);
        transfer.ended.set(incoming.is_end_stream());
        Self {
            incoming,
            transfer: Rc::new(transfer),
            limit: u64::MAX,
            allowance: Allowance::new(limits),
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
    pub fn limit_to(&mut self, limit: u64) -> Result<(), Refusal> {
        if self.incoming.size_hint().lower() > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        self.limit = limit;
        Ok(())
    }

    /// Counts the body among those of its user until it is sent: by its length where that was
    /// announced, else by what has arrived of it.
    ///
    /// # Errors
    /// At once when the client has announced more than there is room for; later the body is given up.
    pub fn count_in(&mut self, mut counted: BodyInFlight) -> Result<(), Refusal> {
        if !self.incoming.is_end_stream() {
            let announced = self.incoming.size_hint().lower();
            let limit = counted.most();
            (counted.grow_to(announced)).map_err(|_| Refusal::TooMuchAtOnce { limit })?;
            self.counted = Some(counted);
        }
        Ok(())
    }

    /// The whole body; for one that was limited to a small size.
    ///
    /// # Errors
    /// When the body breaks off, is too long or too slow.
    pub async fn collect(mut self) -> Result<BytesMut, Refusal> {
        let mut whole = BytesMut::new();
        while let Some(data) = self.next_chunk().await? {
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }

    /// Reads and forgets a body that nobody wants, so that the connection can carry the next
    /// request. Stops early when it is longer than `limit` bytes, broken or too slow; the transfer
    /// tells whether it ended.
    pub async fn discard(mut self, limit: u64) {
        if self.limit_to(limit).is_ok() {
            while let Ok(Some(_)) = self.next_chunk().await {}
        }
    }

    /// Reads as far as the root object's `form` and holds back what was read. From then on the
    /// body is watched to its end, and its last part held back until the whole of it held; what is
    /// found wrong with it only then ends it, or is noted where `mode` is to report.
    ///
    /// # Errors
    /// When the body is refused, breaks off, or does not hold a form early enough. The body can
    /// still be sent then, unwatched, with what was held back first.
    pub async fn read_form(&mut self, limits: FormLimits, mode: Mode) -> Result<String, Refusal> {
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

    async fn find_form(&mut self, watch: &mut FormWatch) -> Result<String, Refusal> {
        loop {
            match self.next_chunk().await? {
                Some(data) => watch.take(data).map_err(Refusal::FormRefused)?,
                None => watch.finish().map_err(Refusal::FormRefused)?,
            }
            if self.incoming.is_end_stream() {
                watch.finish().map_err(Refusal::FormRefused)?;
            }
            if let Some(form) = watch.form() {
                return Ok(form.to_owned());
            }
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        match poll_fn(|cx| self.poll_data(cx)).await {
            None => Ok(None),
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(BodyGivenUp)) => {
                Err(self.transfer.take_fault().unwrap_or(Refusal::BodyTooSlow))
            }
        }
    }

    /// The next bytes from the client, within all bounds.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyGivenUp>>> {
        loop {
            let frame = match wake::poll_frame(&mut self.incoming, cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.transfer.awaited.set(true);
                    ready!(self.allowance.poll_exhausted(cx));
                    return self.give_up(Refusal::BodyTooSlow);
                }
            };
            self.transfer.awaited.set(false);
            let Some(frame) = frame else {
                self.transfer.ended.set(true);
                self.transfer.last.set(Instant::now());
                return Poll::Ready(None);
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return self.give_up(Refusal::MalformedBody(error)),
            };
            // Trailers are dropped: a backend may merge them into the headers that were checked.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let received = self.transfer.received.get() + data.len() as u64;
            self.transfer.received.set(received);
            let now = Instant::now();
            self.transfer.last.set(now);
            self.allowance.earn(data.len() as u64, now);
            if received > self.limit {
                let limit = self.limit;
                return self.give_up(Refusal::BodyTooLarge { limit });
            }
            if let Some(counted) = &mut self.counted
                && counted.grow_to(received).is_err()
            {
                let limit = counted.most();
                return self.give_up(Refusal::TooMuchAtOnce { limit });
            }
            if self.incoming.is_end_stream() {
                self.transfer.ended.set(true);
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    fn give_up<T>(&self, fault: Refusal) -> Poll<Option<Result<T, BodyGivenUp>>> {
        *self.transfer.fault.borrow_mut() = Some(fault);
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
                let refusal = Refusal::FormRefused(violation);
                match watch.mode() {
                    Mode::Enforce => return this.give_up(refusal),
                    Mode::Report => this.transfer.would_refuse.set(Some(refusal.code())),
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

/// The body was given up for a reason that its [`Transfer`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyGivenUp;

impl fmt::Display for BodyGivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body was given up")
    }
}

impl std::error::Error for BodyGivenUp {}

/// Time that a client may still take: waiting for it uses the time up, each byte earns some back,
/// never more than the grace. Only waiting for the client counts, not a busy upstream, and a client
/// that always has the next bytes ready costs no timer.
#[derive(Debug)]
struct Allowance {
    grace: Duration,
    bytes_per_second: u64,
    left: Duration,
    waiting: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Allowance {
    fn new(limits: &Limits) -> Self {
        Self {
            grace: limits.body_grace,
            bytes_per_second: limits.body_min_rate.as_u64(),
            left: limits.body_grace,
            waiting: None,
        }
    }

    fn poll_exhausted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.left;
        let wait = self.waiting.get_or_insert_with(|| {
            let since = Instant::now();
            Wait {
                since,
                sleep: Box::pin(sleep_until(since + left)),
            }
        });
        wait.sleep.as_mut().poll(cx)
    }

    fn earn(&mut self, bytes: u64, now: Instant) {
        let Some(wait) = self.waiting.take() else {
            return;
        };
        let earned = Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_second);
        let used = now.saturating_duration_since(wait.since);
        self.left = self
            .left
            .saturating_sub(used)
            .saturating_add(earned)
            .min(self.grace);
    }
}
