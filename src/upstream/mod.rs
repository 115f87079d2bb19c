//! The way to the backend: what it sees, over which connection, and what becomes of its answer.

pub mod body;
mod credential;
mod form_watch;
pub mod headers;
mod pool;
mod relayed;
mod settings;

use std::rc::Rc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, sleep_until};

use crate::access::permit::Authorized;
use crate::refusal::Refusal;
use body::{RequestBody, Transfer};
use headers::Identity;
use pool::Pool;

pub use credential::{BackendCredential, BackendCredentials, CredentialError};
pub use relayed::RelayedBody;
pub use settings::{UpstreamSection, UpstreamUrl, UpstreamUrlError};

/// One worker's access to the backend.
#[derive(Debug)]
pub struct Upstream {
    pool: Rc<Pool>,
    host: HeaderValue,
    response_timeout: Duration,
}

impl Upstream {
    /// Access to the configured backend, with no connection yet.
    #[must_use]
    pub fn new(section: &UpstreamSection) -> Self {
        let authority = section.host.as_ref().or(match &section.url {
            UpstreamUrl::Http { authority, .. } => Some(authority),
            UpstreamUrl::Unix(_) => None,
        });
        let host = HeaderValue::from_str(authority.map_or("localhost", Authority::as_str))
            .expect("an authority is visible ASCII");
        Self {
            pool: Rc::new(Pool::new(section)),
            host,
            response_timeout: section.response_timeout,
        }
    }

    /// Sends an authorized request, at most once, and returns the head of the answer as soon as it
    /// is there, be the request sent completely or not.
    ///
    /// A connection that the upstream closed while it was idle is found out before the first byte
    /// is written; only then is the request sent over another. Dropping the future ends the
    /// exchange and its connection.
    ///
    /// # Errors
    /// The refusal to answer with when the upstream did not answer, or the client's body failed; and
    /// the body, where no part of the request was sent.
    pub async fn forward(
        &self,
        permit: Authorized,
        identity: &Identity<'_>,
        body: RequestBody,
    ) -> Result<Response<RelayedBody>, Unanswered> {
        let transfer = Rc::clone(body.transfer());
        let mut request = self.request(permit, identity, body);
        loop {
            let (mut sender, reused) = match self.pool.reuse() {
                Some(sender) => (sender, true),
                None => match Box::pin(self.pool.connect()).await {
                    Ok(sender) => (sender, false),
                    Err(refusal) => {
                        let unsent = Some(request.into_body());
                        return Err(Unanswered { refusal, unsent });
                    }
                },
            };
            match self.exchange(&mut sender, request, &transfer).await? {
                Outcome::Answered(response) => {
                    return Ok(self.relay(response, sender, transfer)?);
                }
                Outcome::NotSent {
                    request: unsent, ..
                } if reused => request = *unsent,
                Outcome::NotSent { request, error } => {
                    let unsent = Some(request.into_body());
                    return Err(Unanswered {
                        refusal: Refusal::UpstreamBroke(error),
                        unsent,
                    });
                }
            }
        }
    }

    /// Closes the connections that were idle for too long.
    pub fn reap(&self) {
        self.pool.reap(Instant::now());
    }

    fn request(
        &self,
        permit: Authorized,
        identity: &Identity<'_>,
        body: RequestBody,
    ) -> Request<RequestBody> {
        let (head, authorization) = permit.into_request();
        let mut headers = headers::for_upstream(head.headers, authorization, &self.host, identity);
        // hyper writes the length of any other body itself.
        if head.sent_length && hyper::body::Body::is_end_stream(&body) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = Uri::from(head.target);
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        request
    }

    async fn exchange(
        &self,
        sender: &mut SendRequest<RequestBody>,
        request: Request<RequestBody>,
        transfer: &Transfer,
    ) -> Result<Outcome, Refusal> {
        let mut answer = std::pin::pin!(sender.try_send_request(request));
        let mut deadline = std::pin::pin!(sleep_until(Instant::now() + self.response_timeout));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return match answer {
                    Ok(response) => Ok(Outcome::Answered(response)),
                    Err(mut failed) => match failed.take_message() {
                        Some(request) => {
                            let request = Box::new(request);
                            Ok(Outcome::NotSent { request, error: failed.into_error() })
                        }
                        None => Err(refusal_for(failed.into_error(), transfer)),
                    },
                },
                () = &mut deadline => {
                    // A client that still has to send is judged by its rate, not the upstream.
                    let until = transfer.upstreams_turn_since() + self.response_timeout;
                    if until <= Instant::now() {
                        return Err(Refusal::UpstreamTimeout);
                    }
                    deadline.as_mut().reset(until);
                }
            }
        }
    }

    fn relay(
        &self,
        mut response: Response<Incoming>,
        sender: SendRequest<RequestBody>,
        transfer: Rc<Transfer>,
    ) -> Result<Response<RelayedBody>, Refusal> {
        check_answer(&response)?;
        headers::for_client(response.headers_mut());
        let pool = Rc::clone(&self.pool);
        let stall = self.response_timeout;
        Ok(response.map(|incoming| RelayedBody::new(incoming, sender, transfer, pool, stall)))
    }
}

/// Why a request was not answered by the upstream.
#[derive(Debug)]
pub struct Unanswered {
    /// What to answer instead.
    pub refusal: Refusal,
    /// The body, where no part of the request was sent.
    pub unsent: Option<RequestBody>,
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            unsent: None,
        }
    }
}

enum Outcome {
    Answered(Response<Incoming>),
    NotSent {
        request: Box<Request<RequestBody>>,
        error: hyper::Error,
    },
}

/// What a request is sent to the upstream with, apart from its body.
#[derive(Debug)]
pub struct RequestHead {
    /// The method, which the route takes.
    pub method: Method,
    /// The path as configured, and the client's query.
    pub target: http::uri::PathAndQuery,
    /// The client's header fields.
    pub headers: http::HeaderMap,
    /// Whether the client sent a `Content-Length`.
    pub sent_length: bool,
}

fn refusal_for(error: hyper::Error, transfer: &Transfer) -> Refusal {
    match transfer.take_fault() {
        Some(fault) => fault,
        None if error.is_parse() => Refusal::UpstreamMalformed("it is not valid HTTP/1.1"),
        None => Refusal::UpstreamBroke(error),
    }
}

/// What hyper accepts of an upstream and two readers could frame differently.
fn check_answer(response: &Response<Incoming>) -> Result<(), Refusal> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::UpstreamMalformed("it switches protocols unasked"));
    }
    let headers = response.headers();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    if length.is_some() && coding.is_some() {
        return Err(Refusal::UpstreamMalformed(
            "both Content-Length and Transfer-Encoding",
        ));
    }
    let chunked = coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if codings.next().is_some() || !chunked {
        return Err(Refusal::UpstreamMalformed(
            "a transfer coding other than chunked",
        ));
    }
    let digits = length.is_none_or(|length| length.as_bytes().iter().all(u8::is_ascii_digit));
    if lengths.next().is_some() || !digits {
        return Err(Refusal::UpstreamMalformed(
            "its Content-Length is not one number",
        ));
    }
    Ok(())
}
