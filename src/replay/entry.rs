//! Pure: what is remembered of one request, and how that changes. The scripts of the shared store do the same.
//!
//! ```text
//! nothing -> InFlight -> Answered
//!    ^          |  |        ^
//!    |          |  v        |
//!    +----------+  Unknown -+
//! ```
//!
//! A request is forwarded only by whoever has claimed its entry. The entry is free again only if the backend
//! certainly never had the whole request, or said that it did not process it.

mod record;

use bytes::Bytes;
use http::StatusCode;

use super::{Fingerprint, OnUnknown, Owner};
use crate::clock::UnixMillis;

/// What is remembered of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of whoever forwards or forwarded it.
    pub owner: Owner,
    /// Until the whole request was seen, nothing is known of it but its key.
    pub fingerprint: Option<Fingerprint>,
    /// How far it has come.
    pub state: State,
}

/// How far a remembered request has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is being forwarded.
    InFlight {
        /// Until when its owner is known to be there; `None` if that is this process.
        lease: Option<UnixMillis>,
    },
    /// The backend answered.
    Answered {
        /// With this status.
        status: StatusCode,
        /// The whole answer, sealed, if there was room for it.
        sealed: Option<Bytes>,
    },
    /// The backend may have processed it or not.
    Unknown,
}

/// What a request learns of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the first: it is forwarded by whoever asked.
    Claimed,
    /// The first is being forwarded.
    InFlight,
    /// Another request had the same key.
    OtherRequest,
    /// The outcome of the first is unknown.
    Unknown,
    /// The first was answered.
    Answered {
        /// With this status.
        status: StatusCode,
        /// The whole answer, if it was stored.
        sealed: Option<Bytes>,
        /// Of the first request.
        fingerprint: Option<Fingerprint>,
    },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The backend never had all of it, or did not process it.
    Freed,
    /// The backend may have processed it.
    Unknown,
    /// The backend answered.
    Answered {
        /// With this status.
        status: StatusCode,
        /// The whole answer, sealed, if it is to be stored.
        sealed: Option<Bytes>,
        /// Of the request.
        fingerprint: Fingerprint,
    },
}

impl Entry {
    /// The entry of a request that nothing is remembered of.
    #[must_use]
    pub fn claimed(
        owner: Owner,
        fingerprint: Option<Fingerprint>,
        lease: Option<UnixMillis>,
    ) -> Self {
        Self {
            owner,
            fingerprint,
            state: State::InFlight { lease },
        }
    }

    /// What a request with this fingerprint, if it is known already, learns. [`Verdict::Claimed`] if it may
    /// take the entry over with [`Entry::claimed`].
    #[must_use]
    pub fn verdict(
        &self,
        fingerprint: Option<Fingerprint>,
        unknown: OnUnknown,
        now: UnixMillis,
    ) -> Verdict {
        if let (Some(first), Some(this)) = (self.fingerprint, fingerprint)
            && first != this
        {
            return Verdict::OtherRequest;
        }
        match &self.state {
            State::InFlight { lease } if lease.is_none_or(|until| now < until) => Verdict::InFlight,
            State::InFlight { .. } | State::Unknown => match unknown {
                OnUnknown::Refuse => Verdict::Unknown,
                OnUnknown::Forward => Verdict::Claimed,
            },
            State::Answered { status, sealed } => Verdict::Answered {
                status: *status,
                sealed: sealed.clone(),
                fingerprint: self.fingerprint,
            },
        }
    }

    /// What is remembered once its owner knows the outcome; `None` if nothing is. A claim that another took
    /// over, or that is settled already, changes nothing.
    #[must_use]
    pub fn settled(self, owner: Owner, settlement: Settlement) -> Option<Self> {
        let is_open = match self.state {
            State::InFlight { .. } | State::Unknown => true,
            State::Answered { .. } => false,
        };
        if self.owner != owner || !is_open {
            return Some(self);
        }
        match settlement {
            Settlement::Freed => None,
            Settlement::Unknown => Some(Self {
                state: State::Unknown,
                ..self
            }),
            Settlement::Answered {
                status,
                sealed,
                fingerprint,
            } => Some(Self {
                fingerprint: Some(fingerprint),
                state: State::Answered { status, sealed },
                ..self
            }),
        }
    }

    /// What is left of it in a file when the process that claimed it is gone.
    #[must_use]
    pub fn orphaned(self) -> Self {
        let state = match self.state {
            State::InFlight { .. } => State::Unknown,
            kept @ (State::Unknown | State::Answered { .. }) => kept,
        };
        Self { state, ..self }
    }

    /// Whether it is being forwarded.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight { .. })
    }

    /// How many bytes of a stored answer it has.
    #[must_use]
    pub fn stored(&self) -> u64 {
        match &self.state {
            State::Answered {
                sealed: Some(sealed),
                ..
            } => sealed.len() as u64,
            State::Answered { sealed: None, .. } | State::InFlight { .. } | State::Unknown => 0,
        }
    }
}

#[cfg(test)]
mod exploration;
