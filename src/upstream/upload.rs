//! The rest of a request whose answer came before its end: sent by a task of its own, since the
//! client may read the answer only when it has sent all.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local};

use super::connection::Deadline;
use super::error::UpstreamBreak;
use super::sending::{SendError, Sending};
use super::stream::UpstreamStream;
use crate::body::Transfer;

/// The task that sends the rest of a request; ended when this is dropped.
#[derive(Debug)]
pub(super) struct Upload(Option<JoinHandle<Result<(), SendError>>>);

impl Upload {
    /// Goes on sending. Given up when the upstream takes nothing for longer than `stall`.
    pub(super) fn begin(
        mut sending: Sending,
        mut stream: UpstreamStream,
        transfer: Rc<Transfer>,
        stall: Duration,
    ) -> Self {
        Self(Some(spawn_local(async move {
            let mut deadline = Deadline::default();
            poll_fn(|cx| {
                if let Poll::Ready(result) = sending.poll(cx, &mut stream) {
                    return Poll::Ready(result);
                }
                let turn = || transfer.upstreams_turn_since();
                deadline.poll(cx, stall, turn).map(|()| {
                    let error = io::ErrorKind::TimedOut.into();
                    Err(SendError::Broken(UpstreamBreak::Write(error)))
                })
            })
            .await
        })))
    }

    /// How the sending ended.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(task) = &mut self.0 else {
            return Poll::Pending;
        };
        Pin::new(task).poll(cx).map(|ended| {
            self.0 = None;
            // The task ends by itself, or by a panic, which was reported.
            ended.unwrap_or(Err(SendError::Broken(UpstreamBreak::Closed)))
        })
    }

    /// Goes on by itself: the answer is over.
    pub(super) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
