//! An HTTP/2 connection.

pub(crate) mod frame_budget;
pub(crate) mod scheduler;
mod trailers;

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep};

use super::drain::Watch;
use super::stream::ClientStream;
use crate::connection::{ClientConnection, GoAway};
use crate::gateway::WorkerGateway;

use scheduler::StreamExecutor;

/// Serves a connection until it ends: by the client, after a long time without a request or with
/// answers that the client does not take, or because the gateway stops.
pub(super) async fn serve(
    stream: ClientStream,
    gateway: Rc<WorkerGateway>,
    client: Rc<ClientConnection>,
    watch: Watch,
    executor: StreamExecutor,
) {
    let Some(http2) = client.http2() else {
        return;
    };
    let limits = &*gateway.limits();
    let service = service_fn(|request| {
        let (gateway, client) = (Rc::clone(&gateway), Rc::clone(&client));
        // On the heap: hyper and the runtime move what they are given several times.
        Box::pin(async move { Ok::<_, Infallible>(gateway.handle(&client, request).await) })
    });
    let header_size = u32::try_from(limits.header_size.as_u64()).unwrap_or(u32::MAX);
    let mut builder = Builder::new(executor.clone());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams.get())
        // Above our own bound, so that a list somewhat too long is refused with an envelope.
        .max_header_list_size(header_size.saturating_mul(2))
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERRORS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    // The first head must begin as early as any other must end.
    let mut idle = Box::pin(sleep(limits.header_read));
    let mut stall = Box::pin(sleep(limits.write_stall));
    let mut stuck = None;
    let mut blocked = None;
    let mut begun = 0;
    let mut terminated = false;
    poll_fn(|cx| {
        executor.begin();
        loop {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if http2.goaway() == GoAway::Terminated && !terminated {
                terminated = true;
                idle.as_mut().reset(Instant::now() + limits.linger);
            }
            let is_last = watch.has_begun() || watch.lingers() || client.is_used_up();
            if is_last && http2.goaway() == GoAway::Open {
                http2.drain();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            if stall.as_mut().poll(cx).is_ready() {
                // A client may answer pings and yet make no room for its answers, or read next to
                // nothing of what it made room for.
                let no_room = std::mem::replace(&mut stuck, http2.stuck_at());
                let unread = std::mem::replace(&mut blocked, client.blocked_at());
                let now = Instant::now();
                if stuck.is_some() && stuck == no_room
                    || blocked.is_some() && blocked == unread
                    || client.write_due().is_some_and(|due| due <= now)
                {
                    return Poll::Ready(());
                }
                stall.as_mut().reset(now + limits.write_stall);
                continue;
            }
            if idle.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let at_rest = client.in_flight() == 0 && client.begun() == begun;
            match (http2.goaway(), at_rest) {
                // In both cases GOAWAY was sent a while ago, and the client does not leave.
                (GoAway::Terminated, _) | (GoAway::Draining, true) => return Poll::Ready(()),
                (GoAway::Open, true) => {
                    http2.drain();
                    connection.as_mut().graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + limits.linger);
                }
                (GoAway::Open | GoAway::Draining, false) => {
                    begun = client.begun();
                    idle.as_mut().reset(Instant::now() + limits.keep_alive);
                }
            }
        }
    })
    .await;
}

/// Streams that the client may reset before they were looked at (rapid reset, CVE-2023-44487).
const RESETS: usize = 20;

/// Streams that we reset because of the client's errors (CVE-2025-8671).
const ERRORS: usize = 100;

/// What h2 keeps of each answer until it is written, in bytes, and less than a piece more.
const SEND_BUFFER: usize = 32 * 1024;

const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
