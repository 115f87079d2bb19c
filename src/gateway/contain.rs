//! A panic costs the request it happens in.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// The work panicked. The hook of the process has said where.
#[derive(Debug)]
pub(super) struct Panicked;

/// Drives `work` to its end, or to its panic. It is not touched again then; what it shares with
/// others must not be left half changed by any step of it that can panic.
pub(super) async fn contained<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(Err(Panicked)), |poll| poll.map(Ok))
    })
    .await
}
