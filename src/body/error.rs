//! Pure: why a request body was aborted.

use std::fmt;

use thiserror::Error;

use crate::policy::form::FormViolation;

/// Why a body was aborted.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It is incomplete or its framing is wrong.
    #[error("the client's body is malformed or was cut off")]
    Malformed(#[source] BodyFault),
    /// It is longer than allowed.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It is below the minimum rate.
    #[error("the client was too slow to send its body")]
    TooSlow,
    /// The request as a whole took too long.
    #[error("the request took longer than it may")]
    RequestTooLong,
    /// All bodies of its user together reached their limit.
    #[error("{limit} bytes of the user's bodies may be in flight")]
    OverQuota {
        /// The limit in bytes, for all bodies of the user.
        limit: u64,
    },
    /// A right depends on its form, and it is not valid.
    #[error("the body is refused: {0}")]
    Form(FormViolation),
    /// The request is a repeat of another, and is not to be complete at the upstream.
    #[error("the request is a repeat of another")]
    Withheld,
}

/// Why a body is malformed.
#[derive(Debug, Error)]
pub enum BodyFault {
    /// Its framing is wrong, or it is incomplete.
    #[error(transparent)]
    Broken(hyper::Error),
    /// The client reset the stream.
    #[error("the client aborted it")]
    Abandoned,
    /// Its length differs from what was announced.
    #[error("its length differs from Content-Length")]
    Length,
}

/// The body was aborted; its [`Transfer`](super::Transfer) has the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyAborted;

impl fmt::Display for BodyAborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body was aborted")
    }
}

impl std::error::Error for BodyAborted {}
