//! What one process asks of the other, by names where ids are of one process only.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::accounts::Accounts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::replay::{Fingerprint, Owner, ReplayKey, Settlement, Verdict};
use crate::session::{Absent, End, PasswordMark, Session};
use crate::store::record::Record;
use crate::store::{Ended, Selection, StoreError};
use crate::token::{TokenDigest, TokenId};
use crate::traffic::LoginOutcome;

/// Something to do. `now` is in milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) enum Op {
    Find {
        digest: [u8; 32],
        now: u64,
    },
    Issue {
        session: WireSession,
        now: u64,
    },
    Renew {
        old: [u8; 10],
        session: WireSession,
        until: u32,
        now: u64,
    },
    DryRun {
        user: Option<String>,
        now: u64,
    },
    End {
        selection: WireSelection,
        end: End,
        now: u64,
    },
    Claim {
        key: Vec<u8>,
        owner: u64,
        fingerprint: Option<[u8; 32]>,
        now: u64,
    },
    Use {
        id: [u8; 10],
        now: u64,
    },
    Settle(WireSettle),
    Login(LoginOutcome),
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) enum Reply {
    Found(Result<WireSession, WireAbsent>),
    Done,
    /// Which others were evicted for it.
    Issued(Vec<[u8; 10]>),
    Ended(usize),
    Claimed(WireVerdict),
    /// There is no room for a claim; the limit of a user, if it is that.
    NoRoom(Option<usize>),
    Failed(StoreError),
}

