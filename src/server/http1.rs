//! An HTTP/1 connection: hyper while there is something to do, and no more than the encrypted stream
//! while the client rests.
//!
//! The deadlines of a connection share one timer that is looked at when it fires and set anew, so
//! that an ordinary request touches no timer here.

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
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::drain::Watch;
use super::http2::scheduler::StreamScheduler;
use super::stream::ClientStream;
use crate::connection::{ClientConnection, Http1, Phase, are_empty_lines};
use crate::gateway::Gateway;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply;
use crate::limits::Limits;
use crate::waker_suppression::ConnectionWaker;

/// Serves a connection until it ends.
pub(super) async fn serve(
    mut stream: ClientStream,
    gateway: Rc<Gateway>,
    client: Rc<ClientConnection>,
    watch: Watch,
    scheduler: Rc<StreamScheduler>,
) {
    let Some(http1) = client.http1() else {
        return;
    };
    let shared = gateway.shared().clone();
    let limits = &shared.limits;
    loop {
        let (end, back) = run(stream, &gateway, (&client, http1), &watch, &scheduler).await;
        stream = back;
        match end {
            End::Rest(read_ahead) if are_empty_lines(&read_ahead) => {
                let skipped = read_ahead.len();
                // It keeps the whole buffer that it was cut from.
                drop(read_ahead);
                let longest = match client.begun() {
                    0 => limits.header_read.saturating_sub(REST_AFTER),
                    _ => limits.keep_alive,
                };
                let Some(first) = rest(&mut stream, &watch, longest, skipped).await else {
                    return close(stream, http1, limits).await;
                };
                stream.put_back(first);
            }
            End::Rest(read_ahead) => {
                // A head was begun behind the last request: its time starts now.
                http1.head_begins();
                stream.put_back(read_ahead);
            }
            End::Over { request } => {
                return match stream.kept_back().map(refusal_for_status) {
                    Some(refusal) if request => {
                        answer_last(stream, &gateway, &client, http1, &refusal).await;
                    }
                    Some(_) | None => close(stream, http1, limits).await,
                };
            }
            End::HeadTooSlow => {
                return answer_last(stream, &gateway, &client, http1, &Refusal::HeadersTooSlow)
                    .await;
            }
            End::Broken => return stream.reset_on_close(),
        }
    }
}

/// Why hyper's part ended.
enum End {
    /// Nothing is under way. Holds what was read of a next request.
    Rest(Bytes),
    /// The connection is over, in good order or by a request that could not be read; `request` where there was
    /// one, and not merely empty lines.
    Over { request: bool },
    /// The head of a request did not arrive in time.
    HeadTooSlow,
    /// An answer could not be completed, or nobody is there to read it.
    Broken,
}

async fn run(
    stream: ClientStream,
    gateway: &Rc<Gateway>,
    (client, http1): (&Rc<ClientConnection>, &Http1),
    watch: &Watch,
    scheduler: &StreamScheduler,
) -> (End, ClientStream) {
    let service = service_fn(|request| {
        scheduler.note_contention();
        let (gateway, client) = (Rc::clone(gateway), Rc::clone(client));
        async move {
            let response = gateway.handle(&client, request).await;
            Ok::<_, Infallible>(match client.is_used_up() {
                true => {
                    // The next request may be on its way.
                    http1.will_linger();
                    reply::closing(response)
                }
                false => response,
            })
        }
    });
    let limits = &gateway.shared().limits;
    // Dropped after hyper, and whatever happens: what it holds knows the client.
    let _request = LastRequest(http1);
    let mut builder = Builder::new();
    builder
        .max_header_size(usize::try_from(limits.header_size.as_u64()).unwrap_or(usize::MAX))
        .auto_date_header(false);
    // On the heap, so that a connection at rest does not keep the room for it.
    let mut connection = Box::new(builder.serve_connection(TokioIo::new(stream), service));
    let mut timer = Timer::new(client, limits);
    let mut waker = ConnectionWaker::default();
    let mut draining = false;
    let end = poll_fn(|cx| {
        loop {
            let mut held = Context::from_waker(waker.of(cx.waker()));
            if let Poll::Ready(result) = Pin::new(&mut *connection).poll(&mut held) {
                // Between requests an error is the client's way to leave, or a head that could not
                // be read and is still to be answered. After an answer it is the client's way out of
                // the rest of its request.
                let broken = result.is_err() && http1.phase() == Phase::Answering;
                return Poll::Ready(if broken { Why::Broken } else { Why::Over });
            }
            if http1.phase() == Phase::Closing {
                return Poll::Ready(Why::Over);
            }
            if draining || !watch.has_begun() {
                return timer.poll(cx, client, http1, limits);
            }
            draining = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
    })
    .await;
    let request = http1.phase() != Phase::Idle;
    if http1.phase().is_amid_request() {
        // It may still be sending.
        http1.will_linger();
    }
    let parts = connection.into_parts();
    let end = match end {
        Why::Rest => End::Rest(parts.read_buf),
        Why::Over => End::Over { request },
        Why::HeadTooSlow => End::HeadTooSlow,
        Why::Broken => End::Broken,
    };
    (end, parts.io.into_inner())
}

#[derive(Clone, Copy)]
enum Why {
    Rest,
    Over,
    HeadTooSlow,
    Broken,
}

/// The last request of a connection, for as long as hyper has anything of it.
struct LastRequest<'a>(&'a Http1);

