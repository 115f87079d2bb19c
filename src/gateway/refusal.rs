//! Pure: every way the gateway says no.
//!
//! A refusal has two audiences. The client gets a status, a fixed text in the envelope and, for a
//! machine, the error type and details of `Proxy-Status` (RFC 9209): enough to mend its request,
//! nothing of what lies behind the gateway. The operator gets the `Display` text in the access
//! record and the whole chain of `source()`: what really happened, and which setting to look at.
//! Neither text ever holds a token, a password or a part of a body. All methods match every variant
//! by name, so that a new one does not compile before both audiences have their text.

mod from;

use std::io;
use std::time::Duration;

use http::StatusCode;
use thiserror::Error;

use crate::access::token_fault::TokenFault;
use crate::body::BodyFault;
use crate::cors::OriginNotAllowed;
use crate::login::LoginFault;
use crate::login::body::CredentialsError;
use crate::policy::admission::NotAdmitted;
use crate::policy::form::FormViolation;
use crate::policy::rights::MissingRight;
use crate::replay::KeyFault;
use crate::traffic::{Exceeded, RateScope};
use crate::upstream::{Delivery, TlsFailure, UpstreamBreak};

/// Why a request was not answered by the upstream.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The request breaks a rule of HTTP that matters behind the gateway.
    #[error("malformed request: {0}")]
    MalformedRequest(&'static str),
    /// The body broke off or its framing was wrong.
    #[error("the client's body is malformed or was cut off")]
    MalformedBody(#[source] BodyFault),
    /// The body of a login is not what it must be.
    #[error("malformed credentials")]
    MalformedCredentials(#[source] CredentialsError),
    /// Unknown user, wrong password or disabled user: the client cannot tell which.
    #[error("login failed: {0}")]
    LoginFailed(LoginFault),
    /// Too many logins failed, as that user or from that network.
    #[error("too many failed logins (login.failures, login.source_failures): retry in {wait:?}")]
    TooManyAttempts {
        /// How long none is tried.
        wait: Duration,
    },
    /// More requests in a time than a user, a route or a source may make.
    #[error("too many requests: the limit for {} is {} ({}), retry in {:?}",
            .0.whose(), .1.rate, .0.setting(), .1.wait)]
    TooManyRequests(RateScope, Exceeded),
    /// The user has too many requests in flight.
    #[error("the user has {limit} requests in flight (quotas.user_requests)")]
    TooManyAtOnce {
        /// How many may be.
        limit: usize,
    },
    /// The request bodies of the user that are in flight are too large in total.
    #[error("the user's request bodies in flight exceed {limit} bytes (quotas.user_bodies)")]
    TooMuchAtOnce {
        /// How many bytes may be.
        limit: u64,
    },
    /// Requests without a live token hold too much memory, on one connection or from one source.
    #[error(
        "requests without a live token hold too much memory \
             (limits.unauthenticated_per_connection, limits.unauthenticated_per_source)"
    )]
    TooMuchUnauthenticated,
    /// The user has as many tokens as may be.
    #[error("the user has {limit} live tokens (tokens.per_user, tokens.on_limit)")]
    TooManyTokens {
        /// How many may be.
        limit: usize,
    },
    /// No usable token.
    #[error("token refused: {0}")]
    TokenRefused(TokenFault),
    /// A live token, but not the right.
    #[error("{0}")]
    Forbidden(MissingRight),
    /// A live token of a user who may not be used from there, or then.
    #[error("{0}")]
    NotAdmitted(NotAdmitted),
    /// A right depends on the form, and the body cannot be read for it beyond doubt.
    #[error("the body is refused: {0}")]
    FormRefused(FormViolation),
    /// A request to the admin interface is malformed.
    #[error("malformed admin request: {0}")]
    AdminMalformed(&'static str),
    /// The admin interface is asked without its secret.
    #[error(
        "the secret is missing or wrong (admin.introspection_secret_file, admin.metrics_secret_file)"
    )]
    SecretRefused,
    /// A request to the admin address that was meant for another host, or comes from a page of another
    /// origin.
    #[error("not meant for the admin interface: {0}")]
    ForeignRequest(&'static str),
    /// No such path.
    #[error("no route matches this path")]
    NotFound,
    /// The path is there, the method is not.
    #[error("the route does not allow this method")]
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: String,
    },
    /// A browser asks on behalf of a page whose origin may not call.
    #[error(transparent)]
    OriginNotAllowed(#[from] OriginNotAllowed),
    /// The client did not finish its header section in time.
    #[error("the client was too slow to send its header section (limits.header_read)")]
    HeadersTooSlow,
    /// The client sends its body below the minimum rate.
    #[error("the client was too slow to send its body (limits.body_min_rate, limits.body_grace)")]
    BodyTooSlow,
    /// The request as a whole took too long.
    #[error("the request exceeded its deadline (limits.request)")]
    RequestTooLong,
    /// A body without a length.
    #[error("neither Content-Length nor Transfer-Encoding")]
    LengthRequired,
    /// The body is longer than the route allows.
    #[error("the body is longer than {limit} bytes")]
    BodyTooLarge {
        /// The route's limit in bytes.
        limit: u64,
    },
    /// The request target is too long.
    #[error("the request target is too long (limits.uri_size)")]
    UriTooLong,
    /// The body is not JSON by its media type.
    #[error("the media type is not application/json")]
    UnsupportedMediaType,
    /// An `Expect` other than `100-continue`.
    #[error("an expectation other than 100-continue")]
    ExpectationFailed,
    /// The TLS server name and the Host are different certificates' names.
    #[error("Host differs from the TLS server name")]
    Misdirected,
    /// The header section is too long or has too many fields.
    #[error("the header section is too large (limits.header_size, 100 fields)")]
    HeadersTooLarge,
    /// No usable `Idempotency-Key` on a route that is guarded by it.
    #[error("{0}")]
    IdempotencyKey(KeyFault),
    /// A repeat of a request that is still in flight.
    #[error("the same request is in flight (replay_guard.wait)")]
    RepeatInFlight,
    /// A repeat of a request that the backend may have processed or not.
    #[error("the outcome of the same request is unknown (replay_guard.unknown)")]
    OutcomeUnknown,
    /// A repeat of a request whose answer cannot be given again.
    #[error(
        "the same request was answered with {status}, and the answer is not stored \
             (replay_guard.max_response, replay_guard.memory)"
    )]
    AnswerNotStored {
        /// The status of that answer.
        status: StatusCode,
    },
    /// An `Idempotency-Key` that was used for another request.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// As many requests of the user are remembered as may be.
    #[error("{limit} requests of the user are remembered (replay_guard.per_user)")]
    TooManyRemembered {
        /// How many may be.
        limit: usize,
    },
    /// As many requests are remembered as may be.
    #[error("the replay guard is full (replay_guard.max_entries)")]
    ReplayGuardFull,
    /// Plain HTTP, and not a request that can be redirected.
    #[error("plain HTTP is not served")]
    PlainHttp,
    /// Nothing accepts connections behind the gateway.
    #[error("the upstream is unreachable")]
    UpstreamUnreachable(#[source] io::Error),
    /// Connecting took too long.
    #[error("connecting to the upstream took too long (upstream.connect_timeout)")]
    UpstreamConnectTimeout,
    /// There is no TLS connection to the upstream.
    #[error("there is no TLS connection to the upstream (upstream.tls)")]
    UpstreamTls(#[source] TlsFailure),
    /// The upstream's connection broke before its response head was complete.
    #[error("the upstream closed the connection before it responded")]
    UpstreamBroke(#[source] UpstreamBreak, Delivery),
    /// The upstream's answer is not valid HTTP.
    #[error("the upstream's answer is malformed: {0}")]
    UpstreamMalformed(&'static str),
    /// The upstream did not answer in time.
    #[error("the upstream did not answer in time (upstream.response_timeout)")]
    UpstreamTimeout,
    /// No server of the upstream gets requests.
    #[error("no server of the upstream is available: `syncgate upstreams` shows why")]
    UpstreamUnavailable,
    /// All connections to the upstream are in use.
    #[error(
        "too many requests in flight to the upstream (upstream.max_requests, \
             upstream.queue, upstream.queue_wait, upstream.max_connections)"
    )]
    UpstreamBusy,
    /// Too many connections are open, or the process has too much memory already.
    #[error("overloaded (limits.connections, limits.memory, file descriptors)")]
    Overloaded,
    /// The queue of passwords to check is full, or does not move.
    #[error("too many logins at once (login.hash_threads, login.hash_queue, login.hash_wait)")]
    LoginsSaturated,
    /// As many tokens are live as the configuration allows.
    #[error("the token store is full (tokens.capacity)")]
    StoreFull,
    /// The token store outside the process does not answer in time.
    #[error("token store unreachable (fail closed): the log says why (tokens.store)")]
    StoreUnavailable,
    /// The server of a shared store has lost revocations that were on it.
    #[error(
        "the token store was rolled back to an older state, in which revoked tokens may be valid \
             again (fail closed): `syncgate tokens revoke --before TIME`, or --all, ends them and accepts it"
    )]
    StoreRolledBack,
    /// What was revoked could not be kept.
    #[error(
        "the revocation is in effect in this process only: writing it is retried, and a restart \
             before that succeeds undoes it (tokens.store)"
    )]
    RevocationUnkept,
    /// What was to happen cannot be recorded, and must not happen unrecorded.
    #[error("the audit trail cannot be written (fail closed): the log says why (audit.on_failure)")]
    AuditUnavailable,
    /// The stored tokens have not all been loaded yet.
    #[error("the gateway is starting: it is still loading its tokens")]
    Starting,
    /// The operating system gives no random numbers.
    #[error("the operating system's random number generator failed")]
    NoRandom,
    /// A bug: the gateway's own code panicked at this request.
    #[error("the gateway's code panicked at this request; see the log line of the panic")]
    Panicked,
}

