//! Pure: which refusals get a line of their own. The first of a kind in an interval does, and the others are counted:
//! whoever floods the gateway with requests must not fill the disk.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::event::{Event, Refused};
use crate::token::TokenId;

/// The refusals of an interval.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    of_users: HashMap<Kind, Seen>,
    /// Those of nobody in particular, and those of users beyond the bound.
    counted: BTreeMap<&'static str, u64>,
}

/// What makes two refusals the same: all but the request.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    is_login: bool,
    reason: &'static str,
    route: Option<Arc<str>>,
    token: Option<[u8; TokenId::LENGTH]>,
    user: Option<Arc<str>>,
    from: Option<IpAddr>,
}

#[derive(Debug)]
struct Seen {
    first: Refused,
    more: u64,
}

impl Refusals {
    /// The line of a refusal, if it gets one.
    pub(super) fn note(&mut self, refused: Refused, is_login: bool) -> Option<Event> {
        if refused.client.user.is_none() && refused.token.is_none() {
            *self.counted.entry(refused.reason).or_default() += 1;
            return None;
        }
        let kind = Kind {
            is_login,
            reason: refused.reason,
            route: refused.route.clone(),
            token: refused.token.map(TokenId::to_bytes),
            user: refused.client.user.clone(),
            from: refused.client.from,
        };
        if let Some(seen) = self.of_users.get_mut(&kind) {
            seen.more += 1;
            return None;
        }
        if self.of_users.len() >= MOST_KINDS {
            *self.counted.entry(refused.reason).or_default() += 1;
            return None;
        }
        let first = refused.clone();
        self.of_users.insert(kind, Seen { first, more: 0 });
        Some(match is_login {
            true => Event::LoginFailed(refused),
            false => Event::RequestRefused(refused),
        })
    }

    /// Ends the interval, and returns the lines of what was counted in it.
    pub(super) fn take(&mut self) -> Vec<Event> {
        let seen = std::mem::take(&mut self.of_users).into_values();
        let repeated = seen
            .filter(|seen| seen.more > 0)
            .map(|seen| Event::Repeated {
                count: seen.more,
                refused: seen.first,
            });
        let mut lines: Vec<_> = repeated.collect();
        let reasons = std::mem::take(&mut self.counted);
        if !reasons.is_empty() {
            lines.push(Event::Counted { reasons });
        }
        lines
    }
}

/// Kinds of refusals with lines of their own in an interval.
const MOST_KINDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::Client;
    use crate::clock::UnixMillis;
    use crate::request_id::RequestIds;

    fn refused(user: Option<&str>, from: [u8; 4]) -> Refused {
        Refused {
            reason: "login_failed",
            route: None,
            token: None,
            client: Client {
                user: user.map(Arc::from),
                from: Some(IpAddr::from(from)),
                request: RequestIds::new().next(UnixMillis::EPOCH),
            },
        }
    }

    #[test]
    fn the_first_of_a_kind_has_a_line_and_the_others_are_counted() {
        let mut refusals = Refusals::default();
        assert!(refusals.note(refused(Some("a"), [1; 4]), true).is_some());
        assert!(refusals.note(refused(Some("a"), [1; 4]), true).is_none());
        assert!(refusals.note(refused(Some("a"), [1; 4]), true).is_none());
        assert!(refusals.note(refused(Some("a"), [2; 4]), true).is_some());
        assert!(refusals.note(refused(Some("a"), [1; 4]), false).is_some());
        assert!(refusals.note(refused(None, [1; 4]), true).is_none());
        let lines = refusals.take();
        let [Event::Repeated { count: 2, .. }, Event::Counted { reasons }] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(reasons["login_failed"], 1);
        assert!(refusals.take().is_empty());
        assert!(refusals.note(refused(Some("a"), [1; 4]), true).is_some());
    }

    #[test]
    fn a_flood_has_as_many_lines_as_there_are_kinds() {
        let mut refusals = Refusals::default();
        let lines = (0..100_000_u32)
            .filter_map(|n| refusals.note(refused(Some("a"), n.to_be_bytes()), true))
            .count();
        assert_eq!(lines, MOST_KINDS);
        let counted = refusals.take();
        let [Event::Counted { reasons }] = &counted[..] else {
            panic!("{counted:?}");
        };
        assert_eq!(reasons["login_failed"], 100_000 - MOST_KINDS as u64);
    }
}
