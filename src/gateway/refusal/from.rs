//! Which refusal the error of a lower layer becomes.

use super::Refusal;
use crate::access::permit::Denied;
use crate::access::token_fault::TokenFault;
use crate::audit::Unrecorded;
use crate::body::BodyError;
use crate::login::LoginError;
use crate::message::request::RequestError;
use crate::policy::admission::NotAdmitted;
use crate::replay::{Full, KeyFault};
use crate::route::RouteError;
use crate::store::{ClaimError, StoreError};
use crate::traffic::QuotaExceeded;
use crate::upstream::UpstreamError;

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Malformed(reason) => Self::MalformedRequest(reason),
            RequestError::HeadersTooLarge => Self::HeadersTooLarge,
            RequestError::UriTooLong => Self::UriTooLong,
            RequestError::LengthRequired => Self::LengthRequired,
            RequestError::ExpectationFailed => Self::ExpectationFailed,
            RequestError::Misdirected => Self::Misdirected,
        }
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NotFound => Self::NotFound,
            RouteError::MethodNotAllowed { allow } => Self::MethodNotAllowed { allow },
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        Self::TokenRefused(fault)
    }
}

impl From<Unrecorded> for Refusal {
    fn from(Unrecorded: Unrecorded) -> Self {
        Self::AuditUnavailable
    }
}

impl From<NotAdmitted> for Refusal {
    fn from(reason: NotAdmitted) -> Self {
        Self::NotAdmitted(reason)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::MissingRight(missing) => Self::Forbidden(missing),
            Denied::Form(violation) => Self::FormRefused(violation),
            Denied::MediaType => Self::UnsupportedMediaType,
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(fault) => Self::MalformedBody(fault),
            BodyError::TooLarge { limit } => Self::BodyTooLarge { limit },
            BodyError::TooSlow => Self::BodyTooSlow,
            BodyError::RequestTooLong => Self::RequestTooLong,
            BodyError::OverQuota { limit } => Self::TooMuchAtOnce { limit },
            BodyError::Form(violation) => Self::FormRefused(violation),
            BodyError::Withheld => Self::RepeatInFlight,
        }
    }
}

impl From<QuotaExceeded> for Refusal {
    fn from(exceeded: QuotaExceeded) -> Self {
        match exceeded {
            QuotaExceeded::Rate(scope, exceeded) => Self::TooManyRequests(scope, exceeded),
            QuotaExceeded::InFlight { limit } => Self::TooManyAtOnce { limit },
        }
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wait(wait) => Self::TooManyAttempts { wait },
            LoginError::Failed(fault) => Self::LoginFailed(fault),
            LoginError::Saturated => Self::LoginsSaturated,
            LoginError::Uncounted(StoreError::RolledBack) => Self::StoreRolledBack,
            LoginError::Uncounted(_) => Self::StoreUnavailable,
        }
    }
}

impl From<KeyFault> for Refusal {
    fn from(fault: KeyFault) -> Self {
        Self::IdempotencyKey(fault)
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Full(Full::User { limit }) => Self::TooManyRemembered { limit },
            ClaimError::Full(Full::All)
            | ClaimError::Store(StoreError::Full | StoreError::UserFull { .. }) => {
                Self::ReplayGuardFull
            }
            ClaimError::Store(StoreError::RolledBack) => Self::StoreRolledBack,
            ClaimError::Store(StoreError::Unavailable | StoreError::Taken | StoreError::Gone) => {
                Self::StoreUnavailable
            }
        }
    }
}

impl From<UpstreamError> for Refusal {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unreachable(cause) => Self::UpstreamUnreachable(cause),
            UpstreamError::ConnectTimeout => Self::UpstreamConnectTimeout,
            UpstreamError::Tls(cause) => Self::UpstreamTls(cause),
            UpstreamError::Broke(cause, delivery) => Self::UpstreamBroke(cause, delivery),
            UpstreamError::Malformed(reason) => Self::UpstreamMalformed(reason),
            UpstreamError::Timeout => Self::UpstreamTimeout,
            UpstreamError::NoServer => Self::UpstreamUnavailable,
            UpstreamError::Busy => Self::UpstreamBusy,
            UpstreamError::Body(error) => error.into(),
        }
    }
}
