//! Pure: the names of keys, and which part of a cluster a key lies in.

use super::tally::Tag;
use crate::token::TokenId;

/// The names of all keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    tokens: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            tokens: format!("{prefix}:token:"),
        }
    }

    /// What the keys of tokens begin with.
    pub(super) fn tokens(&self) -> &str {
        &self.tokens
    }

    pub(super) fn token(&self, id: TokenId) -> String {
        format!("{}{id}", self.tokens)
    }

    /// The token of a key, if it is one's.
    pub(super) fn id_of(&self, key: &[u8]) -> Option<TokenId> {
        let key = std::str::from_utf8(key).ok()?;
        key.strip_prefix(&self.tokens)?.parse().ok()
    }

    /// A user's tokens by the order of their issue, by their end, and by their last use.
    pub(super) fn user(&self, name: &str) -> [String; 3] {
        ["issued", "expires", "used"].map(|what| format!("{}:user:{{{name}}}:{what}", self.prefix))
    }

    /// The tokens of a lineage of more than one, by the first of them.
    pub(super) fn lineage(&self, first: TokenId) -> String {
        format!("{}:lineage:{first}", self.prefix)
    }

    /// The names of all users that ever had a token.
    pub(super) fn users(&self) -> String {
        format!("{}:users", self.prefix)
    }

    /// In which seconds tokens end, and how many do in each.
    pub(super) fn places(&self) -> [String; 2] {
        ["ends", "counts"].map(|what| format!("{}:places:{{all}}:{what}", self.prefix))
    }

    /// Whether somebody lately looked for tokens that nobody uses.
    pub(super) fn sweeping(&self) -> String {
        format!("{}:sweeping", self.prefix)
    }

    /// What a login that failed writes for a moment in the place of a token.
    pub(super) fn rehearsal(&self, id: TokenId) -> String {
        format!("{}:rehearsal:{id}", self.prefix)
    }

    /// How many tokens each gateway has revoked.
    pub(super) fn tally(&self, tag: Tag) -> String {
        format!("{}:ends:{{{}}}", self.prefix, tag.0)
    }

    /// The version of the layout.
    pub(super) fn version(&self) -> String {
        format!("{}:version", self.prefix)
    }

    /// Failed logins of one origin, and whether they were forgiven lately.
    pub(super) fn failures(&self, origin: &str) -> [String; 2] {
        ["failures", "forgiven"].map(|what| format!("{}:{what}:{{{origin}}}", self.prefix))
    }

    /// What gateways tell each other of a user or route. Those of one part lie together.
    pub(super) fn quota(&self, part: u16, name: &str) -> String {
        format!("{}:quota:{{{part}}}:{name}", self.prefix)
    }

    /// The part that a user or route belongs to, on all gateways.
    pub(super) fn part_of(&self, name: &str) -> u16 {
        slot(name) % PARTS
    }
}

/// The slot of a cluster that a key lies in: CRC-16 (XMODEM) of the part in braces, or of all.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    let mut crc = 0_u16;
    for byte in hashed.unwrap_or(key).bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
    }
    crc % SLOTS
}

/// A tally whose key lies in one of these slots.
pub(super) fn tag_in(is_there: impl Fn(u16) -> bool) -> Option<Tag> {
    let mut numbers = 0..MOST_TAGS;
    let tag = numbers.find(|number| is_there(slot(&format!("{{{number}}}"))));
    tag.map(Tag)
}

const SLOTS: u16 = 16_384;
/// How many parts of quotas there are, each of which lies on one node.
const PARTS: u16 = 16;
/// Among so many numbers each slot has some.
const MOST_TAGS: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_the_server() {
        for (key, expected) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[test]
    fn keys_that_are_changed_together_lie_together() {
        let keys = Keys::new("syncgate");
        let [issued, expires, used] = keys.user("till-01");
        assert_eq!(issued, "syncgate:user:{till-01}:issued");
        assert_eq!([slot(&issued); 2], [slot(&expires), slot(&used)]);
        let [ends, counts] = keys.places();
        assert_eq!(slot(&ends), slot(&counts));
        let id: TokenId = "00112233445566778899".parse().unwrap();
        assert_eq!(keys.token(id), "syncgate:token:00112233445566778899");
        assert_eq!(keys.id_of(keys.token(id).as_bytes()), Some(id));
        assert_eq!(keys.id_of(b"syncgate:users"), None);
    }

    #[test]
    fn quotas_of_one_part_lie_together_and_are_spread_over_many() {
        let keys = Keys::new("syncgate");
        let names: Vec<String> = (0..200)
            .map(|number| format!("user:till-{number}"))
            .collect();
        let mut parts = std::collections::BTreeMap::new();
        for name in names {
            let part = keys.part_of(&name);
            let key = keys.quota(part, &name);
            assert_eq!(key, format!("syncgate:quota:{{{part}}}:{name}"));
            let slot_of_part = *parts.entry(part).or_insert_with(|| slot(&key));
            assert_eq!(slot(&key), slot_of_part);
        }
        assert_eq!(parts.len(), usize::from(PARTS));
        let strange = keys.quota(3, "route:/a{b}");
        assert_eq!(slot(&strange), slot("{3}"));
    }
}
