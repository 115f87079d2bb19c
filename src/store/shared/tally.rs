//! Pure: how many tokens each gateway has revoked, as the server counts them and as this gateway saw it
//! last. A count that is lower than it was means that revocations are lost: the server is a replica that
//! had not heard of them, or was set back to an older state. Who revoked them tells of them again, and
//! the count is what it was; where nobody is left who could, the tokens may be good again.
//!
//! There is one tally for each node of a cluster, at that node: a node fails over by itself, and takes
//! its tokens and their tally back to the same moment.

use std::collections::BTreeMap;

/// Which tally. Stands in the name of its key, and decides at which node that lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tag(pub(super) u32);

/// What the server has of one tally.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Chosen when the tally was begun. Another one than before means that everything was lost since,
    /// every token too.
    born: Option<String>,
    /// When somebody said last that the state shall be taken as it is.
    accepted: u64,
    counts: BTreeMap<String, Count>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    ends: u64,
    /// When it was raised last, in seconds by the server's clock.
    at: u64,
}

/// The tallies as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<Tag, Tally>);

impl Tally {
    /// Reads fields and values. Whatever is none of ours is not looked at.
    pub(super) fn parse<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut tally = Self::default();
        for (field, value) in fields {
            match field {
                "born" => tally.born = Some(value.to_owned()),
                "accepted" => tally.accepted = value.parse().unwrap_or(0),
                gateway => {
                    let numbers = value.split_once(' ');
                    let count = numbers.and_then(|(ends, at)| {
                        let (ends, at) = (ends.parse().ok()?, at.parse().ok()?);
                        Some(Count { ends, at })
                    });
                    tally
                        .counts
                        .extend(count.map(|count| (gateway.to_owned(), count)));
                }
            }
        }
        tally
    }

    /// How many tokens a gateway has revoked.
    pub(super) fn of(&self, gateway: &str) -> u64 {
        self.counts.get(gateway).map_or(0, |count| count.ends)
    }
}

impl Seen {
    pub(super) fn tags(&self) -> impl Iterator<Item = Tag> + '_ {
        self.0.keys().copied()
    }

    /// Whether everything that the tally counted was lost with it, so that nothing can be good again.
    pub(super) fn is_new(&self, tag: Tag, tally: &Tally) -> bool {
        let before = self.0.get(&tag);
        before.is_some_and(|before| before.born.is_some() && before.born != tally.born)
    }

    /// The gateways of which revocations are missing, at a moment in seconds. What `own` revoked it
    /// knows better.
    pub(super) fn missing(&self, now: &[(Tag, Tally)], own: &str, second: u64) -> Vec<String> {
        let mut missing = Vec::new();
        for (tag, tally) in now {
            let Some(before) = self.0.get(tag) else {
                continue;
            };
            if self.is_new(*tag, tally) || tally.accepted > before.accepted {
                continue;
            }
            let counted = before.counts.iter();
            let matter = counted.filter(|(gateway, count)| {
                *gateway != own && count.at.saturating_add(KEPT) >= second
            });
            let lost = matter.filter(|(gateway, count)| tally.of(gateway) < count.ends);
            missing.extend(lost.map(|(gateway, _)| gateway.clone()));
        }
        missing
    }

    /// Whether a gateway's own count is lower than it was.
    pub(super) fn has_fallen(&self, now: &[(Tag, Tally)], own: &str) -> bool {
        now.iter().any(|(tag, tally)| {
            let before = self.0.get(tag);
            before.is_some_and(|before| tally.of(own) < before.of(own))
        })
    }

    pub(super) fn learn(&mut self, now: Vec<(Tag, Tally)>) {
        self.0.extend(now);
    }
}

/// How many seconds a count is kept after it was raised last: longer than any token lives. The scripts
/// are told.
pub(super) const KEPT: u64 = 400 * 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: Tag = Tag(7);

    fn tally(fields: &[(&str, &str)]) -> Tally {
        Tally::parse(fields.iter().copied())
    }

    fn seen(fields: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::default();
        seen.learn(vec![(TAG, tally(fields))]);
        seen
    }

    fn missing(seen: &Seen, fields: &[(&str, &str)]) -> Vec<String> {
        seen.missing(&[(TAG, tally(fields))], "own", 1000)
    }

    #[test]
    fn a_count_that_is_lower_than_it_was_is_missed_until_it_is_there_again() {
        let seen = seen(&[
            ("born", "x"),
            ("a", "5 900"),
            ("b", "2 900"),
            ("own", "9 900"),
        ]);
        assert_eq!(
            missing(&seen, &[("born", "x"), ("a", "4 900"), ("b", "3 900")]),
            ["a"]
        );
        assert_eq!(missing(&seen, &[("born", "x"), ("a", "5 900")]), ["b"]);
        assert!(missing(&seen, &[("born", "x"), ("a", "5 900"), ("b", "2 900")]).is_empty());
    }

    #[test]
    fn nothing_is_missed_of_what_was_lost_whole_or_accepted_or_is_too_old() {
        let before = seen(&[("born", "x"), ("a", "5 900")]);
        assert!(missing(&before, &[("born", "y")]).is_empty());
        assert!(missing(&before, &[]).is_empty());
        assert!(missing(&before, &[("born", "x"), ("accepted", "1")]).is_empty());
        assert_eq!(missing(&before, &[("born", "x"), ("accepted", "0")]), ["a"]);
        let now = [(TAG, tally(&[("born", "x")]))];
        assert!(before.missing(&now, "own", 901 + KEPT).is_empty());
        assert!(missing(&Seen::default(), &[("born", "x")]).is_empty());
    }

    proptest! {
        #[test]
        fn fields_of_any_kind_are_read(fields in prop::collection::vec((".*", ".*"), 0..8)) {
            let fields = fields.iter().map(|(field, value)| (&**field, &**value));
            let tally = Tally::parse(fields);
            prop_assert_eq!(tally.of("nobody at all"), 0);
        }
    }
}
