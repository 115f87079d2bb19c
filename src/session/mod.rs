//! Pure: what a token store knows of a live token. Rights are not in it: the session names its
//! account, and the account's present rights decide, so that a change holds from the next request.

mod account_id;
mod password_mark;

use std::time::Duration;

use crate::clock::UnixSeconds;
use crate::origin::Source;

pub use account_id::AccountId;
pub use password_mark::PasswordMark;

/// Whose a token is, since when and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    account: AccountId,
    mark: PasswordMark,
    source: Source,
    authenticated: UnixSeconds,
    issued: UnixSeconds,
    expires: UnixSeconds,
}

/// What a login leads to.
#[derive(Clone, Copy, Debug)]
pub struct Login {
    /// Who logged in.
    pub account: AccountId,
    /// With which of the account's passwords.
    pub mark: PasswordMark,
    /// Where from.
    pub source: Source,
    /// When.
    pub at: UnixSeconds,
}

/// How long tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// A token from its issue on.
    pub token: Duration,
    /// One that was renewed, from then on.
    pub overlap: Duration,
    /// The last of them from the password on.
    pub longest: Duration,
}

impl Session {
    /// The session that begins with a login and ends after `lifetime`.
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

    /// The session that began with a login, as another process kept it.
    #[must_use]
    pub fn restored(login: Login, issued: UnixSeconds, expires: UnixSeconds) -> Self {
        Self {
            issued,
            expires,
            ..Self::begin(login, Duration::ZERO)
        }
    }

    /// Whether the token was issued in the future, by more than clocks differ anyway: by a clock that was
    /// ahead then.
    #[must_use]
    pub fn is_ahead(self, now: UnixSeconds) -> bool {
        self.issued > now.plus(CLOCK_TOLERANCE)
    }

    /// The session of a token that a clock ahead issued and that has `left` to live, by the clock that
    /// shows `now`. Never longer than it was.
    #[must_use]
    pub fn set_right(self, now: UnixSeconds, left: Duration) -> Self {
        let expires = self.expires.min(now.plus(left));
        let ahead = self.expires.since(expires);
        let issued = self.issued.minus(ahead);
        let given = match self.authenticated > now {
            true => self.authenticated.minus(ahead),
            // The password may have been given while the clock was right, if before the token was issued.
            false => self.authenticated.min(issued),
        };
        Self {
            authenticated: given,
            issued,
            expires,
            ..self
        }
    }

    /// The session as another process kept it, by the clock that shows `now`: one that is
    /// [ahead](Self::is_ahead) lives from now on for as long as it was to live from its issue.
    #[must_use]
    pub fn as_of(self, now: UnixSeconds) -> Self {
        match self.is_ahead(now) && self.expires > self.issued {
            true => self.set_right(now, self.expires.since(self.issued)),
            false => self,
        }
    }

    /// The session of a token that takes this one's place at `now` for another lifetime, at the
    /// longest until [`Lifetimes::longest`] after the password was given. `None` when that is over.
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

    /// The same, but over at `end` whether it was so before or not.
    #[must_use]
    pub fn lasting_until(self, end: UnixSeconds) -> Self {
        Self {
            expires: end,
            ..self
        }
    }

    /// The same, but over at `end` unless it is so before.
    #[must_use]
    pub fn ending(self, end: UnixSeconds) -> Self {
        Self {
            expires: self.expires.min(end),
            ..self
        }
    }

    /// The same, but the password was given and the token issued at `latest` at the latest: what time it
    /// is for whoever keeps it, where the gateway's clock is ahead. It stays a token of after `since`, when
    /// the account's earlier ones ended.
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

    /// Which of the account's passwords obtained the token: a new password ends it.
    #[must_use]
    pub fn password_mark(self) -> PasswordMark {
        self.mark
    }

    /// Where the login came from.
    #[must_use]
    pub fn source(self) -> Source {
        self.source
    }

    /// When the password was given; earlier than [`issued`](Self::issued) for a renewed token.
    #[must_use]
    pub fn authenticated(self) -> UnixSeconds {
        self.authenticated
    }

    /// When the token was issued.
    #[must_use]
    pub fn issued(self) -> UnixSeconds {
        self.issued
    }

    /// The first second in which the token is no longer accepted.
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

/// Why a token is not, or no longer, good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// None of that digest is known.
    Unknown,
    /// It is known that there was one.
    Ended(End),
    /// One of this account's that was renewed, and whose overlap is over, while others of its lineage
    /// may be live: whoever presents it may have stolen it.
    Replaced(AccountId),
}

/// How a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its lifetime is over.
    Expired,
    /// Nobody used it for `tokens.idle`.
    Unused,
    /// An operator took it back.
    Revoked,
    /// Its client gave it back.
    GivenBack,
    /// Its user got a newer one than `tokens.per_user` allows beside it.
    Displaced,
    /// One that it came of was presented after it had been replaced.
    Replayed,
    /// Its user was disabled.
    UserDisabled,
    /// Its user was removed.
    UserRemoved,
    /// Its user's password was changed.
    PasswordChanged,
}

/// By how much a token may have been issued in the future without anything being wrong with a clock.
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
        let used = session.set_right(at(10), Duration::from_secs(20));
        let moments = [used.authenticated(), used.issued(), used.expires()];
        assert_eq!(moments, [0, 0, 30].map(at));
        assert_eq!(session.set_right(at(10), Duration::from_secs(500)), session);
        // The clock has passed the moment of issue since.
        let later = session.set_right(at(60), Duration::from_secs(10));
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
