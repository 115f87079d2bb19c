//! Why an upstream did not answer a request.

use std::io;

use thiserror::Error;

use super::tls::TlsFailure;
use crate::body::BodyError;
use crate::body::request::RequestBody;

/// Why a request was not answered by the upstream.
#[derive(Debug)]
pub struct ForwardError {
    /// What went wrong.
    pub error: UpstreamError,
    /// The body, where no part of the request was sent.
    pub unsent: Option<RequestBody>,
}

impl From<UpstreamError> for ForwardError {
    fn from(error: UpstreamError) -> Self {
        Self {
            error,
            unsent: None,
        }
    }
}

/// Why there is no answer of the upstream.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// Nothing accepts connections behind the gateway.
    #[error("the upstream is unreachable")]
    Unreachable(#[source] io::Error),
    /// Connecting took too long.
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    /// There is no TLS connection.
    #[error("there is no TLS connection to the upstream")]
    Tls(#[source] TlsFailure),
    /// The upstream's connection broke before its response head was complete.
    #[error("the upstream broke off before it answered")]
    Broke(#[source] UpstreamBreak, Delivery),
    /// The upstream's answer is not valid HTTP.
    #[error("the upstream's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The upstream did not answer in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// No server of the upstream gets requests.
    #[error("no server of the upstream is available")]
    NoServer,
    /// All connections to the upstream are in use.
    #[error("too many requests in flight to the upstream")]
    Busy,
    /// The client's body failed.
    #[error(transparent)]
    Body(BodyError),
}

/// How an exchange ends before the answer's head.
#[derive(Debug, Error)]
pub enum UpstreamBreak {
    /// The connection ended.
    #[error("it closed the connection")]
    Closed,
    /// It could not be read from.
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// It could not be written to.
    #[error("writing failed")]
    Write(#[source] io::Error),
}

/// What the upstream has received of a request that it did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Certainly not one byte.
    Nothing,
    /// Perhaps all of it.
    Unknown,
}

/// Why a request was given to another connection: in either case not one byte of it had been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// The server could not be connected to, and another was chosen.
    NotConnected,
    /// The connection, which the server had closed, took none of it.
    NotWritten,
}

impl RetryReason {
    /// A word for it, in the log and as the value of a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::NotWritten => "not_written",
        }
    }
}
