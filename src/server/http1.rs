//! An HTTP/1 connection: hyper serves it while a request is in flight; while it rests, only its stream is kept.

mod timer;

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{sleep, timeout};

use super::drain::Watch;
use super::http2::scheduler::StreamScheduler;
use super::stream::ClientStream;
use crate::connection::{ClientConnection, Http1, Phase, are_empty_lines};
use crate::gateway::WorkerGateway;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply;
use crate::limits::Limits;
use crate::waker_suppression::ConnectionWaker;
use timer::{Expired, REST_AFTER, Timer};

/// Serves a connection until it ends.
pub(super) async fn serve(
    mut stream: ClientStream,
    gateway: Rc<WorkerGateway>,
    client: Rc<ClientConnection>,
    watch: Watch,
    scheduler: Rc<StreamScheduler>,
) {
    let Some(http1) = client.http1() else {
        return;
    };
    loop {
        let limits = &*gateway.limits();
        let served = run(stream, &gateway, (&client, http1), &watch, &scheduler).await;
        stream = served.stream;
        match served.outcome {
            ServeOutcome::Idle if are_empty_lines(&served.read_ahead) => {
                let skipped = served.read_ahead.len();
                // It keeps hyper's whole buffer alive.
                drop(served.read_ahead);
                let longest = match client.begun() {
                    0 => limits.header_read.saturating_sub(REST_AFTER),
                    _ => limits.keep_alive,
                };
                let Some(first) = rest(&mut stream, &watch, longest, skipped).await else {
                    return close(stream, http1, limits).await;
                };
                stream.put_back(first);
            }
            ServeOutcome::Idle => {
                // The next head has begun: its time starts now.
                http1.head_begins();
                stream.put_back(served.read_ahead);
            }
            ServeOutcome::Closed => {
                return match stream.kept_back().map(refusal_for_status) {
                    Some(refusal) if served.request_begun => {
                        answer_last(stream, &gateway, &client, http1, &refusal).await;
                    }
                    Some(_) | None => close(stream, http1, limits).await,
                };
            }
            ServeOutcome::HeadTimeout => {
                return answer_last(stream, &gateway, &client, http1, &Refusal::HeadersTooSlow)
                    .await;
            }
            ServeOutcome::Aborted => return stream.reset_on_close(),
        }
    }
}

/// Why hyper stopped serving a connection.
#[derive(Clone, Copy)]
enum ServeOutcome {
    /// No request is in flight.
    Idle,
    /// The connection ended, either cleanly or because a request could not be parsed.
    Closed,
    /// The head of a request did not arrive in time.
    HeadTimeout,
    /// A response could not be completed, or the client does not read it.
    Aborted,
}

/// A connection that hyper stopped serving.
struct Served {
    outcome: ServeOutcome,
    stream: ClientStream,
    /// What hyper read after the last request.
    read_ahead: Bytes,
    /// Whether a request had begun, rather than only empty lines.
    request_begun: bool,
}

async fn run(
    stream: ClientStream,
    gateway: &Rc<WorkerGateway>,
    (client, http1): (&Rc<ClientConnection>, &Http1),
    watch: &Watch,
    scheduler: &StreamScheduler,
) -> Served {
    let service = service_fn(|request| {
        scheduler.note_contention();
        let (gateway, client) = (Rc::clone(gateway), Rc::clone(client));
        async move {
            let response = gateway.handle(&client, request).await;
            Ok::<_, Infallible>(match client.is_used_up() || watch.lingers() {
                true => {
                    // The client may have sent another request already.
                    http1.will_linger();
                    reply::closing(response)
                }
                false => response,
            })
        }
    });
    let limits = &*gateway.limits();
    // Dropped after hyper in any case: the request holds a reference to the client.
    let _request = LastRequest(http1);
    let mut builder = Builder::new();
    builder
        .max_header_size(usize::try_from(limits.header_size.as_u64()).unwrap_or(usize::MAX))
        .auto_date_header(false);
    // On the heap, so that a resting connection does not reserve memory for it.
    let mut connection = Box::new(builder.serve_connection(TokioIo::new(stream), service));
    let mut timer = Timer::new(client, limits);
    let mut waker = ConnectionWaker::default();
    let mut draining = false;
    let outcome = poll_fn(|cx| {
        loop {
            let mut wrapped = Context::from_waker(waker.of(cx.waker()));
            if let Poll::Ready(result) = Pin::new(&mut *connection).poll(&mut wrapped) {
                // Between requests, an error means that the client left, or that a head could not be
                // parsed and must still be answered. After a response, it means that the client abandoned
                // the rest of its request.
                let aborted = result.is_err() && http1.phase() == Phase::Answering;
                return Poll::Ready(match aborted {
                    true => ServeOutcome::Aborted,
                    false => ServeOutcome::Closed,
                });
            }
            if http1.phase() == Phase::Closing {
                return Poll::Ready(ServeOutcome::Closed);
            }
            if draining || !watch.has_begun() {
                return timer
                    .poll(cx, client, http1, limits)
                    .map(|expired| match expired {
                        Expired::Idle => ServeOutcome::Idle,
                        Expired::Head => ServeOutcome::HeadTimeout,
                        Expired::Write => ServeOutcome::Aborted,
                    });
            }
            draining = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
    })
    .await;
    let request_begun = http1.phase() != Phase::Idle;
    if http1.phase().is_amid_request() {
        // The client may still be sending.
        http1.will_linger();
    }
    let parts = connection.into_parts();
    Served {
        outcome,
        stream: parts.io.into_inner(),
        read_ahead: parts.read_buf,
        request_begun,
    }
}

/// The last request of a connection, which is kept until hyper has dropped its parts.
struct LastRequest<'a>(&'a Http1);

