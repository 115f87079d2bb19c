//! The one body type of every answer, which also knows when the answer is over.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::body::Transfer;
use crate::client::ClientConnection;
use crate::observe::{AccessLog, AccessRecord};
use crate::refusal::Refusal;
use crate::traffic::InFlight;
use crate::upstream::RelayedBody;

/// The body of an answer, and its record.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    /// Whether the connection has a part and was not back for the next one.
    offered: bool,
    /// When a relayed answer is given up, if ever.
    deadline: Option<Pin<Box<Sleep>>>,
    recording: Recording,
}

#[derive(Debug)]
enum Content {
    Own(Option<Bytes>),
    Relayed(RelayedBody),
}

impl ResponseBody {
    /// The body of an answer of the gateway's own.
    #[must_use]
    pub fn own(bytes: Bytes, recording: Recording) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self {
            content: Content::Own(bytes),
            offered: false,
            deadline: None,
            recording,
        }
    }

    /// The upstream's body, broken off at the deadline.
    #[must_use]
    pub fn relayed(
        body: RelayedBody,
        deadline: Option<Pin<Box<Sleep>>>,
        recording: Recording,
    ) -> Self {
        Self {
            content: Content::Relayed(body),
            offered: false,
            deadline,
            recording,
        }
    }

    fn offer_taken(&mut self) {
        if std::mem::take(&mut self.offered) {
            self.recording.client.part_taken();
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
            this.recording.record.reason = Some(Refusal::RequestTooLong.code());
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let frame = match &mut this.content {
            Content::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Relayed(body) => Pin::new(body).poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.recording.record.bytes_out += data.len() as u64;
            if !this.is_end_stream() {
                this.offered = true;
                this.recording.client.part_offered();
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
        self.recording.record.complete = match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            Content::Relayed(body) => body.is_complete(),
        };
    }
}

/// The record of a request from its first moment: written when it is dropped, whether the request
/// was answered or its client was gone before.
#[derive(Debug)]
pub struct Recording {
    /// What will be written.
    pub record: Box<AccessRecord>,
    /// Counts the request for its user, from when that one is known.
    pub in_flight: Option<InFlight>,
    transfer: Rc<Transfer>,
    client: Rc<ClientConnection>,
    log: Rc<AccessLog>,
}

impl Recording {
    /// Begins the record of a request.
    #[must_use]
    pub fn start(
        log: Rc<AccessLog>,
        client: Rc<ClientConnection>,
        transfer: Rc<Transfer>,
        record: AccessRecord,
    ) -> Self {
        client.request_begins();
        Self {
            record: Box::new(record),
            in_flight: None,
            transfer,
            client,
            log,
        }
    }

    /// What is known of the request's body.
    #[must_use]
    pub fn transfer(&self) -> &Rc<Transfer> {
        &self.transfer
    }

    /// Notes the answer's status, and whether it is the upstream's answer.
    #[must_use]
    pub fn answered(mut self, status: StatusCode, relayed: bool) -> Self {
        self.record.status = Some(status);
        self.record.relayed = relayed;
        self
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.record.bytes_in = self.transfer.received();
        let of_body = self.transfer.would_refuse();
        self.record.would_refuse = self.record.would_refuse.or(of_body);
        if self.record.would_refuse.is_some()
            && let Some(account) = &self.record.account
        {
            account.usage().report();
        }
        self.log.record(&self.record, &self.client);
        self.client.response_ends();
    }
}
