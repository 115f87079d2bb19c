//! The one body type of every answer, and the request that it answers: when that is over.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::{MinRate, Transfer};
use crate::connection::{AnsweredRequest, ClientConnection};
use crate::gateway::record::{AccessLog, AccessRecord};
use crate::gateway::refusal::Refusal;
use crate::limits::Limits;
use crate::traffic::InFlight;
use crate::upstream::RelayedBody;

/// The body of an answer.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    /// What is left of a part of which the connection has a chunk: over HTTP/2 only.
    rest: Bytes,
    /// How long the part is that the connection has, until it is back for the next one.
    offered: Option<u64>,
    /// When a relayed answer is given up, if ever.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How slowly an HTTP/2 client may take it; over HTTP/1 that is measured where it is written.
    rate: Option<MinRate>,
    /// Until it is dropped.
    request: Option<Box<ActiveRequest>>,
}

#[derive(Debug)]
enum Content {
    Own(Option<Bytes>),
    Relayed(RelayedBody),
}

impl ResponseBody {
    /// The body of an answer of the gateway's own.
    #[must_use]
    pub fn own(bytes: Bytes, limits: &Limits, request: Box<ActiveRequest>) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self::new(Content::Own(bytes), limits, None, request)
    }

    /// The upstream's body, broken off at the deadline.
    #[must_use]
    pub fn relayed(
        body: RelayedBody,
        limits: &Limits,
        deadline: Option<Pin<Box<Sleep>>>,
        request: Box<ActiveRequest>,
    ) -> Self {
        Self::new(Content::Relayed(body), limits, deadline, request)
    }

    fn new(
        content: Content,
        limits: &Limits,
        deadline: Option<Pin<Box<Sleep>>>,
        request: Box<ActiveRequest>,
    ) -> Self {
        Self {
            content,
            rest: Bytes::new(),
            offered: None,
            deadline,
            rate: (request.record.version >= Version::HTTP_2)
                .then(|| MinRate::of_responses(limits)),
            request: Some(request),
        }
    }

    /// The next part. Over HTTP/2 it is a chunk of at most [`CHUNK_SIZE`], in memory of its own: h2 keeps
    /// all of what it was given once the client has made room for one byte of it, also after the
    /// request is over.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let part = match self.rest.is_empty() {
            true => match ready!(self.content.poll_part(cx)) {
                Some(Ok(part)) => part,
                end @ (Some(Err(_)) | None) => return Poll::Ready(end),
            },
            false => std::mem::take(&mut self.rest),
        };
        if self.rate.is_none() {
            return Poll::Ready(Some(Ok(part)));
        }
        let mut chunk = part;
        if chunk.len() > CHUNK_SIZE {
            self.rest = chunk.split_off(CHUNK_SIZE);
        }
        Poll::Ready(Some(Ok(match &self.content {
            Content::Own(_) => chunk,
            Content::Relayed(_) => Bytes::copy_from_slice(&chunk),
        })))
    }

    /// The connection was given a part. Over HTTP/2 it keeps that until the client makes room for it,
    /// however little is missing to the end of the answer.
    fn offer(&mut self, length: u64) {
        let Some(request) = &mut self.request else {
            return;
        };
        request.record.bytes_out += length;
        if let Some(rate) = &mut self.rate {
            let due = rate.wait(length, Instant::now());
            let ends = self.deadline.as_ref().map(|deadline| deadline.deadline());
            let due = ends.map_or(due, |ends| ends.min(due));
            request.transfer.set_response_due(Some(due));
        }
        self.offered = Some(length);
        request.client.chunk_offered();
    }

    fn offer_taken(&mut self) {
        let (Some(length), Some(request)) = (self.offered.take(), &self.request) else {
            return;
        };
        request.client.chunk_taken();
        if let Some(rate) = &mut self.rate {
            rate.progress(length, Instant::now());
            request.transfer.set_response_due(None);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        this.offer_taken();
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            if let Some(request) = &mut this.request {
                request.record.reason = Some(Refusal::RequestTooLong.code());
            }
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let part = ready!(this.poll_part(cx));
        if let Some(Ok(data)) = &part {
            this.offer(data.len() as u64);
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.content {
                Content::Own(bytes) => bytes.is_none(),
                Content::Relayed(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        match &self.content {
            Content::Own(bytes) => {
                SizeHint::with_exact(rest + bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Relayed(body) => match body.size_hint().exact() {
                Some(length) if length.checked_add(rest).is_some() => {
                    SizeHint::with_exact(length + rest)
                }
                Some(_) | None => SizeHint::default(),
            },
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.offer_taken();
        if let Some(mut request) = self.request.take() {
            let given_up = request.transfer.is_response_too_slow();
            request.record.complete = !given_up
                && self.rest.is_empty()
                && match &self.content {
                    Content::Own(bytes) => bytes.is_none(),
                    Content::Relayed(body) => body.is_complete(),
                };
            let ends = self.deadline.as_ref().map(|deadline| deadline.deadline());
            if given_up && ends.is_some_and(|ends| ends <= Instant::now()) {
                request.record.reason = Some(Refusal::RequestTooLong.code());
            }
            request.answer_given();
        }
    }
}

impl Content {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let frame = match self {
            Self::Own(bytes) => return Poll::Ready(bytes.take().map(Ok)),
            Self::Relayed(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        // Trailers of the upstream's are not handed on by its body.
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
    }
}

/// The most of an answer that is given to an HTTP/2 connection at once, in bytes: the largest frame
/// that a client takes unless it says otherwise (RFC 9113, section 6.5.2).
const CHUNK_SIZE: usize = 16 * 1024;

/// A request from the moment when its head is complete until it is over: its answer was given away
/// (over HTTP/1: flushed) and nobody holds its body any more, whichever comes last, or its client was
/// gone before. Then it is dropped, which writes its record and frees what it counted in.
#[derive(Debug)]
pub struct ActiveRequest {
    /// What will be written.
    pub record: AccessRecord,
    /// Counts the request for its user, from when that one is known.
    pub in_flight: Option<InFlight>,
    transfer: Rc<Transfer>,
    client: Rc<ClientConnection>,
    log: Rc<AccessLog>,
}

impl ActiveRequest {
    /// A request whose head has just arrived.
    #[must_use]
    pub fn begin(
        log: Rc<AccessLog>,
        client: Rc<ClientConnection>,
        transfer: Rc<Transfer>,
        record: AccessRecord,
    ) -> Box<Self> {
        client.request_begins(&transfer);
        Box::new(Self {
            record,
            in_flight: None,
            transfer,
            client,
            log,
        })
    }

    /// What is known of the request's body.
    #[must_use]
    pub fn transfer(&self) -> &Rc<Transfer> {
        &self.transfer
    }

    /// Notes the answer's status, and whether it is the upstream's answer.
    pub fn answered(&mut self, status: StatusCode, relayed: bool) {
        let record = &mut self.record;
        record.status = Some(status);
        record.relayed = relayed;
        let started = record.started;
        record.own.get_or_insert_with(|| started.elapsed());
    }

    /// All of the answer was given to the connection, or given up.
    fn answer_given(self: Box<Self>) {
        let (client, transfer) = (Rc::clone(&self.client), Rc::clone(&self.transfer));
        client.answer_given(&transfer, self);
    }
}

impl AnsweredRequest for ActiveRequest {
    fn flushed(self: Box<Self>) {
        let transfer = Rc::clone(&self.transfer);
        transfer.keep_until_released(self);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let record = &mut self.record;
        record.bytes_in = self.transfer.received();
        record.request_body = self.transfer.ended_after(record.started);
        record.would_refuse = record.would_refuse.or_else(|| {
            let found = self.transfer.would_refuse();
            found.map(|violation| Refusal::FormRefused(violation).code())
        });
        if let Some(fault) = self.transfer.take_fault() {
            // Found after the answer had begun.
            record.reason.get_or_insert(Refusal::from(fault).code());
        }
        if self.transfer.is_response_too_slow() {
            record.reason.get_or_insert("response_too_slow");
        }
        if record.would_refuse.is_some()
            && let Some(account) = &record.account
        {
            account.usage().report();
        }
        self.log.record(record, &self.client);
        self.client.request_over();
    }
}
