//! Pure: what a token store knows about a live token. This does not include rights: a session names its
//! account, whose current rights decide, so that a change applies from the next request on.

mod account_id;
mod password_mark;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::origin::Source;

pub use account_id::AccountId;
pub use password_mark::PasswordMark;

/// A token's account and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    account: AccountId,
    mark: PasswordMark,
    source: Source,
    authenticated: UnixSeconds,
    issued: UnixSeconds,
    expires: UnixSeconds,
}

/// A successful login.
#[derive(Clone, Copy, Debug)]
pub struct Login {
    /// The account.
    pub account: AccountId,
    /// The account's password that was used.
    pub mark: PasswordMark,
    /// Where it came from.
    pub source: Source,
    /// When it happened.
    pub at: UnixSeconds,
}

/// How long tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a token, from its issue.
    pub token: Duration,
    /// Of a token that was renewed, from the renewal.
    pub overlap: Duration,
    /// Of all tokens of a login, from the login.
    pub longest: Duration,
}

impl Session {
    /// A session that begins with a login and expires after `lifetime`.
    #[must_use]
    pub fn begin(login: Login, lifetime: Duration) -> Self {
        Self {
            account: login.account,
            mark: login.mark,
            source: login.source,
            authenticated: login.at,
            issued: login.at,
            expires: login.at.plus(lifetime),
        }
    }

    /// A session that another process stored.
    #[must_use]
    pub fn restored(login: Login, issued: UnixSeconds, expires: UnixSeconds) -> Self {
        Self {
            issued,
            expires,
            ..Self::begin(login, Duration::ZERO)
        }
    }

    /// Whether the token was issued in the future, beyond the tolerance for clock differences: the clock was
    /// ahead at the time.
    #[must_use]
    pub fn is_ahead(self, now: UnixSeconds) -> bool {
        self.issued > now.plus(CLOCK_TOLERANCE)
    }

    /// Corrects the times of a token issued by a clock that was ahead: it has `left` to live, from `now`. Its
    /// lifetime never grows.
    #[must_use]
    pub fn corrected(self, now: UnixSeconds, left: Duration) -> Self {
        let expires = self.expires.min(now.plus(left));
        let ahead = self.expires.since(expires);
        let issued = self.issued.minus(ahead);
        let given = match self.authenticated > now {
            true => self.authenticated.minus(ahead),
            // The login may have been before the token's issue, while the clock was right.
            false => self.authenticated.min(issued),
        };
        Self {
            authenticated: given,
            issued,
            expires,
            ..self
        }
    }

    /// A stored session as of `now`: one that is [ahead](Self::is_ahead) has its whole lifetime left, from
    /// `now`.
    #[must_use]
    pub fn as_of(self, now: UnixSeconds) -> Self {
        match self.is_ahead(now) && self.expires > self.issued {
            true => self.corrected(now, self.expires.since(self.issued)),
            false => self,
        }
    }

    /// The session of a token that replaces this one at `now`, for another lifetime but at most until
    /// [`Lifetimes::longest`] after the login; `None` if that is over.
    #[must_use]
    pub fn renewed(self, now: UnixSeconds, lifetimes: Lifetimes) -> Option<Self> {
        let Lifetimes { token, longest, .. } = lifetimes;
        let session = Self {
            issued: now,
            expires: now.plus(token).min(self.authenticated.plus(longest)),
            ..self
        };
        session.is_live(now).then_some(session)
    }

    /// The same session, expiring at `end` or earlier.
    #[must_use]
    pub fn ending(self, end: UnixSeconds) -> Self {
        Self {
            expires: self.expires.min(end),
            ..self
        }
    }

    /// The same session, with login and issue no later than `latest`, the time of the store's server, in case
    /// the gateway's clock is ahead. The login stays at or after `since`, before which the account's tokens
    /// have ended.
    #[must_use]
    pub fn obtained_by(self, latest: UnixSeconds, since: UnixSeconds) -> Self {
        Self {
            authenticated: self.authenticated.min(latest.max(since)),
            issued: self.issued.min(latest),
            ..self
        }
    }

    /// The account that logged in.
    #[must_use]
    pub fn account(self) -> AccountId {
        self.account
    }

    /// The password that obtained the token: changing it ends the token.
    #[must_use]
    pub fn password_mark(self) -> PasswordMark {
        self.mark
    }

    /// Where the login came from.
    #[must_use]
    pub fn source(self) -> Source {
        self.source
    }

    /// The time of the login; before [`issued`](Self::issued) for a renewed token.
    #[must_use]
    pub fn authenticated(self) -> UnixSeconds {
        self.authenticated
    }

    /// When the token was issued.
    #[must_use]
    pub fn issued(self) -> UnixSeconds {
        self.issued
    }

    /// The first second at which the token is no longer accepted.
    #[must_use]
    pub fn expires(self) -> UnixSeconds {
        self.expires
    }

    /// Whether the token is still accepted.
    #[must_use]
    pub fn is_live(self, now: UnixSeconds) -> bool {
        now < self.expires
    }
}

