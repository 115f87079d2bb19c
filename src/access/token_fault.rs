//! Pure: why a token is refused.

use thiserror::Error;

use crate::session::{Absent, End};
use crate::token::MalformedToken;

/// Why a token is refused; the text is sent to the client as `error_description` (RFC 6750).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenFault {
    /// No `Authorization` header.
    #[error("no token was sent: send Authorization: Bearer <token>")]
    Missing,
    /// More than one `Authorization` header.
    #[error("the token is malformed: send exactly one Authorization header")]
    Repeated,
    /// What JavaScript prints for the whole token object.
    #[error("the token is malformed: it is [object Object]; send token.accesstoken, not token")]
    WholeObject,
    /// Not in the format of a token.
    #[error("{0}")]
    Malformed(MalformedToken),
    /// Well-formed, but not known to this gateway.
    #[error("the token is unknown")]
    Unknown,
    /// It has ended.
    #[error("{}", describe(*.0))]
    Ended(End),
    /// Its account's password has changed since it was issued.
    #[error("the token is revoked: the password was changed, log in again")]
    PasswordChanged,
    /// Its account no longer exists.
    #[error("the token's user no longer exists")]
    UserGone,
    /// Its account is disabled.
    #[error("the token's user is disabled")]
    UserDisabled,
}

impl TokenFault {
    /// Whether the token was issued here once.
    #[must_use]
    pub fn is_of_issued_token(self) -> bool {
        match self {
            Self::Ended(_) | Self::PasswordChanged | Self::UserGone | Self::UserDisabled => true,
            Self::Missing
            | Self::Repeated
            | Self::WholeObject
            | Self::Malformed(_)
            | Self::Unknown => false,
        }
    }
}

/// The description of a token's end, for its client.
fn describe(end: End) -> &'static str {
    match end {
        End::Expired => "the token is expired: log in again",
        End::Unused => "the token is expired: it was not used for too long, log in again",
        End::Revoked => "the token is revoked: log in again",
        End::RevokedByClient => "the token is revoked: its client revoked it, log in again",
        End::Evicted => "the token is revoked: its user has as many newer tokens as are allowed",
        End::Replayed => {
            "the token is revoked: a token that had been renewed was used again, log in again"
        }
        End::UserDisabled => "the token is revoked: its user was disabled",
        End::UserRemoved => "the token is revoked: its user was removed",
        End::PasswordChanged => "the token is revoked: the password was changed, log in again",
    }
}

impl TokenFault {
    /// The fault of a token that the store did not find.
    #[must_use]
    pub fn of(absent: Absent) -> Self {
        match absent {
            Absent::Unknown => Self::Unknown,
            Absent::Ended(end) => Self::Ended(end),
            // The client must not learn about the other tokens of the lineage.
            Absent::Replaced(_) => Self::Ended(End::Expired),
        }
    }

    /// The code in logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Repeated | Self::WholeObject | Self::Malformed(_) => "token_malformed",
            Self::Unknown => "token_unknown",
            Self::Ended(End::Expired | End::Unused) => "token_expired",
            Self::Ended(
                End::Revoked
                | End::RevokedByClient
                | End::Evicted
                | End::Replayed
                | End::PasswordChanged,
            )
            | Self::PasswordChanged => "token_revoked",
            Self::UserGone | Self::Ended(End::UserRemoved) => "token_user_gone",
            Self::UserDisabled | Self::Ended(End::UserDisabled) => "token_user_disabled",
        }
    }
}
