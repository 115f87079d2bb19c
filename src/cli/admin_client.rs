//! A client for the admin interface of the running gateway, over its unix socket.

use std::io;
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
    socket: PathBuf,
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
        "nothing listens on {socket}; start `syncgate run` with this configuration, or name the \
         configuration of the running one with --config FILE"
    )]
    Nobody {
        socket: String,
        #[source]
        cause: io::Error,
    },
    #[error(
        "only the user that syncgate runs as can open {socket}; run this as that user, or as root"
    )]
    Denied {
        socket: String,
        #[source]
        cause: io::Error,
    },
    #[error("the request to the gateway on {socket} failed")]
    Broken {
        socket: String,
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
        Ok(Self { socket })
    }

    /// Asks, with JSON if there is some to send.
    pub(super) fn ask(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<AdminAnswer, Failure> {
        let (status, value) = self.exchange(method, target, body).map_err(|cause| {
            let socket = self.socket.display().to_string();
            let kind = cause.kind();
            Failure::other(if is_nobody(kind) {
                AskError::Nobody { socket, cause }
            } else if kind == io::ErrorKind::PermissionDenied {
                AskError::Denied { socket, cause }
            } else {
                AskError::Broken { socket, cause }
            })
        })?;
        match status {
            200 => Ok(AdminAnswer::Done(value)),
            404 => Ok(AdminAnswer::NotFound),
            _ => {
                let text = value["messages"].as_str().unwrap_or_default().to_owned();
                Err(Failure::other(AskError::Refused { status, text }))
            }
        }
    }

    fn exchange(
        &self,
        method: &Method,
        target: &str,
        body: Option<&Value>,
    ) -> io::Result<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let fields = [("Host", "syncgate"), ("Content-Type", "application/json")];
        let request = Request {
            method: method.as_str(),
            target,
            // Without a body there is nothing to have a type.
            fields: &fields[..1 + usize::from(!body.is_empty())],
            body: &body,
        };
        let connection = Connection::unix(&self.socket, TIMEOUT)?;
        let answer = connection
            .reading_up_to(MAX_BODY)
            .exchange(&request, TIMEOUT)?;
        Ok((answer.status, serde_json::from_slice(&answer.body)?))
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
/// Room for a page of tokens, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;