/// Why the store does not return a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// No token with this digest is known.
    Unknown,
    /// The token has ended.
    Ended(End),
    /// A token of this account that was renewed and whose overlap is over, while others of its lineage may
    /// be live: it may have been stolen.
    Replaced(AccountId),
}

/// How a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It expired.
    Expired,
    /// It was not used for `tokens.idle`.
    Unused,
    /// An operator revoked it.
    Revoked,
    /// Its client revoked it.
    RevokedByClient,
    /// It was evicted for a newer token, by `tokens.per_user`.
    Evicted,
    /// A token that it was renewed from was presented after its overlap.
    Replayed,
    /// Its user was disabled.
    UserDisabled,
    /// Its user was removed.
    UserRemoved,
    /// Its user's password was changed.
    PasswordChanged,
}

impl End {
    const ALL: [Self; 9] = [
        Self::Expired,
        Self::Unused,
        Self::Revoked,
        Self::RevokedByClient,
        Self::Evicted,
        Self::Replayed,
        Self::UserDisabled,
        Self::UserRemoved,
        Self::PasswordChanged,
    ];

    /// A number for it.
    #[must_use]
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The one of that number.
    #[must_use]
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.number() == number)
    }

    /// A word for it, as the value of a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unused => "unused",
            Self::Revoked => "revoked",
            Self::RevokedByClient => "revoked_by_client",
            Self::Evicted => "evicted",
            Self::Replayed => "replayed",
            Self::UserDisabled => "user_disabled",
            Self::UserRemoved => "user_removed",
            Self::PasswordChanged => "password_changed",
        }
    }
}

/// How far in the future a token may have been issued without a clock being wrong.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// From the second 40 to the second 100.
    fn session() -> Session {
        let login = Login {
            account: AccountId::new(1),
            mark: PasswordMark::from_bytes([0; 8]),
            source: Source::V4([192, 0, 2, 1]),
            at: UnixSeconds::new(40),
        };
        Session::begin(login, Duration::from_secs(60))
    }

    #[test]
    fn a_renewed_session_never_outlives_the_longest_time_after_its_login() {
        let at = UnixSeconds::new;
        let lifetimes = Lifetimes {
            token: Duration::from_secs(60),
            overlap: Duration::from_secs(1),
            longest: Duration::from_secs(100),
        };
        let second = session().renewed(at(70), lifetimes).unwrap();
        assert_eq!((second.issued(), second.expires()), (at(70), at(130)));
        let third = second.renewed(at(120), lifetimes).unwrap();
        assert_eq!((third.issued(), third.expires()), (at(120), at(140)));
        assert_eq!(third.authenticated(), at(40));
        assert!(third.renewed(at(139), lifetimes).is_some());
        assert_eq!(third.renewed(at(140), lifetimes), None);
        assert_eq!(session().ending(at(80)).expires(), at(80));
        assert_eq!(session().ending(at(180)).expires(), at(100));
        let obtained = third.obtained_by(at(39), at(0));
        assert_eq!(
            (obtained.authenticated(), obtained.issued()),
            (at(39), at(39))
        );
        assert_eq!(third.obtained_by(at(120), at(0)), third);
        let obtained = third.obtained_by(at(30), at(35));
        assert_eq!(
            (obtained.authenticated(), obtained.issued()),
            (at(35), at(30))
        );
    }

    #[test]
    fn a_session_that_a_clock_ahead_began_is_set_right_and_never_made_longer() {
        let at = UnixSeconds::new;
        let session = session();
        for now in [35, 40, 99] {
            assert!(!session.is_ahead(at(now)), "{now}");
            assert_eq!(session.as_of(at(now)), session, "{now}");
        }
        let right = session.as_of(at(10));
        assert!(session.is_ahead(at(10)));
        let moments = [right.authenticated(), right.issued(), right.expires()];
        assert_eq!(moments, [10, 10, 70].map(at));
        assert_eq!(right.as_of(at(12)), right);
        let used = session.corrected(at(10), Duration::from_secs(20));
        let moments = [used.authenticated(), used.issued(), used.expires()];
        assert_eq!(moments, [0, 0, 30].map(at));
        assert_eq!(session.corrected(at(10), Duration::from_secs(500)), session);
        // The clock has passed the moment of issue since.
        let later = session.corrected(at(60), Duration::from_secs(10));
        let moments = [later.authenticated(), later.issued(), later.expires()];
        assert_eq!(moments, [10, 10, 70].map(at));
        // Its password was given before the clock was ahead.
        let lifetimes = Lifetimes {
            token: Duration::from_secs(60),
            overlap: Duration::from_secs(1),
            longest: Duration::from_secs(1000),
        };
        let renewed = session.renewed(at(90), lifetimes).unwrap().as_of(at(50));
        let moments = [renewed.authenticated(), renewed.issued(), renewed.expires()];
        assert_eq!(moments, [40, 50, 110].map(at));
    }

    #[test]
    fn a_session_ends_with_the_second_it_names() {
        let session = session();
        assert!(session.is_live(UnixSeconds::new(99)));
        assert!(!session.is_live(UnixSeconds::new(100)));
        assert!(!session.is_live(UnixSeconds::new(101)));
    }
}
