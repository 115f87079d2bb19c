//! Pure: the names of keys, and which part of a cluster a key lies in.

use std::fmt::Write as _;

use super::record::VERSION;
use crate::cluster::{HashTag, Layout, slot};
use crate::replay::ReplayKey;
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

    /// What the link has to know of them.
    pub(super) fn layout(&self) -> Layout {
        Layout {
            tracked: self.tokens().to_owned(),
            version_key: self.version(),
            version: VERSION.to_string(),
        }
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
    pub(super) fn capacity(&self) -> [String; 2] {
        ["ends", "counts"].map(|what| format!("{}:places:{{all}}:{what}", self.prefix))
    }

    /// Whether somebody lately looked for tokens that nobody uses.
    pub(super) fn sweeping(&self) -> String {
        format!("{}:sweeping", self.prefix)
    }

    /// What a login that failed writes for a moment in the place of a token.
    pub(super) fn dry_run(&self, id: TokenId) -> String {
        format!("{}:rehearsal:{id}", self.prefix)
    }

    /// How many tokens each gateway has revoked.
    pub(super) fn counter(&self, tag: HashTag) -> String {
        format!("{}:ends:{{{}}}", self.prefix, tag.0)
    }

    /// The version of the layout.
    pub(super) fn version(&self) -> String {
        format!("{}:version", self.prefix)
    }

    /// A request that is remembered, and all those of its user.
    pub(super) fn replay(&self, key: &ReplayKey) -> [String; 2] {
        let (user, request) = (hex(&key.user()), hex(&key.request()));
        [
            format!("{}:replay:{{{user}}}:{request}", self.prefix),
            format!("{}:replays:{{{user}}}", self.prefix),
        ]
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How many parts of quotas there are, each of which lies on one node.
const PARTS: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_changed_together_lie_together() {
        let keys = Keys::new("syncgate");
        let [issued, expires, used] = keys.user("till-01");
        assert_eq!(issued, "syncgate:user:{till-01}:issued");
        assert_eq!([slot(&issued); 2], [slot(&expires), slot(&used)]);
        let [ends, counts] = keys.capacity();
        assert_eq!(slot(&ends), slot(&counts));
        let key = ReplayKey::from_bytes([7; ReplayKey::LENGTH]);
        let [request, requests] = keys.replay(&key);
        assert_eq!(slot(&request), slot(&requests));
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