impl Refusal {
    /// The status code of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MalformedRequest(_)
            | Self::MalformedBody(_)
            | Self::MalformedCredentials(_)
            | Self::IdempotencyKey(_)
            | Self::AdminMalformed(_) => StatusCode::BAD_REQUEST,
            Self::LoginFailed(_) | Self::TokenRefused(_) | Self::SecretRefused => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden(_)
            | Self::NotAdmitted(_)
            | Self::ForeignRequest(_)
            | Self::OriginNotAllowed(_)
            | Self::PlainHttp => StatusCode::FORBIDDEN,
            Self::FormRefused(FormViolation::FormTooLate) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::FormRefused(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadersTooSlow | Self::BodyTooSlow | Self::RequestTooLong => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::RepeatInFlight | Self::OutcomeUnknown | Self::AnswerNotStored { .. } => {
                StatusCode::CONFLICT
            }
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyAttempts { .. }
            | Self::TooManyRequests(..)
            | Self::TooManyAtOnce { .. }
            | Self::TooMuchAtOnce { .. }
            | Self::TooMuchUnauthenticated
            | Self::TooManyTokens { .. }
            | Self::TooManyRemembered { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UpstreamUnreachable(_)
            | Self::UpstreamTls(_)
            | Self::UpstreamBroke(..)
            | Self::UpstreamMalformed(_) => StatusCode::BAD_GATEWAY,
            Self::UpstreamUnavailable
            | Self::UpstreamBusy
            | Self::Overloaded
            | Self::LoginsSaturated
            | Self::StoreFull
            | Self::ReplayGuardFull
            | Self::StoreUnavailable
            | Self::StoreRolledBack
            | Self::RevocationUnkept
            | Self::AuditUnavailable
            | Self::Starting
            | Self::NoRandom
            | Self::Panicked => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamConnectTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The text of the envelope's `messages`.
    #[must_use]
    pub fn client_text(&self) -> &'static str {
        match self {
            Self::MalformedRequest(_) => "The request is not valid HTTP",
            Self::MalformedBody(_) => "The body is malformed or was cut off",
            Self::MalformedCredentials(_) => {
                "The body must be a JSON object with the strings username and password"
            }
            Self::LoginFailed(_) => "Invalid username or password",
            Self::TooManyAttempts { .. } => "Too many failed logins; try again later",
            Self::TooManyRequests(..) => "Too many requests; try again later",
            Self::TooManyAtOnce { .. } => "Too many requests at once; wait for some to finish",
            Self::TooMuchAtOnce { .. } => "Too much data at once; wait for some to arrive",
            Self::TooMuchUnauthenticated => {
                "Too many requests without a token at once; wait for some to finish"
            }
            Self::TooManyTokens { .. } => {
                "Too many tokens of this user are in use; use one of them"
            }
            Self::TokenRefused(_) => "Token is invalid or expired",
            Self::Forbidden(_) | Self::NotAdmitted(_) => "No access to the resource",
            Self::FormRefused(FormViolation::FormTooLate) => {
                "The form comes too late in the body: send it first, or raise limits.form_lookahead"
            }
            Self::FormRefused(_) => "The body must be one JSON object with the string form",
            Self::AdminMalformed(_) => "The admin interface does not understand the request",
            Self::SecretRefused => "The secret is missing or wrong",
            Self::ForeignRequest(_) => "The request is not meant for the admin interface",
            Self::NotFound => "No such resource",
            Self::MethodNotAllowed { .. } => "Method not allowed",
            Self::OriginNotAllowed(_) => "Origin not allowed",
            Self::HeadersTooSlow => "The header section did not arrive in time",
            Self::BodyTooSlow => "The body arrived too slowly",
            Self::RequestTooLong => "The request took too long",
            Self::LengthRequired => "Send Content-Length or Transfer-Encoding: chunked",
            Self::BodyTooLarge { .. } => "The body is too large",
            Self::UriTooLong => "The request target is too long",
            Self::UnsupportedMediaType => "Send Content-Type: application/json",
            Self::ExpectationFailed => "The only expectation supported is 100-continue",
            Self::Misdirected => "This connection does not serve that host",
            Self::HeadersTooLarge => "The header section is too large",
            Self::IdempotencyKey(_) => "Send one Idempotency-Key with the request",
            Self::RepeatInFlight => "The same request is still being processed; try again later",
            Self::OutcomeUnknown => {
                "The same request was sent to the backend before, and its outcome is unknown: find it out \
                 there before you send it again"
            }
            Self::AnswerNotStored { .. } => {
                "The same request was answered before, and the answer is not stored"
            }
            Self::KeyReused => "This Idempotency-Key was used for another request",
            Self::TooManyRemembered { .. } => {
                "Too many requests of this user are remembered; try again later"
            }
            Self::ReplayGuardFull => "Too many requests are remembered; try again later",
            Self::PlainHttp => {
                "HTTPS is required. What was sent over plain HTTP is exposed: \
                 change the password or token it held"
            }
            Self::UpstreamUnreachable(_) => "The backend cannot be reached",
            Self::UpstreamConnectTimeout => "The backend cannot be reached in time",
            Self::UpstreamTls(_) => "No secure connection to the backend is possible",
            Self::UpstreamBroke(..) => "The backend broke off before it answered",
            Self::UpstreamMalformed(_) => "The backend gave a malformed answer",
            Self::UpstreamTimeout => "The backend did not answer in time",
            Self::UpstreamUnavailable => "The backend is not available; try again shortly",
            Self::UpstreamBusy => "Too many requests are under way; try again shortly",
            Self::Overloaded => "The gateway is overloaded; try again shortly",
            Self::LoginsSaturated => "Too many logins at once; try again shortly",
            Self::StoreFull => "Too many tokens are in use; try again later",
            Self::StoreUnavailable => "The token store cannot be reached; try again shortly",
            Self::StoreRolledBack => {
                "The token store was set back to an older state; its operator has to accept it"
            }
            Self::RevocationUnkept => {
                "It is refused from now on, but that could not be kept yet: a restart of the gateway before \
                 it is would undo it"
            }
            Self::AuditUnavailable => "Nobody can log in at present; try again shortly",
            Self::Starting => "The gateway is starting; try again shortly",
            Self::NoRandom => "No token can be issued at present; try again shortly",
            Self::Panicked => "The gateway failed at this request",
        }
    }

    /// The error type of `Proxy-Status`, as registered by RFC 9209 section 2.3.
    #[must_use]
    pub fn proxy_error(&self) -> &'static str {
        match self {
            Self::MalformedRequest(_)
            | Self::MalformedBody(_)
            | Self::MalformedCredentials(_)
            | Self::AdminMalformed(_)
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::OriginNotAllowed(_)
            | Self::HeadersTooSlow
            | Self::BodyTooSlow
            | Self::RequestTooLong
            | Self::LengthRequired
            | Self::BodyTooLarge { .. }
            | Self::UriTooLong
            | Self::UnsupportedMediaType
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::FormRefused(_)
            | Self::IdempotencyKey(_)
            | Self::KeyReused
            | Self::HeadersTooLarge => "http_request_error",
            Self::LoginFailed(_)
            | Self::TooManyAttempts { .. }
            | Self::TooManyRequests(..)
            | Self::TooManyAtOnce { .. }
            | Self::TooMuchAtOnce { .. }
            | Self::TooMuchUnauthenticated
            | Self::TooManyTokens { .. }
            | Self::TokenRefused(_)
            | Self::Forbidden(_)
            | Self::NotAdmitted(_)
            | Self::SecretRefused
            | Self::ForeignRequest(_)
            | Self::RepeatInFlight
            | Self::OutcomeUnknown
            | Self::AnswerNotStored { .. }
            | Self::TooManyRemembered { .. }
            | Self::PlainHttp => "http_request_denied",
            Self::UpstreamUnreachable(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    "connection_refused"
                } else {
                    "destination_unavailable"
                }
            }
            Self::UpstreamUnavailable => "destination_unavailable",
            Self::UpstreamConnectTimeout => "connection_timeout",
            Self::UpstreamTls(TlsFailure::Certificate(_)) => "tls_certificate_error",
            Self::UpstreamTls(TlsFailure::Alert(_)) => "tls_alert_received",
            Self::UpstreamTls(TlsFailure::Handshake(_)) => "tls_protocol_error",
            Self::UpstreamBroke(..) => "connection_terminated",
            Self::UpstreamMalformed(_) => "http_protocol_error",
            Self::UpstreamTimeout => "http_response_timeout",
            Self::UpstreamBusy => "connection_limit_reached",
            Self::Overloaded
            | Self::LoginsSaturated
            | Self::StoreFull
            | Self::ReplayGuardFull
            | Self::StoreUnavailable
            | Self::StoreRolledBack
            | Self::RevocationUnkept
            | Self::AuditUnavailable
            | Self::Starting
            | Self::NoRandom
            | Self::Panicked => "proxy_internal_error",
        }
    }

    /// The `details` of `Proxy-Status`: what the client may know beyond the envelope's text.
    #[must_use]
    pub fn details(&self) -> String {
        let cause = self.cause();
        match self.delivery() {
            None => cause,
            Some(Delivery::Nothing) => format!("{cause}; the backend received none of the request"),
            Some(Delivery::Unknown) => {
                format!("{cause}; the backend may have received the request")
            }
        }
    }

    /// What the backend has received of a request that it should have answered.
    #[must_use]
    pub fn delivery(&self) -> Option<Delivery> {
        match self {
            Self::UpstreamUnreachable(_)
            | Self::UpstreamConnectTimeout
            | Self::UpstreamTls(_)
            | Self::UpstreamUnavailable
            | Self::UpstreamBusy => Some(Delivery::Nothing),
            Self::UpstreamBroke(_, delivery) => Some(*delivery),
            Self::UpstreamMalformed(_) | Self::UpstreamTimeout => Some(Delivery::Unknown),
            Self::MalformedRequest(..)
            | Self::MalformedBody(..)
            | Self::MalformedCredentials(..)
            | Self::LoginFailed(..)
            | Self::TooManyAttempts { .. }
            | Self::TooManyRequests(..)
            | Self::TooManyAtOnce { .. }
            | Self::TooMuchAtOnce { .. }
            | Self::TooMuchUnauthenticated
            | Self::TooManyTokens { .. }
            | Self::TokenRefused(..)
            | Self::Forbidden(..)
            | Self::NotAdmitted(..)
            | Self::FormRefused(..)
            | Self::AdminMalformed(..)
            | Self::SecretRefused
            | Self::ForeignRequest(..)
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::OriginNotAllowed(_)
            | Self::HeadersTooSlow
            | Self::BodyTooSlow
            | Self::RequestTooLong
            | Self::LengthRequired
            | Self::BodyTooLarge { .. }
            | Self::UriTooLong
            | Self::UnsupportedMediaType
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::HeadersTooLarge
            | Self::IdempotencyKey(_)
            | Self::RepeatInFlight
            | Self::OutcomeUnknown
            | Self::AnswerNotStored { .. }
            | Self::KeyReused
            | Self::TooManyRemembered { .. }
            | Self::ReplayGuardFull
            | Self::PlainHttp
            | Self::Overloaded
            | Self::LoginsSaturated
            | Self::StoreFull
            | Self::StoreUnavailable
            | Self::StoreRolledBack
            | Self::RevocationUnkept
            | Self::AuditUnavailable
            | Self::Starting
            | Self::NoRandom
            | Self::Panicked => None,
        }
    }

    fn cause(&self) -> String {
        match self {
            Self::MalformedRequest(reason)
            | Self::UpstreamMalformed(reason)
            | Self::AdminMalformed(reason)
            | Self::ForeignRequest(reason) => (*reason).to_owned(),
            Self::MalformedCredentials(error) => error.to_string(),
            Self::LoginFailed(_) => "invalid credentials".to_owned(),
            Self::TokenRefused(fault) => fault.to_string(),
            Self::Forbidden(missing) => missing.to_string(),
            Self::NotAdmitted(reason) => reason.to_string(),
            Self::FormRefused(violation) => violation.to_string(),
            Self::BodyTooLarge { limit } => format!("the limit is {limit} bytes"),
            Self::Panicked => "internal error".to_owned(),
            Self::TooManyRequests(paced, exceeded) => {
                format!("the limit for {} is {}", paced.whose(), exceeded.rate)
            }
            Self::TooManyAtOnce { limit } => format!("the limit for the user is {limit} at once"),
            Self::TooMuchAtOnce { limit } => {
                format!("the limit for the user is {limit} bytes at once")
            }
            Self::TooManyTokens { limit } => format!("the limit for the user is {limit} tokens"),
            Self::IdempotencyKey(fault) => fault.to_string(),
            Self::AnswerNotStored { status } => {
                format!("the same request was answered with {}", status.as_u16())
            }
            Self::TooManyRemembered { limit } => {
                format!("the limit for the user is {limit} requests")
            }
            Self::MalformedBody(_)
            | Self::TooManyAttempts { .. }
            | Self::TooMuchUnauthenticated
            | Self::SecretRefused
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::OriginNotAllowed(_)
            | Self::HeadersTooSlow
            | Self::BodyTooSlow
            | Self::RequestTooLong
            | Self::LengthRequired
            | Self::UriTooLong
            | Self::UnsupportedMediaType
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::HeadersTooLarge
            | Self::PlainHttp
            | Self::UpstreamUnreachable(_)
            | Self::UpstreamConnectTimeout
            | Self::UpstreamTls(_)
            | Self::UpstreamBroke(..)
            | Self::UpstreamTimeout
            | Self::UpstreamUnavailable
            | Self::UpstreamBusy
            | Self::RepeatInFlight
            | Self::OutcomeUnknown
            | Self::KeyReused
            | Self::ReplayGuardFull
            | Self::Overloaded
            | Self::LoginsSaturated
            | Self::StoreFull
            | Self::StoreUnavailable
            | Self::StoreRolledBack
            | Self::RevocationUnkept
            | Self::AuditUnavailable
            | Self::Starting
            | Self::NoRandom => self.code().replace('_', " "),
        }
    }

    /// A word for the log: one per variant, a token's fault told apart.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::MalformedRequest(_) => "malformed_request",
            Self::MalformedBody(_) => "malformed_body",
            Self::MalformedCredentials(_) => "malformed_credentials",
            Self::LoginFailed(LoginFault::UnknownUser) => "login_unknown_user",
            Self::LoginFailed(LoginFault::DisabledUser) => "login_disabled_user",
            Self::LoginFailed(LoginFault::NotAdmitted(_)) => "login_not_admitted",
            Self::LoginFailed(LoginFault::WrongPassword) => "login_wrong_password",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::TooManyRequests(RateScope::User, _) => "user_rate",
            Self::TooManyRequests(RateScope::Route, _) => "route_rate",
            Self::TooManyRequests(RateScope::Source, _) => "source_rate",
            Self::TooManyAtOnce { .. } => "user_requests",
            Self::TooMuchAtOnce { .. } => "user_bodies",
            Self::TooMuchUnauthenticated => "unauthenticated_memory",
            Self::TooManyTokens { .. } => "user_tokens",
            Self::TokenRefused(fault) => fault.code(),
            Self::Forbidden(MissingRight::Route) => "no_right_to_route",
            Self::Forbidden(MissingRight::Method) => "no_right_to_method",
            Self::Forbidden(MissingRight::Form) => "no_right_to_form",
            Self::NotAdmitted(_) => "not_admitted",
            Self::FormRefused(_) => "form_refused",
            Self::AdminMalformed(_) => "admin_malformed",
            Self::SecretRefused => "secret_refused",
            Self::ForeignRequest(_) => "foreign_request",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::OriginNotAllowed(_) => "origin_not_allowed",
            Self::HeadersTooSlow => "headers_too_slow",
            Self::BodyTooSlow => "body_too_slow",
            Self::RequestTooLong => "request_too_long",
            Self::LengthRequired => "length_required",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::ExpectationFailed => "expectation_failed",
            Self::Misdirected => "misdirected",
            Self::HeadersTooLarge => "headers_too_large",
            Self::IdempotencyKey(_) => "idempotency_key",
            Self::RepeatInFlight => "repeat_in_flight",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::AnswerNotStored { .. } => "answer_not_stored",
            Self::KeyReused => "idempotency_key_reused",
            Self::TooManyRemembered { .. } => "user_remembered_requests",
            Self::ReplayGuardFull => "replay_guard_full",
            Self::PlainHttp => "plain_http",
            Self::UpstreamUnreachable(_) => "upstream_unreachable",
            Self::UpstreamConnectTimeout => "upstream_connect_timeout",
            Self::UpstreamTls(_) => "upstream_tls",
            Self::UpstreamBroke(..) => "upstream_broke",
            Self::UpstreamMalformed(_) => "upstream_malformed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamBusy => "upstream_busy",
            Self::Overloaded => "overloaded",
            Self::LoginsSaturated => "logins_saturated",
            Self::StoreFull => "store_full",
            Self::StoreUnavailable => "store_unavailable",
            Self::StoreRolledBack => "store_rolled_back",
            Self::RevocationUnkept => "revocation_unkept",
            Self::AuditUnavailable => "audit_unavailable",
            Self::Starting => "starting",
            Self::NoRandom => "no_random",
            Self::Panicked => "panicked",
        }
    }

    /// Whether it refuses somebody what he is not authorized to, so that it is audited.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::LoginFailed(_)
                | Self::TooManyAttempts { .. }
                | Self::TokenRefused(_)
                | Self::Forbidden(_)
                | Self::NotAdmitted(_)
                | Self::FormRefused(_)
        )
    }

    /// After how long the client may try again, for the refusals that pass by themselves.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::UpstreamBusy
            | Self::LoginsSaturated
            | Self::StoreUnavailable
            | Self::Starting
            | Self::NoRandom
            | Self::TooManyAtOnce { .. }
            | Self::TooMuchAtOnce { .. }
            | Self::TooMuchUnauthenticated => Some(Duration::from_secs(1)),
            Self::UpstreamUnavailable | Self::Overloaded => Some(Duration::from_secs(5)),
            Self::RevocationUnkept | Self::AuditUnavailable => Some(Duration::from_secs(5)),
            Self::StoreFull
            | Self::StoreRolledBack
            | Self::TooManyTokens { .. }
            | Self::TooManyRemembered { .. }
            | Self::ReplayGuardFull => Some(Duration::from_secs(60)),
            // To the next whole second, since the header has no parts of one.
            Self::TooManyAttempts { wait } | Self::TooManyRequests(_, Exceeded { wait, .. }) => {
                Some(Duration::from_secs(
                    wait.saturating_add(ALMOST_A_SECOND).as_secs(),
                ))
            }
            Self::MalformedRequest(_)
            | Self::MalformedBody(_)
            | Self::MalformedCredentials(_)
            | Self::LoginFailed(_)
            | Self::TokenRefused(_)
            | Self::Forbidden(_)
            | Self::NotAdmitted(_)
            | Self::FormRefused(_)
            | Self::AdminMalformed(_)
            | Self::SecretRefused
            | Self::ForeignRequest(_)
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::OriginNotAllowed(_)
            | Self::HeadersTooSlow
            | Self::BodyTooSlow
            | Self::RequestTooLong
            | Self::LengthRequired
            | Self::BodyTooLarge { .. }
            | Self::UriTooLong
            | Self::UnsupportedMediaType
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::HeadersTooLarge
            | Self::IdempotencyKey(_)
            | Self::RepeatInFlight
            | Self::OutcomeUnknown
            | Self::AnswerNotStored { .. }
            | Self::KeyReused
            | Self::PlainHttp
            | Self::UpstreamUnreachable(_)
            | Self::UpstreamConnectTimeout
            | Self::UpstreamTls(_)
            | Self::UpstreamBroke(..)
            | Self::UpstreamMalformed(_)
            | Self::UpstreamTimeout
            // The backend may have had it: sending it once more is not the gateway's to suggest.
            | Self::Panicked => None,
        }
    }

    /// Whether an HTTP/1 connection ends with this answer, whatever was read of the body: after
    /// these nobody can say where the next request begins.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Self::MalformedRequest(_)
                | Self::MalformedBody(_)
                | Self::HeadersTooSlow
                | Self::BodyTooSlow
                | Self::RequestTooLong
                | Self::BodyTooLarge { .. }
                | Self::UriTooLong
                | Self::HeadersTooLarge
                // Reading its body would hold on to what there is too much of.
                | Self::TooMuchUnauthenticated
                | Self::ExpectationFailed
                | Self::PlainHttp
                | Self::Panicked
        )
    }
}

