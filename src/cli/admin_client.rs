//! A client for the admin interface of the running gateway, over its unix socket or, for its health, over TCP.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use syncgate_selftest::client::{Connection, Request};
use thiserror::Error;

use super::ConfigFile;
use super::failure::Failure;
use crate::config;

/// Where the gateway of a configuration is asked.
#[derive(Debug)]
pub(super) struct AdminClient {
    place: Place,
}

/// Where the admin interface listens.
#[derive(Debug, Clone)]
enum Place {
    Socket(PathBuf),
    Address(SocketAddr),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What it answers.
#[derive(Debug)]
pub(super) enum AdminAnswer {
    /// What was asked for.
    Done(Value),
    /// There is no such thing.
    NotFound,
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum AskError {
    #[error(
        "{config} configures no admin socket to reach the gateway on; add\n\n    [admin]\n    \
         socket = \"run/admin.sock\"\n\ncreate the directory (mkdir -m 700 run), and restart syncgate"
    )]
    NoSocket { config: String },
    #[error(
        "{config} configures no admin interface to ask the gateway on; add\n\n    [admin]\n    \
         socket = \"run/admin.sock\"\n\ncreate the directory (mkdir -m 700 run), and restart syncgate"
    )]
    NoPlace { config: String },
    #[error(
        "nothing listens on {place}; start `syncgate run` with this configuration, or name the \
         configuration of the running one with --config FILE"
    )]
    Nobody {
        place: Place,
        #[source]
        cause: io::Error,
    },
    #[error(
        "only the user that syncgate runs as can open {place}; run this as that user, or as root"
    )]
    Denied {
        place: Place,
        #[source]
        cause: io::Error,
    },
    #[error("the request to the gateway on {place} failed")]
    Broken {
        place: Place,
        #[source]
        cause: io::Error,
    },
    #[error("the gateway refused: {status} {text}")]
    Refused { status: u16, text: String },
}

impl AdminClient {
    /// For the gateway of this configuration. What else it names need not be there.
    pub(super) fn of(config: &ConfigFile) -> Result<Self, Failure> {
        let path = &config.path;
        let section = config::load_without_file_checks(path)?.config.admin;
        let socket = section.socket.ok_or_else(|| {
            let config = path.display().to_string();
            Failure::usage(AskError::NoSocket { config })
        })?;
        let place = Place::Socket(socket);
        Ok(Self { place })
    }

    /// For the health of the gateway of this configuration, which the TCP address tells too.
    pub(super) fn for_health(config: &ConfigFile) -> Result<Self, Failure> {
        let path = &config.path;
        let section = config::load_without_file_checks(path)?.config.admin;
        let socket = section.socket.map(Place::Socket);
        let address = section.listen.map(|address| Place::Address(address.get()));
        let place = socket.or(address).ok_or_else(|| {
            let config = path.display().to_string();
            Failure::usage(AskError::NoPlace { config })
        })?;
        Ok(Self { place })
    }

    /// Asks, with JSON if there is some to send.
    pub(super) fn ask(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<AdminAnswer, Failure> {
        let answer = self.exchange(method, target, body, TIMEOUT);
        let (status, value) = answer.map_err(|cause| self.unanswered(cause))?;
        match status {
            200 => Ok(AdminAnswer::Done(value)),
            404 => Ok(AdminAnswer::NotFound),
            _ => {
                let text = value["messages"].as_str().unwrap_or_default().to_owned();
                Err(Failure::other(AskError::Refused { status, text }))
            }
        }
    }

    /// Asks how the gateway is, and returns the status and what it says, whichever they are.
    pub(super) fn probe(&self, target: &str) -> Result<(u16, Value), Failure> {
        let answer = self.exchange(&Method::GET, target, None, PROBE_TIMEOUT);
        answer.map_err(|cause| self.unanswered(cause))
    }

    /// Asks what a page asks for, and returns the status and the body, whichever they are.
    pub(super) fn relay(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let answer = self.exchange_bytes(method, target, body, TIMEOUT);
        answer.map_err(|cause| self.unanswered(cause))
    }

    fn unanswered(&self, cause: io::Error) -> Failure {
        let place = self.place.clone();
        let kind = cause.kind();
        Failure::other(if is_nobody(kind) {
            AskError::Nobody { place, cause }
        } else if kind == io::ErrorKind::PermissionDenied {
            AskError::Denied { place, cause }
        } else {
            AskError::Broken { place, cause }
        })
    }

    fn exchange(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> io::Result<(u16, Value)> {
        let (status, body) = self.exchange_bytes(method, target, body, timeout)?;
        Ok((status, serde_json::from_slice(&body)?))
    }

    fn exchange_bytes(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> io::Result<(u16, Vec<u8>)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let host = match &self.place {
            Place::Socket(_) => "syncgate".to_owned(),
            Place::Address(address) => address.to_string(),
        };
        let fields = [("Host", &*host), ("Content-Type", "application/json")];
        let request = Request {
            method: method.as_str(),
            target,
            // Without a body there is nothing to have a type.
            fields: &fields[..1 + usize::from(!body.is_empty())],
            body: &body,
        };
        let connection = match &self.place {
            Place::Socket(path) => Connection::unix(path, timeout)?,
            Place::Address(address) => Connection::tcp(*address, timeout)?,
        };
        let answer = connection
            .reading_up_to(MAX_BODY)
            .exchange(&request, timeout)?;
        Ok((answer.status, answer.body))
    }
}

fn is_nobody(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Somewhat longer than the gateway's own deadline.
const TIMEOUT: Duration = Duration::from_secs(150);
/// A gateway that takes longer is not well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for a page of tokens, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;
