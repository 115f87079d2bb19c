//! Pure: what is recorded. Names of accounts, routes, settings and files of the configuration, ids and addresses, and
//! words of fixed sets; nothing else that a client sends, and never a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::chain::LineHash;
use crate::clock::UnixSeconds;
use crate::request_id::RequestId;
use crate::token::TokenId;

/// A line of the trail.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event")]
pub enum Event {
    /// A trail begins.
    #[serde(rename = "trail.begun")]
    Begun {
        /// Of the program.
        version: &'static str,
    },
    /// The trail goes on in this file.
    #[serde(rename = "trail.continued")]
    Continued {},
    /// What stands before this line is no line: a process was killed while it wrote, or somebody else wrote it.
    #[serde(rename = "trail.sealed")]
    Sealed {
        /// How many bytes.
        bytes: u64,
        /// Their hash.
        #[serde(serialize_with = "text")]
        sha256: LineHash,
    },
    /// The trail could not be written, or too much was to be written at once.
    #[serde(rename = "trail.gap")]
    Gap {
        /// How many lines are missing, of refusals but for the worst.
        lost: u64,
        /// From when on.
        #[serde(serialize_with = "moment")]
        since: UnixSeconds,
    },
    /// A file was deleted, since more than `audit.keep` were rotated.
    #[serde(rename = "trail.removed")]
    Removed {
        /// Its name.
        file: String,
        /// The number of its first line.
        first: u64,
        /// The number of its last line.
        last: u64,
    },
    /// The line before, signed.
    #[serde(rename = "trail.checkpoint")]
    Checkpoint {
        /// The id of the key.
        key: String,
        /// In base64url.
        signature: String,
    },
    /// The process serves.
    #[serde(rename = "gateway.started")]
    Started {
        /// Of the program.
        version: &'static str,
    },
    /// The process ends in good order.
    #[serde(rename = "gateway.stopped")]
    Stopped {},
    /// A login with the name of an account failed.
    #[serde(rename = "login.failed")]
    LoginFailed(Refused),
    /// A request of a known user, or with a token that is or was good, was refused.
    #[serde(rename = "request.refused")]
    RequestRefused(Refused),
    /// More refusals like one that has a line of its own, in the minute after it.
    #[serde(rename = "refusals.repeated")]
    Repeated {
        /// How many more.
        count: u64,
        /// What they were.
        #[serde(flatten)]
        refused: Refused,
    },
    /// Refusals that have no lines of their own, by reason.
    #[serde(rename = "refusals.counted")]
    Counted {
        /// How many of each.
        reasons: BTreeMap<&'static str, u64>,
    },
    /// A login succeeded.
    #[serde(rename = "token.issued")]
    TokenIssued {
        /// The new token.
        #[serde(serialize_with = "text")]
        token: TokenId,
        /// Until when it is good.
        #[serde(serialize_with = "moment")]
        expires: UnixSeconds,
        /// Who asked for it.
        #[serde(flatten)]
        client: Client,
    },
    /// A token was exchanged for another.
    #[serde(rename = "token.renewed")]
    TokenRenewed {
        /// The new token.
        #[serde(serialize_with = "text")]
        token: TokenId,
        /// The one that it replaces.
        #[serde(serialize_with = "text")]
        replaces: TokenId,
        /// Until when it is good.
        #[serde(serialize_with = "moment")]
        expires: UnixSeconds,
        /// Who asked for it.
        #[serde(flatten)]
        client: Client,
    },
    /// A token made room for a newer one of its user.
    #[serde(rename = "token.evicted")]
    TokenEvicted {
        /// The token.
        #[serde(serialize_with = "text")]
        token: TokenId,
        /// The newer one.
        #[serde(serialize_with = "text")]
        by: TokenId,
        /// Whose they are.
        #[serde(serialize_with = "text")]
        user: Arc<str>,
    },
    /// A token that its client never received was taken back.
    #[serde(rename = "token.withdrawn")]
    TokenWithdrawn {
        /// The token.
        #[serde(serialize_with = "text")]
        token: TokenId,
        /// Who had asked for it.
        #[serde(flatten)]
        client: Client,
    },
    /// A client gave its token back, which ended all of its lineage.
    #[serde(rename = "token.revoked")]
    TokenRevoked {
        /// The token.
        #[serde(serialize_with = "text")]
        token: TokenId,
        /// How many live tokens that ended.
        ended: usize,
        /// Who gave it back.
        #[serde(flatten)]
        client: Client,
    },
    /// A token was used after it was renewed and its overlap was over, a sign of theft: its lineage was ended.
    #[serde(rename = "token.replayed")]
    TokenReplayed {
        /// The token.
        #[serde(serialize_with = "text")]
        token: TokenId,
        /// Whose it is.
        #[serde(serialize_with = "text")]
        user: Arc<str>,
        /// How many live tokens that ended.
        ended: usize,
    },
    /// Tokens ended because their account does not back them any more.
    #[serde(rename = "tokens.ended")]
    TokensEnded {
        /// Whose they were.
        #[serde(serialize_with = "text")]
        user: Arc<str>,
        /// Why, in a word.
        reason: &'static str,
        /// How many live ones.
        ended: usize,
    },
    /// An operator revoked tokens.
    #[serde(rename = "tokens.revoked")]
    TokensRevoked {
        /// Which.
        #[serde(flatten)]
        which: Which,
        /// How many live ones that ended.
        ended: usize,
        /// Whether they are ended on the disk, or on the server of a shared store, too.
        kept: bool,
        /// Who did it.
        #[serde(flatten)]
        operator: Operator,
    },
    /// An account was added.
    #[serde(rename = "account.added")]
    AccountAdded {
        /// Its name.
        #[serde(serialize_with = "text")]
        user: Arc<str>,
        /// What made the gateway look.
        by: By,
    },
    /// An account was removed.
    #[serde(rename = "account.removed")]
    AccountRemoved {
        /// Its name.
        #[serde(serialize_with = "text")]
        user: Arc<str>,
        /// What made the gateway look.
        by: By,
    },
    /// An account was changed.
    #[serde(rename = "account.changed")]
    AccountChanged {
        /// Its name.
        #[serde(serialize_with = "text")]
        user: Arc<str>,
        /// What of it.
        what: Vec<&'static str>,
        /// What made the gateway look.
        by: By,
    },
    /// Settings were changed.
    #[serde(rename = "config.changed")]
    ConfigChanged {
        /// Their keys.
        settings: Vec<String>,
        /// What made the gateway look.
        by: By,
    },
    /// Files were read again and are in force.
    #[serde(rename = "files.reloaded")]
    FilesReloaded {
        /// Which, in a word.
        files: &'static str,
        /// What made the gateway look.
        by: By,
    },
    /// Files were read again and cannot be used.
    #[serde(rename = "files.refused")]
    FilesRefused {
        /// Which, in a word.
        files: &'static str,
        /// What made the gateway look.
        by: By,
    },
    /// An operator did something else on the admin interface.
    #[serde(rename = "admin.action")]
    AdminAction {
        /// What, in a word.
        action: &'static str,
        /// To what.
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// Who did it.
        #[serde(flatten)]
        operator: Operator,
    },
}

