//! Pure: whether a server of an upstream gets requests. What its requests, the active checks and an
//! operator say of it comes in with the time; what has changed comes out with the reason.

use std::fmt;
use std::time::Duration;

use super::settings::{CheckSection, EjectionSection};
use crate::clock::UptimeMillis;

/// Whether a server gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// It gets its share.
    Up,
    /// It was not available before, and gets a share that grows (slow start).
    Recovering {
        /// From when on it grows.
        since: UptimeMillis,
    },
    /// Too many of its requests failed.
    Ejected {
        /// When that was found.
        since: UptimeMillis,
        /// For how long.
        lasts: Duration,
    },
    /// Active checks fail.
    Down,
    /// An operator wants it to get none.
    Drained,
}

impl ServerState {
    /// All words for it.
    pub const NAMES: [&str; 5] = ["up", "recovering", "ejected", "down", "drained"];

    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Recovering { .. } => "recovering",
            Self::Ejected { .. } => "ejected",
            Self::Down => "down",
            Self::Drained => "drained",
        }
    }

    /// Whether a server in this state gets requests.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Up | Self::Recovering { .. } => true,
            Self::Ejected { .. } | Self::Down | Self::Drained => false,
        }
    }
}

/// How a request failed in a way that is the server's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Unreachable,
    ConnectTimeout,
    Tls,
    Broke,
    Malformed,
    Timeout,
    /// 502, 503 or 504.
    Status(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "it cannot be reached",
            Self::ConnectTimeout => "connecting took too long",
            Self::Tls => "TLS with it failed",
            Self::Broke => "it broke off",
            Self::Malformed => "its response was malformed",
            Self::Timeout => "it did not respond in time",
            Self::Status(status) => return write!(f, "it responded {status}"),
        })
    }
}

/// Why a server's state is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was never otherwise.
    Started,
    /// Requests failed one after the other, the last one so.
    Failures(u32, String),
    /// So many of so many requests failed.
    ErrorShare(u32, u32),
    /// The last of several checks failed so.
    CheckFailed(String),
    /// Checks succeed.
    ChecksPassed,
    /// The ejection is over.
    EjectionOver,
    /// It has its full share again.
    FullShare,
    /// An operator said so.
    Operator,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("since the start"),
            Self::Failures(1, last) => write!(f, "a request failed: {last}"),
            Self::Failures(count, last) => {
                write!(
                    f,
                    "{count} requests failed in a row, the last because {last}"
                )
            }
            Self::ErrorShare(failed, all) => write!(f, "{failed} of {all} requests failed"),
            Self::CheckFailed(last) => write!(f, "the health check failed: {last}"),
            Self::ChecksPassed => f.write_str("the health check succeeds"),
            Self::EjectionOver => f.write_str("the ejection is over"),
            Self::FullShare => f.write_str("the slow start is over"),
            Self::Operator => f.write_str("by an operator"),
        }
    }
}

/// A server whose state has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) server: usize,
    pub(super) from: ServerState,
}

/// The health of all servers of one upstream.
#[derive(Debug)]
pub(super) struct Health {
    ejection: EjectionSection,
    /// Whether there are active checks.
    is_checked: bool,
    fall: u32,
    rise: u32,
    servers: Vec<ServerHealth>,
}

/// What is known of one server.
#[derive(Debug, Clone)]
struct ServerHealth {
    state: ServerState,
    reason: Reason,
    window: Window,
    /// Ejections that followed one another, and when the last one ends.
    ejections: u32,
    ejected_until: UptimeMillis,
    checks: Checks,
}

#[derive(Debug, Default, Clone)]
struct Window {
    since: Option<UptimeMillis>,
    failed: u32,
    succeeded: u32,
}

/// The outcome of active checks: how many of the last ones agree.
#[derive(Debug, Clone, Copy)]
enum Checks {
    None,
    Passed(u32),
    Failed(u32),
}

impl Health {
    pub(super) fn new(check: &CheckSection, ejection: &EjectionSection, servers: usize) -> Self {
        let server = |_| ServerHealth {
            state: ServerState::Up,
            reason: Reason::Started,
            window: Window::default(),
            ejections: 0,
            ejected_until: UptimeMillis::START,
            checks: Checks::None,
        };
        Self {
            ejection: ejection.clone(),
            is_checked: check.path.is_some(),
            fall: check.fall.get(),
            rise: check.rise.get(),
            servers: (0..servers).map(server).collect(),
        }
    }

