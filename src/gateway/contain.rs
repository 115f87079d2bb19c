//! A panic costs the request it happens in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The work panicked. The hook of the process has said where.
#[derive(Debug)]
pub(super) struct Panicked;

/// Polls `work`, which must not be polled again once this is ready. What it shares with others must
/// not be left half changed by any step of it that can panic.
pub(super) fn poll_contained<F: Future>(
    work: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Panicked>> {
    let polled = catch_unwind(AssertUnwindSafe(|| work.poll(cx)));
    polled.map_or(Poll::Ready(Err(Panicked)), |poll| poll.map(Ok))
}
