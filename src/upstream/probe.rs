//! One request of the gateway's own to a server that does not serve yet, to find out whether it could be used.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use http::header::DATE;
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout};

use super::check::send;
use super::connect::connect;
use super::connection::{Connection, HeadError, HeadProgress};
use super::error::UpstreamError;
use super::resolve::Resolver;
use super::server::{Place, Server};
use super::settings::{ServerSection, UpstreamSection};
use super::tls::{open_tls, secure};
use crate::clock::Clock;
use crate::error_chain::chain;
use crate::tls::TlsError;

/// What a server is found to be.
#[derive(Debug)]
pub(crate) struct Reached {
    /// When the certificate ends that it shows, in seconds since 1970; `None` without TLS.
    pub(crate) certificate_ends: Option<i64>,
    /// Its response, or why there was none.
    pub(crate) response: Result<Responded, String>,
}

/// How a server responded.
#[derive(Debug)]
pub(crate) struct Responded {
    pub(crate) status: StatusCode,
    /// How long it took.
    pub(crate) took: Duration,
    /// How far the gateway's clock is ahead of what it told, in seconds.
    pub(crate) ahead: Option<i64>,
}

/// Why nothing can be sent to a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// Its TLS settings cannot be used.
    #[error(transparent)]
    Settings(#[from] TlsError),
    /// There is no connection.
    #[error(transparent)]
    Connection(#[from] UpstreamError),
}

/// Asks the server for the path of its health check, or else for the head of `/`; `within` bounds both the
/// connection and the response.
///
/// # Errors
/// Why there is no connection to it.
pub(crate) async fn probe(
    section: &ServerSection,
    settings: &UpstreamSection,
    clock: &Clock,
    within: Duration,
) -> Result<Reached, ProbeError> {
    let tls = open_tls(settings, clock)?;
    let secure = secure(section, tls.as_ref())?;
    let server = Server::new(section, settings, section.weight.get(), secure, None);
    let asked = ask(&server, settings, clock, within);
    match &server.state.place {
        Place::Name(name) => {
            let resolver = Resolver::system();
            tokio::select! {
                reached = asked => reached,
                // Never ends by itself.
                () = name.keep_resolved(&resolver, within) => Err(UpstreamError::ConnectTimeout.into()),
            }
        }
        Place::Address(_) | Place::Socket(_) => asked.await,
    }
}

async fn ask(
    server: &Server,
    settings: &UpstreamSection,
    clock: &Clock,
    within: Duration,
) -> Result<Reached, ProbeError> {
    let open = Rc::default();
    let (stream, generation) = connect(server, 0, within, &open).await?;
    let mut connection = Connection::new(stream, generation);
    let response = timeout(within, exchange(server, settings, &mut connection, clock)).await;
    Ok(Reached {
        certificate_ends: server.secure.as_ref().and_then(|it| it.certificate_ends()),
        response: response.unwrap_or_else(|_| Err(format!("no response within {within:?}"))),
    })
}

async fn exchange(
    server: &Server,
    settings: &UpstreamSection,
    connection: &mut Connection,
    clock: &Clock,
) -> Result<Responded, String> {
    let (method, path) = match &settings.check.path {
        Some(path) => (Method::GET, path.as_str()),
        None => (Method::HEAD, "/"),
    };
    let host = server.host.to_str().unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: syncgate\r\nconnection: close\r\n\r\n"
    );
    let started = Instant::now();
    let written = send(connection, request.as_bytes()).await;
    written.map_err(|error| format!("writing failed: {error}"))?;
    let mut progress = HeadProgress::default();
    let head = poll_fn(|cx| connection.poll_head(cx, &method, &mut progress)).await;
    let head = head.map_err(|error| match error {
        HeadError::Broken(cause) => chain(&cause),
        HeadError::Malformed(reason) => format!("its response is malformed: {reason}"),
    })?;
    let date = head.headers.get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
    let date = date.and_then(|since| i64::try_from(since.as_secs()).ok());
    Ok(Responded {
        status: head.status,
        took: started.elapsed(),
        ahead: date.map(|date| clock.now().timestamp().as_second() - date),
    })
}