impl Drop for LastRequest<'_> {
    fn drop(&mut self) {
        self.0.forget_request();
    }
}

/// Waits for the first bytes of the next request without hyper's buffers, and skips empty lines before it, of
/// which `skipped` bytes were skipped already. `None` if the client disconnects, is idle for too long or sends
/// too many empty lines, or the gateway is draining.
async fn rest(
    stream: &mut ClientStream,
    watch: &Watch,
    longest: Duration,
    mut skipped: usize,
) -> Option<Bytes> {
    let _resting = watch.rests();
    let mut deadline = Box::pin(sleep(longest));
    poll_fn(|cx| {
        while skipped <= EMPTY_LINES && !watch.has_begun() {
            let mut first = [0; 1024];
            let mut first = ReadBuf::new(&mut first);
            match Pin::new(&mut *stream).poll_read(cx, &mut first) {
                Poll::Pending => return deadline.as_mut().poll(cx).map(|()| None),
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(())) if first.filled().is_empty() => return Poll::Ready(None),
                Poll::Ready(Ok(())) if are_empty_lines(first.filled()) => {
                    skipped += first.filled().len();
                }
                Poll::Ready(Ok(())) => {
                    return Poll::Ready(Some(Bytes::copy_from_slice(first.filled())));
                }
            }
        }
        Poll::Ready(None)
    })
    .await
}

/// Answers a request that never reached the service, and closes the connection.
async fn answer_last(
    mut stream: ClientStream,
    gateway: &WorkerGateway,
    client: &ClientConnection,
    http1: &Http1,
    refusal: &Refusal,
) {
    let limits = &*gateway.limits();
    let answer = gateway.present().refuse_unread(client, refusal);
    stream.stop_guarding();
    http1.will_linger();
    if let Ok(Ok(())) = timeout(limits.write_stall, stream.write_all(&answer)).await {
        close(stream, http1, limits).await;
    }
}

/// Closes a connection so that its last response arrives: if a socket is closed with unread bytes, because the
/// client is still sending, the kernel discards what was written.
async fn close(mut stream: ClientStream, http1: &Http1, limits: &Limits) {
    stream.stop_guarding();
    let mut scrap = vec![0; if http1.lingers() { 16 * 1024 } else { 0 }];
    let ending = async {
        let shut = stream.shutdown().await.is_ok();
        while shut && http1.lingers() && stream.read(&mut scrap).await.is_ok_and(|read| read > 0) {}
    };
    // A client that does not close in time is cut off.
    let _ = timeout(limits.linger, ending).await;
}

/// The refusal to send instead of hyper's own response.
fn refusal_for_status(status: u16) -> Refusal {
    match status {
        414 => Refusal::UriTooLong,
        431 => Refusal::HeadersTooLarge,
        _ => Refusal::MalformedRequest("it is not valid HTTP/1.1"),
    }
}

/// How many bytes of empty lines a client may send between two requests. Some old clients send one line after a
/// body.
const EMPTY_LINES: usize = 256;
