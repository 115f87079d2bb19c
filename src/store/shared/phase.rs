//! Pure: what the connections to the server are good for.
//!
//! ```text
//! Connecting -> Syncing -> Serving
//!      ^           |  ^       |
//!      |           v  |       |
//!      |         Refused <----+
//!      +--- from each of them, when the connection is lost
//! ```
//!
//! The order that makes a revocation hold whatever becomes of the server: a server is asked for nothing
//! (Serving) before it has everything that was revoked here (Syncing), before every other gateway's
//! revocations that were seen here are there again (Refused), and before the map that was filled from the
//! server before is empty.

use std::fmt;

/// What the connections are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// There are none.
    Connecting,
    /// The server is told what it has to know first.
    Syncing,
    /// The server cannot be trusted as it is.
    Refused(Reason),
    /// Everything.
    Serving,
}

/// Why a server cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Revocations are missing that were there.
    RolledBack,
    /// Its clock and this gateway's differ by more than they may.
    Clock,
}

impl Phase {
    /// Whether the other phase can follow on this one.
    pub(super) fn leads_to(self, next: Self) -> bool {
        match (self, next) {
            (_, Self::Connecting | Self::Syncing)
            | (Self::Syncing | Self::Refused(_) | Self::Serving, Self::Refused(_))
            | (Self::Syncing, Self::Serving) => true,
            (Self::Connecting, Self::Refused(_))
            | (Self::Connecting | Self::Refused(_) | Self::Serving, Self::Serving) => false,
        }
    }

    /// For a cell that threads share.
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::Connecting => 0,
            Self::Syncing => 1,
            Self::Refused(Reason::RolledBack) => 2,
            Self::Refused(Reason::Clock) => 3,
            Self::Serving => 4,
        }
    }

    /// The word for it that `/health` has.
    pub(super) fn word(byte: u8) -> &'static str {
        match byte {
            1 => "syncing",
            2 => "rolled_back",
            3 => "clock",
            4 => "serving",
            _ => "connecting",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RolledBack => {
                "the server's state is older than it was: revocations are missing, and the gateway that \
                 made them has not told of them again. If it never will, run `syncgate tokens revoke \
                 --before TIME` with a time after which the server was not set back (or --all): that ends \
                 every token that may be good again, and accepts the state on all gateways"
            }
            Self::Clock => {
                "the clocks of this gateway and of the server differ by more than \
                 tokens.shared.max_clock_skew: set them"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_served_before_everything_was_told() {
        use Phase::{Connecting, Refused, Serving, Syncing};
        let refused = Refused(Reason::RolledBack);
        for before in [Connecting, refused, Refused(Reason::Clock), Serving] {
            assert!(!before.leads_to(Serving), "{before:?}");
            assert!(before.leads_to(Syncing) && before.leads_to(Connecting));
        }
        assert!(Syncing.leads_to(Serving) && Syncing.leads_to(refused));
        assert!(Serving.leads_to(refused) && !Connecting.leads_to(refused));
    }

    #[test]
    fn each_has_a_word_of_its_own() {
        let all = [
            Phase::Connecting,
            Phase::Syncing,
            Phase::Refused(Reason::RolledBack),
            Phase::Refused(Reason::Clock),
            Phase::Serving,
        ];
        let words: std::collections::BTreeSet<_> = all
            .iter()
            .map(|phase| Phase::word(phase.to_byte()))
            .collect();
        assert_eq!(words.len(), all.len());
    }
}
