//! Pure: how many tokens each gateway has revoked, as the server counts them and as this gateway last saw it.
//! A count that has fallen means that revocations are lost: the server is a replica that had not received
//! them, or was restored to an older state. The gateway that made them sends them again, and the count is
//! restored; if it is gone, the tokens may be live again.
//!
//! Each node of a cluster has a counter of its own: a node fails over by itself, and takes its tokens and its
//! counter back to the same moment.

use std::collections::BTreeMap;

use crate::cluster::HashTag;

/// The counter of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counter {
    /// Chosen when the counter was created. One created after the previous counter was last seen means that
    /// everything has been lost since, tokens included; any other difference means that this is another,
    /// older state.
    born: Option<Born>,
    /// When the state was last accepted as it is.
    accepted: u64,
    counts: BTreeMap<String, Count>,
    /// What gateways found missing, so that those that had not seen it refuse the state too.
    wanted: BTreeMap<String, Count>,
    /// When it was read, in milliseconds by the server's clock.
    read: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Born {
    text: String,
    /// In milliseconds by the server's clock.
    at: u64,
}

/// Missing revocations of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) tag: HashTag,
    /// Which gateway's, or `ALL`.
    pub(super) gateway: String,
    pub(super) count: Count,
}

/// How many tokens a gateway has revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    ends: u64,
    /// When it was last raised, in seconds by the server's clock.
    pub(super) at: u64,
}

impl Count {
    fn parse(text: &str) -> Option<Self> {
        let (ends, at) = text.split_once(' ')?;
        let (ends, at) = (ends.parse().ok()?, at.parse().ok()?);
        Some(Self { ends, at })
    }
}

impl Missing {
    /// The field of the counter that records it, and its value.
    pub(super) fn field(&self) -> [String; 2] {
        let Count { ends, at } = self.count;
        [format!("{WANTED}{}", self.gateway), format!("{ends} {at}")]
    }
}

/// The counters as last seen.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<HashTag, Counter>);

impl Counter {
    /// Reads the fields and values of a counter. Unknown fields are ignored.
    pub(super) fn parse<'a>(read: u64, fields: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut counter = Self {
            read,
            ..Self::default()
        };
        for (field, value) in fields {
            match field {
                "born" => {
                    let at = value.split_once(' ').and_then(|(_, at)| at.parse().ok());
                    counter.born = Some(Born {
                        text: value.to_owned(),
                        at: at.unwrap_or(0),
                    });
                }
                "accepted" => counter.accepted = value.parse().unwrap_or(0),
                gateway => {
                    let count = Count::parse(value);
                    let (counts, gateway) = match gateway.strip_prefix(WANTED) {
                        Some(gateway) => (&mut counter.wanted, gateway),
                        None => (&mut counter.counts, gateway),
                    };
                    counts.extend(count.map(|count| (gateway.to_owned(), count)));
                }
            }
        }
        counter
    }

    /// When the state was accepted last.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Whether it already records this as missing.
    pub(super) fn says(&self, missing: &Missing) -> bool {
        let wanted = self.wanted.get(&missing.gateway);
        wanted.is_some_and(|wanted| wanted.ends >= missing.count.ends)
    }

    /// Whether the other was created at another time.
    fn is_another(&self, other: &Self) -> bool {
        self.born.is_some() && self.born != other.born
    }

    /// How many tokens a gateway has revoked.
    pub(super) fn of(&self, gateway: &str) -> u64 {
        self.counts.get(gateway).map_or(0, |count| count.ends)
    }
}

impl Seen {
    pub(super) fn tags(&self) -> impl Iterator<Item = HashTag> + '_ {
        self.0.keys().copied()
    }

    /// Whether everything was lost with the counter, so that no token can be live again: it was created after
    /// the previous one was last seen, or cannot be created for lack of memory.
    pub(super) fn is_new(&self, tag: HashTag, counter: &Counter) -> bool {
        let Some(before) = self.0.get(&tag).filter(|before| before.is_another(counter)) else {
            return false;
        };
        let born = counter.born.as_ref();
        born.is_none_or(|born| born.at >= before.read)
    }

    /// What is missing at `second`. This gateway's own revocations are left out: it knows them better.
    pub(super) fn missing(
        &self,
        now: &[(HashTag, Counter)],
        own: &str,
        second: u64,
    ) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (tag, counter) in now {
            let seen = self.0.get(tag).filter(|before| {
                !self.is_new(*tag, counter) && counter.accepted <= before.accepted
            });
            // Whatever was revoked until it was seen last may be missing of an older state.
            let older = seen
                .filter(|before| before.is_another(counter))
                .map(|before| {
                    let at = before.read / 1000;
                    (ALL, Count { ends: 1, at })
                });
            let seen = seen.into_iter().flat_map(|before| &before.counts);
            let counted = seen.chain(&counter.wanted);
            let counted = counted.map(|(gateway, count)| (gateway.as_str(), *count));
            for (gateway, count) in counted.chain(older) {
                let matters = gateway != own && count.at.saturating_add(KEPT) >= second;
                if matters && counter.of(gateway) < count.ends {
                    missing.push(Missing {
                        tag: *tag,
                        gateway: gateway.to_owned(),
                        count,
                    });
                }
            }
        }
        missing
    }

    /// Whether this gateway's own count has fallen.
    pub(super) fn has_fallen(&self, now: &[(HashTag, Counter)], own: &str) -> bool {
        now.iter().any(|(tag, counter)| {
            let before = self.0.get(tag);
            before.is_some_and(|before| counter.of(own) < before.of(own))
        })
    }

    /// Whether more was revoked than was seen so far.
    pub(super) fn is_behind(&self, now: &[(HashTag, Counter)]) -> bool {
        now.iter().any(|(tag, counter)| {
            let seen = self.0.get(tag).map(|before| &before.counts);
            counter.counts.iter().any(|(gateway, count)| {
                let before = seen.and_then(|seen| seen.get(gateway));
                before.is_none_or(|before| before.ends < count.ends)
            })
        })
    }

    pub(super) fn learn(&mut self, now: Vec<(HashTag, Counter)>) {
        self.0.extend(now);
    }
}

