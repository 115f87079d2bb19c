//! The timer of an HTTP/1 connection.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::connection::{ClientConnection, Http1, Phase};
use crate::limits::Limits;

/// A single timer for a connection's deadlines: idle time, head, and stalled or slow writes. It is only
/// checked and rearmed when it fires, so that ordinary requests do not touch it.
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Armed,
}

/// The deadline that expired.
#[derive(Clone, Copy)]
pub(super) enum Expired {
    /// The connection was idle for [`REST_AFTER`].
    Idle,
    /// The head of a request did not arrive in time.
    Head,
    /// The client read too slowly.
    Write,
}

/// What the timer was armed for, with a number that tells whether that has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Armed {
    Rest { begun: u64 },
    Head { number: u64 },
    Stall { written: u64 },
    Busy,
}

impl Timer {
    pub(super) fn new(client: &ClientConnection, limits: &Limits) -> Self {
        let armed = Armed::Rest {
            begun: client.begun(),
        };
        Self {
            sleep: Box::pin(sleep(Self::time_for(armed, limits))),
            armed,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &ClientConnection,
        http1: &Http1,
        limits: &Limits,
    ) -> Poll<Expired> {
        loop {
            let due = Self::due(client, http1);
            // A head's deadline runs from its first byte to its last; the other deadlines may be late by one
            // interval.
            let of_head = |armed| matches!(armed, Armed::Head { .. });
            if self.armed != due && (of_head(due) || of_head(self.armed)) {
                self.arm(due, client, limits);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match due {
                Armed::Rest { .. } if self.armed == due => return Poll::Ready(Expired::Idle),
                Armed::Head { .. } if self.armed == due => {
                    return Poll::Ready(Expired::Head);
                }
                Armed::Stall { .. } if self.armed == due || is_past(client.write_due()) => {
                    http1.response_too_slow();
                    return Poll::Ready(Expired::Write);
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
            // Request bodies have deadlines of their own.
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
            // The first head must begin within the time that other heads must end in.
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

/// How long a connection is idle before hyper's buffers are freed.
pub(super) const REST_AFTER: Duration = Duration::from_secs(1);