    /// Goes on from what was known `before` of each server: `known` has their places then. Who is no longer
    /// checked cannot be down.
    pub(super) fn take_over(
        &mut self,
        before: &Self,
        known: impl Iterator<Item = Option<usize>>,
        is_checked: bool,
    ) {
        for (server, known) in self.servers.iter_mut().zip(known) {
            let Some(known) = known.map(|place| &before.servers[place]) else {
                continue;
            };
            if known.state != ServerState::Down || is_checked {
                *server = known.clone();
            }
        }
    }

    pub(super) fn state(&self, server: usize) -> (ServerState, &Reason) {
        let health = &self.servers[server];
        (health.state, &health.reason)
    }

    /// In thousandths, what a server gets of its share; 0 when it gets no requests.
    pub(super) fn share(&self, server: usize, now: UptimeMillis) -> u32 {
        match self.servers[server].state {
            ServerState::Up => FULL_SHARE,
            ServerState::Recovering { since } => {
                let passed = now.since(since).as_millis();
                let whole = self.ejection.slow_start.as_millis().max(1);
                let share = passed.saturating_mul(u128::from(FULL_SHARE)) / whole;
                u32::try_from(share)
                    .unwrap_or(FULL_SHARE)
                    .clamp(SMALLEST_SHARE, FULL_SHARE)
            }
            ServerState::Ejected { .. } | ServerState::Down | ServerState::Drained => 0,
        }
    }

    /// Notes that requests succeeded.
    pub(super) fn succeeded(&mut self, server: usize, count: u32, now: UptimeMillis) {
        let window = self.servers[server].window(self.ejection.window, now);
        window.succeeded = window.succeeded.saturating_add(count);
    }

    /// Notes that a request failed, as the last of so many in a row.
    pub(super) fn failed(
        &mut self,
        server: usize,
        failure: Failure,
        in_a_row: u32,
        now: UptimeMillis,
    ) -> Option<Change> {
        let health = &mut self.servers[server];
        let window = health.window(self.ejection.window, now);
        window.failed = window.failed.saturating_add(1);
        let (failed, all) = (
            window.failed,
            window.failed.saturating_add(window.succeeded),
        );
        let enough = match health.state {
            ServerState::Up => self.ejection.failures.get(),
            // One request is the probe of a half-open breaker.
            ServerState::Recovering { .. } => 1,
            ServerState::Ejected { .. } | ServerState::Down | ServerState::Drained => return None,
        };
        let share = self.ejection.error_share;
        let reason = if in_a_row >= enough {
            Reason::Failures(in_a_row, failure.to_string())
        } else if all >= self.ejection.requests.get() && share.is_reached(failed, all) {
            Reason::ErrorShare(failed, all)
        } else {
            return None;
        };
        if !self.may_eject() {
            // Checks can end what they begin: to them, failures in a row are one that failed.
            let counts = self.is_checked && in_a_row.is_multiple_of(enough);
            let failed = counts.then(|| self.checked(server, Err(reason.to_string()), now));
            return failed.flatten();
        }
        let health = &mut self.servers[server];
        let healthy = now.since(health.ejected_until);
        if healthy > self.ejection.longest {
            health.ejections = 0;
        }
        let longer = 1 << health.ejections.min(16);
        let lasts = self.ejection.time.saturating_mul(longer);
        let lasts = lasts.min(self.ejection.longest);
        health.ejections += 1;
        health.ejected_until = now.plus(lasts);
        health.window = Window::default();
        Some(self.change(server, ServerState::Ejected { since: now, lasts }, reason))
    }

    /// Whether one more server may become unavailable by an ejection. The last one never is: there
    /// would be nothing else.
    fn may_eject(&self) -> bool {
        let states = || self.servers.iter().map(|server| server.state);
        let all = states()
            .filter(|state| *state != ServerState::Drained)
            .count();
        let available = states().filter(|state| state.is_available()).count();
        let most = self.ejection.max_ejected.of(all).min(all.saturating_sub(1));
        all - available < most
    }

