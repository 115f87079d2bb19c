//! A stand-in for the ERP's integration API, for `syncgate demo` and for experiments. Like the real one, it
//! counts the records it receives, assigns keys and responds with codes of its own. It stores nothing but the
//! counts.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A running sample backend on a loopback port. Dropping it stops it.
#[derive(Debug)]
pub struct SampleBackend {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SampleBackend {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// If the operating system provides no port or no thread.
    pub fn start() -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("sample-backend".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let outcome = match runtime {
                    Ok(runtime) => runtime.block_on(serve(&ready, stopped)),
                    Err(error) => Err(error),
                };
                if let Err(error) = outcome {
                    let _ = ready.send(Err(error));
                }
            })?;
        let address = address.recv().map_err(io::Error::other)??;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SampleBackend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    ready: &mpsc::Sender<io::Result<SocketAddr>>,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let _ = ready.send(Ok(listener.local_addr()?));
    let keys = Arc::new(AtomicU64::new(1));
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = &mut stopped => return Ok(()),
        };
        let keys = Arc::clone(&keys);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&keys)));
            // A gateway that goes away is no concern of a sample.
            let _ = Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    keys: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let answer = match body {
        Ok(body) => respond(&path, &body.to_bytes(), &keys),
        Err(error) if error.is::<LengthLimitError>() => {
            BatchResult::failed("The batch is too large")
        }
        Err(_) => BatchResult::failed("The batch was cut off"),
    };
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    #[expect(
        clippy::disallowed_methods,
        reason = "a backend's answer, not the gateway's"
    )]
    let mut response = Response::new(Full::new(Bytes::from(body)));
    // The result is in its own `code`; the status is always 200.
    *response.status_mut() = StatusCode::OK;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

fn respond(path: &str, body: &[u8], keys: &AtomicU64) -> BatchResult {
    let batch: Batch<'_> = match serde_json::from_slice(body) {
        Ok(batch) => batch,
        Err(_) => return BatchResult::failed("The body is not a batch: form and data are needed"),
    };
    let records = batch.data.len();
    let code = match path {
        "/api/SyncData" => 201,
        "/api/SyncVoucher" => 202,
        "/api/GetData" => 200,
        _ => return BatchResult::failed("Unknown function"),
    };
    let first = keys.fetch_add(records.max(1) as u64, Ordering::Relaxed);
    BatchResult {
        success: true,
        messages: format!("{} records of {} processed", records, batch.form),
        records,
        fkey: format!("{}-{first}", batch.form),
        code,
    }
}

#[derive(Deserialize)]
struct Batch<'a> {
    form: String,
    #[serde(borrow, default)]
    data: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct BatchResult {
    success: bool,
    messages: String,
    records: usize,
    fkey: String,
    code: u16,
}

impl BatchResult {
    fn failed(message: &str) -> Self {
        Self {
            success: false,
            messages: message.to_owned(),
            records: 0,
            fkey: String::new(),
            code: 601,
        }
    }
}

/// The largest batch in bytes, which is read into memory.
const MAX_BODY: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_with_codes_of_its_own() {
        let keys = AtomicU64::new(1);
        let two = br#"{"form":"setCustomer","data":[{"a":1},{"a":2}]}"#;
        let cases: [(&str, &[u8], u16, usize, &str); 5] = [
            ("/api/SyncData", two, 201, 2, "setCustomer-1"),
            ("/api/SyncVoucher", two, 202, 2, "setCustomer-3"),
            (
                "/api/GetData",
                br#"{"form":"getStock"}"#,
                200,
                0,
                "getStock-5",
            ),
            ("/api/SyncData", b"{}", 601, 0, ""),
            ("/api/Other", two, 601, 0, ""),
        ];
        for (path, body, code, records, key) in cases {
            let answer = respond(path, body, &keys);
            let found = (
                answer.code,
                answer.records,
                answer.fkey.as_str(),
                answer.success,
            );
            assert_eq!(found, (code, records, key, code != 601), "{path}");
        }
    }
}
