//! Asks the admin interface of the running gateway, over its unix socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::Value;
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
        "{config} names no admin socket to ask the gateway at; write into it\n\n    [admin]\n    \
         socket = \"run/admin.sock\"\n\nmake the folder (mkdir -m 700 run), and start syncgate anew"
    )]
    NoSocket { config: String },
    #[error(
        "nobody listens on {socket}; start `syncgate run` with this configuration, or name that of \
         the running one with --config FILE"
    )]
    Nobody {
        socket: String,
        #[source]
        cause: io::Error,
    },
    #[error(
        "{socket} is for the user alone whom syncgate runs as; run this as that user, or as root"
    )]
    Denied {
        socket: String,
        #[source]
        cause: io::Error,
    },
    #[error("the gateway cannot be asked on {socket}")]
    Broken {
        socket: String,
        #[source]
        cause: io::Error,
    },
    #[error("the gateway refuses: {status} {text}")]
    Refused { status: u16, text: String },
}

impl AdminClient {
    /// For the gateway of this configuration. What else it names need not be there.
    pub(super) fn of(config: &ConfigFile) -> Result<Self, Failure> {
        let path = &config.path;
        let section = config::load_alone(path)?.config.admin;
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
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: syncgate\r\n");
        if !body.is_empty() {
            request += "Content-Type: application/json\r\n";
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request = request + "\r\n" + &body;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(LARGEST).read_to_end(&mut answer)?;
        let parsed = parse(&answer);
        parsed.ok_or_else(|| io::Error::other("what came back is no whole answer of the gateway's"))
    }
}

fn is_nobody(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Status and JSON of a whole HTTP/1.1 answer that says its length.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = (answer.get(..end)?, answer.get(end + 4..)?);
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let same = name.eq_ignore_ascii_case("content-length");
        same.then(|| value.trim().parse::<usize>().ok()).flatten()
    })?;
    let whole = body.len() == length;
    let value = serde_json::from_slice(body).ok().filter(|_| whole)?;
    Some((status.parse().ok()?, value))
}

/// Somewhat longer than the gateway takes at the most.
const PATIENCE: Duration = Duration::from_secs(150);
/// Room for a page of tokens, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_one() {
        let whole = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\na: b\r\n\r\n{}";
        assert_eq!(parse(whole.as_bytes()), Some((404, serde_json::json!({}))));
        for wrong in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{",
            "HTTP/1.1 2\r\ncontent-length: 2\r\n\r\n{}",
            "SSH-2.0-OpenSSH\r\ncontent-length: 2\r\n\r\n{}",
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