/// The client of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Client {
    /// The account.
    #[serde(serialize_with = "optional", skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// The address, if it is known.
    #[serde(serialize_with = "optional", skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The id of the request.
    #[serde(serialize_with = "text")]
    pub request: RequestId,
}

/// A refused request.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// Why, in a word.
    pub reason: &'static str,
    /// The path of the route, as configured.
    #[serde(serialize_with = "optional", skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    /// The token.
    #[serde(serialize_with = "optional", skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// Who made it.
    #[serde(flatten)]
    pub client: Client,
}

/// Tokens that an operator revoked.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "which", rename_all = "lowercase")]
pub enum Which {
    /// One, with its lineage.
    Token {
        /// Its id.
        #[serde(serialize_with = "text")]
        token: TokenId,
    },
    /// Those of a user; absent if there is no such account here, since it may be a secret in the wrong field.
    User {
        /// The user.
        #[serde(serialize_with = "optional", skip_serializing_if = "Option::is_none")]
        user: Option<Arc<str>>,
    },
    /// Those of logins before a moment.
    Before {
        /// The moment.
        #[serde(serialize_with = "moment")]
        before: UnixSeconds,
    },
    /// All.
    All {},
}

/// Who acts on the admin interface, and by which request.
#[derive(Debug, Clone, Serialize)]
pub struct Operator {
    /// Who.
    pub by: By,
    /// The id of the request.
    #[serde(serialize_with = "text")]
    pub request: RequestId,
}

/// On whose account something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A user of the machine, by the number that the kernel gives for the other end of the admin socket.
    Uid(u32),
    /// A user of the machine whom the kernel does not name.
    LocalUser,
    /// A signal.
    Signal,
    /// A file was changed.
    FileChange,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::LocalUser => f.write_str("a local user"),
            Self::Signal => f.write_str("signal"),
            Self::FileChange => f.write_str("file change"),
        }
    }
}

impl Serialize for By {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

pub(super) fn text<T: fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[expect(clippy::ref_option, reason = "the form that serde asks for")]
fn optional<T: fmt::Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

fn moment<S: Serializer>(value: &UnixSeconds, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&value.timestamp())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_docs_have_a_row_for_every_event() {
        let page = include_str!("../../docs/audit.md");
        let source = include_str!("event.rs");
        let names = source.split("serde(rename = \"").skip(1);
        let names: Vec<_> = names.filter_map(|rest| rest.split('"').next()).collect();
        assert!(names.len() > 20);
        for name in names {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}