/// Seconds for which a count is kept after it was last raised: longer than any token lives. Passed to the
/// scripts.
pub(super) const KEPT: u64 = 400 * 24 * 60 * 60;
/// The prefix of a field that records what is missing.
const WANTED: &str = "wanted:";
/// Stands for all gateways.
const ALL: &str = "all";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: HashTag = HashTag(7);

    fn counter(fields: &[(&str, &str)]) -> Counter {
        Counter::parse(950_000, fields.iter().copied())
    }

    fn seen(fields: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::default();
        seen.learn(vec![(TAG, counter(fields))]);
        seen
    }

    fn missing(seen: &Seen, fields: &[(&str, &str)]) -> Vec<String> {
        let missing = seen.missing(&[(TAG, counter(fields))], "own", 1000);
        missing.into_iter().map(|it| it.gateway).collect()
    }

    #[test]
    fn a_count_that_is_lower_than_it_was_is_missed_until_it_is_there_again() {
        let seen = seen(&[
            ("born", "x 800000"),
            ("a", "5 900"),
            ("b", "2 900"),
            ("own", "9 900"),
        ]);
        let born = ("born", "x 800000");
        assert_eq!(
            missing(&seen, &[born, ("a", "4 900"), ("b", "3 900")]),
            ["a"]
        );
        assert_eq!(missing(&seen, &[born, ("a", "5 900")]), ["b"]);
        assert!(missing(&seen, &[born, ("a", "5 900"), ("b", "2 900")]).is_empty());
    }

    #[test]
    fn nothing_is_missed_of_what_was_lost_whole_or_accepted_or_is_too_old() {
        let born = ("born", "x 800000");
        let before = seen(&[born, ("a", "5 900")]);
        assert!(missing(&before, &[("born", "y 950000")]).is_empty());
        assert!(missing(&before, &[]).is_empty());
        assert!(missing(&before, &[born, ("accepted", "1")]).is_empty());
        assert_eq!(missing(&before, &[born, ("accepted", "0")]), ["a"]);
        let now = [(TAG, counter(&[born]))];
        assert!(before.missing(&now, "own", 901 + KEPT).is_empty());
        assert!(missing(&Seen::default(), &[born]).is_empty());
    }

    #[test]
    fn a_state_that_was_begun_before_the_last_one_was_seen_is_older() {
        let before = seen(&[("born", "y 940000"), ("own", "5 945")]);
        for older in ["x 800000", "x 949999", "x"] {
            assert!(!before.is_new(TAG, &counter(&[("born", older)])), "{older}");
            assert_eq!(missing(&before, &[("born", older)]), [ALL], "{older}");
            let accepted = [("born", older), ("accepted", "1")];
            assert!(missing(&before, &accepted).is_empty());
        }
        let now = [(TAG, counter(&[("born", "x 800000")]))];
        assert_eq!(before.missing(&now, "own", 1000)[0].count.at, 950);
    }

    #[test]
    fn what_one_gateway_misses_those_miss_that_never_saw_it() {
        let before = seen(&[("born", "x 800000"), ("a", "5 900")]);
        let now = counter(&[("born", "x 800000"), ("a", "3 850")]);
        let found = before.missing(&[(TAG, now.clone())], "own", 1000);
        assert!(!now.says(&found[0]));
        let [field, value] = found[0].field();
        let told = [("born", "x 800000"), ("a", "3 850"), (&field, &value)];
        assert!(counter(&told).says(&found[0]));
        assert_eq!(missing(&Seen::default(), &told), ["a"]);
        let reached = [("a", "5 960"), (&field, &value)];
        assert!(missing(&Seen::default(), &reached).is_empty());
        assert!(
            Seen::default()
                .missing(&[(TAG, counter(&told))], "a", 1000)
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn fields_of_any_kind_are_read(fields in prop::collection::vec((".*", ".*"), 0..8)) {
            let fields = fields.iter().map(|(field, value)| (&**field, &**value));
            let counter = Counter::parse(0, fields);
            prop_assert_eq!(counter.of("nobody at all"), 0);
        }
    }
}