impl Drop for LastRequest<'_> {
    fn drop(&mut self) {
        self.0.forget_request();
    }
}

/// One timer for the deadlines of a connection: the rest between requests, the head, the stalled or
/// slow write.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Armed,
}

/// What the timer was set for, with a number that tells whether it is still the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Armed {
    Rest { begun: u64 },
    Head { number: u64 },
    Stall { written: u64 },
    Busy,
}

impl Timer {
    fn new(client: &ClientConnection, limits: &Limits) -> Self {
        let armed = Armed::Rest {
            begun: client.begun(),
        };
        Self {
            sleep: Box::pin(sleep(Self::time_for(armed, limits))),
            armed,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &ClientConnection,
        http1: &Http1,
        limits: &Limits,
    ) -> Poll<Why> {
        loop {
            let due = Self::due(client, http1);
            // A head has its own deadline from its first byte to its last; the others can wait for
            // a tick.
            let of_head = |armed| matches!(armed, Armed::Head { .. });
            if self.armed != due && (of_head(due) || of_head(self.armed)) {
                self.arm(due, client, limits);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match due {
                Armed::Rest { .. } if self.armed == due => return Poll::Ready(Why::Rest),
                Armed::Head { .. } if self.armed == due => return Poll::Ready(Why::HeadTooSlow),
                Armed::Stall { .. } if self.armed == due || is_past(client.write_due()) => {
                    http1.answer_too_slow();
                    return Poll::Ready(Why::Broken);
                }
                Armed::Rest { .. } | Armed::Head { .. } | Armed::Stall { .. } | Armed::Busy => {}
            }
            self.arm(due, client, limits);
        }
    }

    fn due(client: &ClientConnection, http1: &Http1) -> Armed {
        match (http1.phase(), client.blocked_at()) {
            (Phase::Idle, _) => Armed::Rest {
                begun: client.begun(),
            },
            (Phase::Head, _) => Armed::Head {
                number: http1.heads(),
            },
            (Phase::Answering, Some(written)) => Armed::Stall { written },
            // The body of the request has deadlines of its own.
            (Phase::Answering, None) | (Phase::Uploading | Phase::Closing, _) => Armed::Busy,
        }
    }

    fn arm(&mut self, armed: Armed, client: &ClientConnection, limits: &Limits) {
        self.armed = armed;
        let mut until = Instant::now() + Self::time_for(armed, limits);
        if let (Armed::Stall { .. }, Some(due)) = (armed, client.write_due()) {
            until = until.min(due);
        }
        self.sleep.as_mut().reset(until);
    }

    fn time_for(armed: Armed, limits: &Limits) -> Duration {
        match armed {
            // The first head must begin as early as any other must end.
            Armed::Rest { begun: 0 } => REST_AFTER.min(limits.header_read),
            Armed::Rest { .. } | Armed::Busy => REST_AFTER,
            Armed::Head { .. } => limits.header_read,
            Armed::Stall { .. } => limits.write_stall,
        }
    }
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Waits for the first bytes of a next request without hyper's buffers, and throws empty lines before
/// them away, of which so many bytes were skipped already. None when the client leaves, rests for too
/// long or sends too many of them, or the gateway stops.
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

/// Answers for hyper where no service saw the request, and ends the connection.
async fn answer_last(
    mut stream: ClientStream,
    gateway: &Gateway,
    client: &ClientConnection,
    http1: &Http1,
    refusal: &Refusal,
) {
    let limits = &gateway.shared().limits;
    let answer = gateway.refuse_unread(client, refusal);
    stream.stop_guarding();
    http1.will_linger();
    if let Ok(Ok(())) = timeout(limits.write_stall, stream.write_all(&answer)).await {
        close(stream, http1, limits).await;
    }
}

/// Ends a connection so that its last answer arrives: the client may still be sending, and a socket
/// closed with unread bytes makes the kernel discard what was written.
async fn close(mut stream: ClientStream, http1: &Http1, limits: &Limits) {
    stream.stop_guarding();
    let mut scrap = vec![0; if http1.lingers() { 16 * 1024 } else { 0 }];
    let ending = async {
        let shut = stream.shutdown().await.is_ok();
        while shut && http1.lingers() && stream.read(&mut scrap).await.is_ok_and(|read| read > 0) {}
    };
    // Nothing is left to be done for a client that does not end in time.
    let _ = timeout(limits.linger, ending).await;
}

/// The refusal that stands for an answer of hyper's own.
fn refusal_for_status(status: u16) -> Refusal {
    match status {
        414 => Refusal::UriTooLong,
        431 => Refusal::HeadersTooLarge,
        _ => Refusal::MalformedRequest("it is not valid HTTP/1.1"),
    }
}

/// How many bytes of empty lines a client may send between two requests; clients of old send one line
/// behind a body.
const EMPTY_LINES: usize = 256;

/// After how long without a request a connection gives up hyper's buffers.
const REST_AFTER: Duration = Duration::from_secs(1);
