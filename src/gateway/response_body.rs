//! The one body type of every answer, and the request that it answers: when that is over.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::{MinRate, Transfer};
use crate::client::{AnsweredRequest, ClientConnection};
use crate::gateway::record::{AccessLog, AccessRecord};
use crate::gateway::refusal::Refusal;
use crate::limits::Limits;
use crate::traffic::InFlight;
use crate::upstream::RelayedBody;

/// The body of an answer.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
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
    pub fn own(bytes: Bytes, request: Box<ActiveRequest>) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self {
            content: Content::Own(bytes),
            offered: None,
            deadline: None,
            rate: None,
            request: Some(request),
        }
    }

    /// The upstream's body, broken off at the deadline.
    #[must_use]
    pub fn relayed(
        body: RelayedBody,
        limits: &Limits,
        deadline: Option<Pin<Box<Sleep>>>,
        request: Box<ActiveRequest>,
    ) -> Self {
        Self {
            content: Content::Relayed(body),
            offered: None,
            deadline,
            rate: (request.record.version >= Version::HTTP_2)
                .then(|| MinRate::of_responses(limits)),
            request: Some(request),
        }
    }

    fn offer_taken(&mut self) {
        let (Some(length), Some(request)) = (self.offered.take(), &self.request) else {
            return;
        };
        request.client.part_taken();
        if let Some(rate) = &mut self.rate {
            rate.progress(length, Instant::now());
            request.transfer.set_answer_due(None);
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
        let frame = match &mut this.content {
            Content::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Relayed(body) => Pin::new(body).poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            let ends = this.is_end_stream();
            if let Some(request) = &mut this.request {
                request.record.bytes_out += data.len() as u64;
                if !ends {
                    this.offered = Some(data.len() as u64);
                    request.client.part_offered();
                    if let Some(rate) = &mut this.rate {
                        let due = rate.wait(data.len() as u64, Instant::now());
                        request.transfer.set_answer_due(Some(due));
                    }
                }
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            Content::Relayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Relayed(body) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.offer_taken();
        if let Some(mut request) = self.request.take() {
            request.record.complete = match &self.content {
                Content::Own(bytes) => bytes.is_none(),
                Content::Relayed(body) => body.is_complete(),
            };
            request.answer_given();
        }
    }
}

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
        self.record.status = Some(status);
        self.record.relayed = relayed;
    }

    /// All of the answer was given to the connection, or given up.
    fn answer_given(self: Box<Self>) {
        if self.record.version < Version::HTTP_2 {
            let (client, transfer) = (Rc::clone(&self.client), Rc::clone(&self.transfer));
            client.answer_given(&transfer, self);
        } else {
            self.flushed();
        }
    }
}

impl AnsweredRequest for ActiveRequest {
    fn flushed(self: Box<Self>) {
        let transfer = Rc::clone(&self.transfer);
        transfer.keep_until_over(self);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let record = &mut self.record;
        record.bytes_in = self.transfer.received();
        record.would_refuse = record.would_refuse.or_else(|| {
            let found = self.transfer.would_refuse();
            found.map(|violation| Refusal::FormRefused(violation).code())
        });
        if let Some(fault) = self.transfer.take_fault() {
            // Found after the answer had begun.
            record.reason.get_or_insert(Refusal::from(fault).code());
        }
        if self.transfer.is_answer_too_slow() {
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
