//! Pure: why a token is refused.

use thiserror::Error;

use crate::session::{Absent, End};
use crate::token::MalformedToken;

/// Why a token is refused; each text is told to the client as `error_description` (RFC 6750).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenFault {
    /// No `Authorization` header.
    #[error("no token was sent: send Authorization: Bearer <token>")]
    Missing,
    /// More than one `Authorization` header.
    #[error("the token is malformed: send exactly one Authorization header")]
    Repeated,
    /// The text that JavaScript makes of the whole token object.
    #[error("the token is malformed: it is [object Object]; send token.accesstoken, not token")]
    WholeObject,
    /// Not of a token's form.
    #[error("{0}")]
    Malformed(MalformedToken),
    /// Of a token's form, but not one that this gateway knows.
    #[error("the token is unknown")]
    Unknown,
    /// It has ended.
    #[error("{}", told(*.0))]
    Ended(End),
    /// Its account's password has been changed since.
    #[error("the token is revoked: the password was changed, log in again")]
    PasswordChanged,
    /// The account that it was issued to is gone.
    #[error("the token's user is gone")]
    UserGone,
    /// The account that it was issued to is switched off.
    #[error("the token's user is disabled")]
    UserDisabled,
}

/// What its client is told of a token's end.
fn told(end: End) -> &'static str {
    match end {
        End::Expired => "the token is expired: log in again",
        End::Unused => "the token is expired: it was not used for too long, log in again",
        End::Revoked => "the token is revoked: log in again",
        End::GivenBack => "the token is revoked: its client gave it back, log in again",
        End::Displaced => "the token is revoked: its user has newer ones, as many as may be",
        End::Replayed => "the token is revoked: one that was renewed was used again, log in again",
        End::UserDisabled => "the token is revoked: its user was disabled",
        End::UserRemoved => "the token is revoked: its user was removed",
        End::PasswordChanged => "the token is revoked: the password was changed, log in again",
    }
}

impl TokenFault {
    /// That a token is not, or no longer, good.
    #[must_use]
    pub fn of(absent: Absent) -> Self {
        match absent {
            Absent::Unknown => Self::Unknown,
            Absent::Ended(end) => Self::Ended(end),
            // What it says of the others of its lineage is not for whoever presents it.
            Absent::Replaced(_) => Self::Ended(End::Expired),
        }
    }

    /// A word for the log and for the metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Repeated | Self::WholeObject | Self::Malformed(_) => "token_malformed",
            Self::Unknown => "token_unknown",
            Self::Ended(End::Expired | End::Unused) => "token_expired",
            Self::Ended(
                End::Revoked
                | End::GivenBack
                | End::Displaced
                | End::Replayed
                | End::PasswordChanged,
            )
            | Self::PasswordChanged => "token_revoked",
            Self::UserGone | Self::Ended(End::UserRemoved) => "token_user_gone",
            Self::UserDisabled | Self::Ended(End::UserDisabled) => "token_user_disabled",
        }
    }
}