/// A token: its record, as a file has it.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct WireSession {
    key: [u8; 10],
    value: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) enum WireAbsent {
    Unknown,
    Ended(End),
    Replaced(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) enum WireSelection {
    One([u8; 10]),
    OfUser(String),
    OfOtherPasswords(String, [u8; 8]),
    OfUserBefore(String, u32),
    AuthenticatedBefore(u32),
    All,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct WireSettle {
    key: Vec<u8>,
    owner: u64,
    settlement: WireSettlement,
    now: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum WireSettlement {
    Freed,
    Unknown,
    Answered {
        status: u16,
        sealed: Option<Vec<u8>>,
        fingerprint: [u8; 32],
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) enum WireVerdict {
    Claimed,
    InFlight,
    OtherRequest,
    Unknown,
    Answered {
        status: u16,
        sealed: Option<Vec<u8>>,
        fingerprint: Option<[u8; 32]>,
    },
}

pub(super) fn id(bytes: [u8; 10]) -> TokenId {
    TokenId::from_bytes(bytes)
}

pub(super) fn millis(now: u64) -> UnixMillis {
    UnixMillis::EPOCH.plus(Duration::from_millis(now))
}

pub(super) fn key(bytes: &[u8]) -> Option<ReplayKey> {
    bytes.try_into().ok().map(ReplayKey::from_bytes)
}

impl WireSession {
    /// `None` for a session of an account without a name, which there is not.
    pub(in crate::store) fn of(
        digest: TokenDigest,
        session: Session,
        accounts: &Accounts,
    ) -> Option<Self> {
        let user = accounts.name_of(session.account())?;
        let record = Record::new(digest, session, digest.id(), &user);
        Some(Self {
            key: record.key(),
            value: record.value(),
        })
    }

    pub(in crate::store) fn read(&self, accounts: &Accounts) -> Option<(TokenDigest, Session)> {
        let record = Record::read(self.key, &self.value).ok()?;
        let account = accounts.id_of(record.user);
        Some((record.digest, record.session(account)))
    }
}

impl WireAbsent {
    pub(super) fn of(absent: Absent, accounts: &Accounts) -> Self {
        match absent {
            Absent::Unknown => Self::Unknown,
            Absent::Ended(end) => Self::Ended(end),
            Absent::Replaced(account) => {
                let name = accounts.name_of(account);
                Self::Replaced(name.map_or_else(String::new, |name| name.as_ref().to_owned()))
            }
        }
    }

    pub(in crate::store) fn read(&self, accounts: &Accounts) -> Absent {
        match self {
            Self::Unknown => Absent::Unknown,
            Self::Ended(end) => Absent::Ended(*end),
            Self::Replaced(user) => Absent::Replaced(accounts.id_of(user)),
        }
    }
}

impl WireSelection {
    pub(in crate::store) fn of(selection: &Selection, accounts: &Accounts) -> Option<Self> {
        let name = |account| Some(accounts.name_of(account)?.as_ref().to_owned());
        Some(match *selection {
            Selection::One(id) => Self::One(id.to_bytes()),
            Selection::OfUser(account) => Self::OfUser(name(account)?),
            Selection::OfOtherPasswords(account, mark) => {
                Self::OfOtherPasswords(name(account)?, mark.to_bytes())
            }
            Selection::OfUserBefore(account, moment) => {
                Self::OfUserBefore(name(account)?, moment.as_u32())
            }
            Selection::AuthenticatedBefore(moment) => Self::AuthenticatedBefore(moment.as_u32()),
            Selection::All => Self::All,
        })
    }

    pub(super) fn read(&self, accounts: &Accounts) -> Selection {
        match self {
            Self::One(bytes) => Selection::One(id(*bytes)),
            Self::OfUser(user) => Selection::OfUser(accounts.id_of(user)),
            Self::OfOtherPasswords(user, mark) => {
                Selection::OfOtherPasswords(accounts.id_of(user), PasswordMark::from_bytes(*mark))
            }
            Self::OfUserBefore(user, moment) => {
                Selection::OfUserBefore(accounts.id_of(user), UnixSeconds::new(*moment))
            }
            Self::AuthenticatedBefore(moment) => {
                Selection::AuthenticatedBefore(UnixSeconds::new(*moment))
            }
            Self::All => Selection::All,
        }
    }
}

impl WireSettle {
    pub(in crate::store) fn of(
        key: ReplayKey,
        owner: Owner,
        settlement: Settlement,
        now: UnixMillis,
    ) -> Self {
        Self {
            key: key.to_bytes().to_vec(),
            owner: owner.0,
            settlement: match settlement {
                Settlement::Freed => WireSettlement::Freed,
                Settlement::Unknown => WireSettlement::Unknown,
                Settlement::Answered {
                    status,
                    sealed,
                    fingerprint,
                } => WireSettlement::Answered {
                    status: status.as_u16(),
                    sealed: sealed.map(|sealed| sealed.to_vec()),
                    fingerprint: *fingerprint.as_bytes(),
                },
            },
            now: now.as_u64(),
        }
    }

    pub(super) fn read(self) -> Option<(ReplayKey, Owner, Settlement, UnixMillis)> {
        let settlement = match self.settlement {
            WireSettlement::Freed => Settlement::Freed,
            WireSettlement::Unknown => Settlement::Unknown,
            WireSettlement::Answered {
                status,
                sealed,
                fingerprint,
            } => Settlement::Answered {
                status: StatusCode::from_u16(status).ok()?,
                sealed: sealed.map(Bytes::from),
                fingerprint: Fingerprint::from_bytes(fingerprint),
            },
        };
        let now = millis(self.now);
        Some((key(&self.key)?, Owner(self.owner), settlement, now))
    }
}

impl WireVerdict {
    pub(super) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Claimed => Self::Claimed,
            Verdict::InFlight => Self::InFlight,
            Verdict::OtherRequest => Self::OtherRequest,
            Verdict::Unknown => Self::Unknown,
            Verdict::Answered {
                status,
                sealed,
                fingerprint,
            } => Self::Answered {
                status: status.as_u16(),
                sealed: sealed.map(|sealed| sealed.to_vec()),
                fingerprint: fingerprint.map(|it| *it.as_bytes()),
            },
        }
    }

    pub(in crate::store) fn read(self) -> Option<Verdict> {
        Some(match self {
            Self::Claimed => Verdict::Claimed,
            Self::InFlight => Verdict::InFlight,
            Self::OtherRequest => Verdict::OtherRequest,
            Self::Unknown => Verdict::Unknown,
            Self::Answered {
                status,
                sealed,
                fingerprint,
            } => Verdict::Answered {
                status: StatusCode::from_u16(status).ok()?,
                sealed: sealed.map(Bytes::from),
                fingerprint: fingerprint.map(Fingerprint::from_bytes),
            },
        })
    }
}

impl Reply {
    pub(super) fn of_ended(ended: Result<Ended, StoreError>) -> Self {
        match ended {
            Ok(ended) => Self::Ended(ended.count),
            Err(error) => Self::Failed(error),
        }
    }

    pub(super) fn of_issued(issued: Result<Vec<TokenId>, StoreError>) -> Self {
        match issued {
            Ok(evicted) => Self::Issued(evicted.into_iter().map(TokenId::to_bytes).collect()),
            Err(error) => Self::Failed(error),
        }
    }

    /// For the issue of a token.
    pub(in crate::store) fn issued(self) -> Result<Vec<TokenId>, StoreError> {
        let Self::Issued(evicted) = self else {
            return Err(self.done().err().unwrap_or(StoreError::Unavailable));
        };
        Ok(evicted.into_iter().map(id).collect())
    }

    pub(super) fn of_done(done: Result<(), StoreError>) -> Self {
        match done {
            Ok(()) => Self::Done,
            Err(error) => Self::Failed(error),
        }
    }

    /// For what has no other outcome than done or failed.
    pub(in crate::store) fn done(self) -> Result<(), StoreError> {
        match self {
            Self::Done => Ok(()),
            Self::Failed(error) => Err(error),
            Self::Found(_)
            | Self::Issued(_)
            | Self::Ended(_)
            | Self::Claimed(_)
            | Self::NoRoom(_) => Err(StoreError::Unavailable),
        }
    }
}