const ALMOST_A_SECOND: Duration = Duration::from_nanos(999_999_999);

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each variant that differs in what clients see. hyper's errors cannot be made here.
    fn refusals() -> Vec<Refusal> {
        use Refusal as R;
        vec![
            R::MalformedRequest("x"),
            R::MalformedCredentials(CredentialsError::NotAnObject),
            R::FormRefused(FormViolation::MissingForm),
            R::AdminMalformed("x"),
            R::SecretRefused,
            R::ForeignRequest("x"),
            R::LoginFailed(LoginFault::UnknownUser),
            R::TooManyAttempts {
                wait: Duration::from_millis(1),
            },
            R::TooManyRequests(
                RateScope::Source,
                Exceeded {
                    rate: "100/1s".parse().unwrap(),
                    wait: Duration::from_millis(1),
                },
            ),
            R::TooManyAtOnce { limit: 1 },
            R::TooMuchAtOnce { limit: 1 },
            R::TooMuchUnauthenticated,
            R::TooManyTokens { limit: 1 },
            R::TokenRefused(TokenFault::Missing),
            R::Forbidden(MissingRight::Route),
            R::IdempotencyKey(KeyFault::Malformed),
            R::RepeatInFlight,
            R::OutcomeUnknown,
            R::AnswerNotStored {
                status: StatusCode::OK,
            },
            R::KeyReused,
            R::TooManyRemembered { limit: 1 },
            R::ReplayGuardFull,
            R::PlainHttp,
            R::NotFound,
            R::MethodNotAllowed {
                allow: "POST".into(),
            },
            R::OriginNotAllowed(OriginNotAllowed),
            R::HeadersTooSlow,
            R::BodyTooSlow,
            R::RequestTooLong,
            R::LengthRequired,
            R::BodyTooLarge { limit: 1 },
            R::FormRefused(FormViolation::FormTooLate),
            R::UriTooLong,
            R::UnsupportedMediaType,
            R::ExpectationFailed,
            R::Misdirected,
            R::HeadersTooLarge,
            R::UpstreamUnreachable(io::ErrorKind::ConnectionRefused.into()),
            R::UpstreamMalformed("x"),
            R::UpstreamUnavailable,
            R::UpstreamBusy,
            R::Overloaded,
            R::LoginsSaturated,
            R::StoreFull,
            R::StoreUnavailable,
            R::AuditUnavailable,
            R::Starting,
            R::NoRandom,
            R::UpstreamConnectTimeout,
            R::UpstreamTimeout,
        ]
    }

    #[test]
    fn the_docs_list_every_refusal_with_its_status_and_text() {
        let page = include_str!("../../docs/answers.md");
        for refusal in refusals() {
            let row = format!(
                "| {} | {} |",
                refusal.status().as_u16(),
                refusal.client_text()
            );
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn what_stands_in_a_header_needs_no_quoting() {
        for refusal in refusals() {
            let details = refusal.details();
            let plain = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
            assert!(details.chars().all(plain), "{details}");
        }
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        for refusal in refusals() {
            let passes = [
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::TOO_MANY_REQUESTS,
            ];
            let passes = passes.contains(&refusal.status());
            assert_eq!(refusal.retry_after().is_some(), passes, "{refusal}");
        }
    }
}
