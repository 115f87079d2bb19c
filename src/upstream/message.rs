//! A request as the upstream is sent it: made once of what was authorized.

use std::rc::Rc;

use http::{HeaderValue, Method};
use http_body::Body as _;
use tokio::time::Instant;

use super::error::{ForwardError, UpstreamError};
use super::sending::Sending;
use crate::access::permit::Authorized;
use crate::body::Transfer;
use crate::body::request::RequestBody;
use crate::message::headers::{self, Identity};
use crate::message::request_head::{self, BodyFraming, RequestHead};

/// A request that may be forwarded.
#[derive(Debug)]
pub struct UpstreamRequest<'a> {
    /// What was authorized.
    pub permit: Authorized,
    /// What the upstream is told of who sent it.
    pub identity: &'a Identity<'a>,
    /// Its body, as it comes.
    pub body: RequestBody,
    /// Since when it waits for the upstream.
    pub since: Instant,
}

impl UpstreamRequest<'_> {
    /// It is not sent.
    pub(super) fn refuse(self, error: UpstreamError) -> ForwardError {
        ForwardError {
            error,
            unsent: Some(self.body),
        }
    }

    /// The request as this host is to be sent it; what it was made from is not kept while it is.
    pub(super) fn address(self, host: &HeaderValue) -> Message {
        let (permit, identity, body) = (self.permit, self.identity, self.body);
        let (head, authorization) = permit.into_request();
        let framing = framing_of(&head, &body);
        let transfer = Rc::clone(body.transfer());
        let sending = Sending::new(body, framing, |prefix| {
            request_head::begin(prefix, &head.method, &head.target);
            let field = |name: &_, value: &_| request_head::field(prefix, name, value);
            headers::for_upstream(&head.headers, authorization, host, identity, field);
            request_head::end(prefix, framing);
        });
        Message {
            method: head.method,
            transfer,
            sending,
            since: self.since,
        }
    }
}

/// A request whose head names a server.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) method: Method,
    pub(super) transfer: Rc<Transfer>,
    pub(super) sending: Sending,
    /// Since when it waits for the upstream.
    pub(super) since: Instant,
}

impl Message {
    /// It is not sent.
    pub(super) fn refuse(self, error: UpstreamError) -> ForwardError {
        ForwardError {
            error,
            unsent: self.sending.into_body(),
        }
    }
}

/// How the upstream is told of the body's end.
fn framing_of(head: &RequestHead, body: &RequestBody) -> BodyFraming {
    if body.is_end_stream() {
        return match head.sent_length {
            true => BodyFraming::Length(0),
            false => BodyFraming::None,
        };
    }
    match body.size_hint().exact() {
        Some(length) => BodyFraming::Length(length),
        None if is_without_body(&head.method) => BodyFraming::None,
        None => BodyFraming::Chunked,
    }
}

/// Whether a request that the upstream is told to have no body could still bring one. It is whole
/// there as soon as its head is sent, so its body has to end before: see
/// [`RequestBody::read_to_end`].
#[must_use]
pub fn must_end_before(method: &Method, body: &RequestBody) -> bool {
    let bodiless = match body.size_hint().exact() {
        Some(length) => length == 0,
        None => is_without_body(method),
    };
    bodiless && !body.is_end_stream()
}

/// Backends do not expect a body with these methods, least of all in chunks.
fn is_without_body(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