    /// Notes the outcome of an active check.
    pub(super) fn checked(
        &mut self,
        server: usize,
        outcome: Result<(), String>,
        now: UptimeMillis,
    ) -> Option<Change> {
        let health = &mut self.servers[server];
        // The first check of all is as good as several: nothing is known of the server but that.
        let (fall, first) = match health.checks {
            Checks::None => (1, true),
            Checks::Passed(_) | Checks::Failed(_) => (self.fall, false),
        };
        health.checks = match (health.checks, &outcome) {
            (Checks::Passed(before), Ok(())) => Checks::Passed(before.saturating_add(1)),
            (Checks::Failed(before), Err(_)) => Checks::Failed(before.saturating_add(1)),
            (_, Ok(())) => Checks::Passed(1),
            (_, Err(_)) if first => Checks::Failed(self.fall),
            (_, Err(_)) => Checks::Failed(1),
        };
        match (health.state, health.checks, outcome) {
            (
                ServerState::Up | ServerState::Recovering { .. } | ServerState::Ejected { .. },
                Checks::Failed(count),
                Err(cause),
            ) if count >= fall => {
                Some(self.change(server, ServerState::Down, Reason::CheckFailed(cause)))
            }
            (ServerState::Down, Checks::Passed(count), _) if count >= self.rise => {
                Some(self.recover(server, Reason::ChecksPassed, now))
            }
            (
                ServerState::Up
                | ServerState::Recovering { .. }
                | ServerState::Ejected { .. }
                | ServerState::Down
                | ServerState::Drained,
                ..,
            ) => None,
        }
    }

    /// What has changed by the passing of time alone.
    pub(super) fn passed(&mut self, server: usize, now: UptimeMillis) -> Option<Change> {
        let over = |since, lasts| now.since(since) >= lasts;
        match self.servers[server].state {
            ServerState::Ejected { since, lasts } if over(since, lasts) => {
                Some(self.recover(server, Reason::EjectionOver, now))
            }
            ServerState::Recovering { since } if over(since, self.ejection.slow_start) => {
                Some(self.change(server, ServerState::Up, Reason::FullShare))
            }
            ServerState::Up
            | ServerState::Recovering { .. }
            | ServerState::Ejected { .. }
            | ServerState::Down
            | ServerState::Drained => None,
        }
    }

    /// Sends it no requests until it is enabled again.
    pub(super) fn drain(&mut self, server: usize) -> Option<Change> {
        match self.servers[server].state {
            ServerState::Drained => None,
            ServerState::Up
            | ServerState::Recovering { .. }
            | ServerState::Ejected { .. }
            | ServerState::Down => {
                Some(self.change(server, ServerState::Drained, Reason::Operator))
            }
        }
    }

    /// Sends it requests again, unless active checks fail.
    pub(super) fn enable(&mut self, server: usize, now: UptimeMillis) -> Option<Change> {
        match (self.servers[server].state, self.servers[server].checks) {
            (ServerState::Drained, Checks::Failed(count)) if count >= self.fall => {
                let reason = Reason::CheckFailed("as before it was enabled".to_owned());
                Some(self.change(server, ServerState::Down, reason))
            }
            (ServerState::Drained | ServerState::Ejected { .. }, _) => {
                Some(self.recover(server, Reason::Operator, now))
            }
            (ServerState::Up | ServerState::Recovering { .. } | ServerState::Down, _) => None,
        }
    }

    fn recover(&mut self, server: usize, reason: Reason, now: UptimeMillis) -> Change {
        let state = match self.ejection.slow_start.is_zero() {
            true => ServerState::Up,
            false => ServerState::Recovering { since: now },
        };
        self.servers[server].window = Window::default();
        self.change(server, state, reason)
    }

    fn change(&mut self, server: usize, to: ServerState, reason: Reason) -> Change {
        let health = &mut self.servers[server];
        health.reason = reason;
        let from = std::mem::replace(&mut health.state, to);
        Change { server, from }
    }
}

impl ServerHealth {
    /// The present window, which is a new one if the last is over.
    fn window(&mut self, length: Duration, now: UptimeMillis) -> &mut Window {
        let since = self.window.since.map(|since| now.since(since));
        if since.is_none_or(|passed| passed >= length) {
            self.window = Window {
                since: Some(now),
                ..Window::default()
            };
        }
        &mut self.window
    }
}

/// Thousandths.
pub(super) const FULL_SHARE: u32 = 1000;
const SMALLEST_SHARE: u32 = 50;

#[cfg(test)]
mod tests;
