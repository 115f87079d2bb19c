//! Active checks: a request of the gateway's own, to find out whether a server is up.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use http::Method;
use tokio::time::timeout;

use super::connect::connect;
use super::connection::{Connection, HeadError, HeadProgress};
use super::server::Server;
use super::settings::{CheckPath, CheckSection};
use crate::error_chain::chain;

/// Asks the server once, on a connection of its own.
///
/// # Errors
/// Why it is not up.
pub(super) async fn check(
    server: &Server,
    path: &CheckPath,
    settings: &CheckSection,
) -> Result<(), String> {
    match timeout(settings.timeout, ask(server, path, settings)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no response within {:?}", settings.timeout)),
    }
}

async fn ask(server: &Server, path: &CheckPath, settings: &CheckSection) -> Result<(), String> {
    let open = Rc::default();
    let connecting = connect(server, 0, settings.timeout, &open).await;
    let (stream, generation) = connecting.map_err(|error| chain(&error))?;
    let mut connection = Connection::new(stream, generation);
    let host = server.host.to_str().unwrap_or_default();
    let path = path.as_str();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: syncgate\r\nconnection: close\r\n\r\n"
    );
    let written = send(&mut connection, request.as_bytes()).await;
    written.map_err(|error| format!("writing failed: {error}"))?;
    let mut progress = HeadProgress::default();
    let head = poll_fn(|cx| connection.poll_head(cx, &Method::GET, &mut progress)).await;
    let head = head.map_err(|error| match error {
        HeadError::Broken(cause) => chain(&cause),
        HeadError::Malformed(reason) => format!("its response is malformed: {reason}"),
    })?;
    match settings.status.contains(&head.status) {
        true => Ok(()),
        false => Err(format!("it responded {}", head.status.as_u16())),
    }
}

/// Writes all of the bytes.
///
/// # Errors
/// If the connection breaks.
pub(super) async fn send(connection: &mut Connection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| connection.stream.poll_write(cx, bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    poll_fn(|cx| connection.stream.poll_flush(cx)).await
}
