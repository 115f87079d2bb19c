//! Pure: what `[tokens]` may say.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shared::settings::{ServerAddress, SharedSection};
use crate::session::Lifetimes;
use crate::settings::document::Step;
use crate::settings::file::{FileSetting, FileUse};
use crate::settings::units::{duration, positive_duration};

/// `[tokens]`: how long tokens live and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokensSection {
    /// Where they are kept.
    pub store: StoreKind,
    /// How long a token is good for.
    #[serde(with = "positive_duration")]
    pub lifetime: Duration,
    /// Whether clients can have one renewed.
    pub renew: bool,
    /// How long the old one is still good for then.
    #[serde(with = "duration")]
    pub renew_overlap: Duration,
    /// How long after the password was given the last of them ends.
    #[serde(with = "positive_duration")]
    pub longest: Duration,
    /// How long it may stay unused; zero means for as long as it lives.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Live tokens at once; beyond it, none is issued.
    pub capacity: NonZeroUsize,
    /// Live tokens of one user at once.
    pub per_user: NonZeroUsize,
    /// What becomes of a login beyond that.
    pub on_limit: OnLimit,
    /// The file of `store = "durable"`.
    pub durable: DurableSection,
    /// The server of a shared store.
    pub shared: SharedSection,
}

/// Where tokens are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// In memory: they end with the process.
    Memory,
    /// In a file too, so that they outlive the process.
    Durable,
    /// On a server that several gateways share.
    Shared,
}

/// `[tokens.durable]`: the file that tokens are kept in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DurableSection {
    /// The file. No other process may have it open.
    pub path: PathBuf,
    /// How long a login or a revocation waits for the disk before it is refused.
    #[serde(with = "positive_duration")]
    pub wait: Duration,
}

/// What becomes of a login of a user who has as many tokens as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// The oldest token makes room.
    EvictOldest,
    /// No token is issued.
    Refuse,
}

impl TokensSection {
    /// How long tokens live.
    #[must_use]
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            token: self.lifetime,
            overlap: self.renew_overlap,
            longest: self.longest,
        }
    }

    /// The servers that are connected to; none unless the store is shared.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &ServerAddress> {
        let servers = self.shared.servers.iter();
        servers.filter(|_| self.store == StoreKind::Shared)
    }

    pub(crate) fn files(&mut self) -> Vec<FileSetting<'_>> {
        let is_shared = self.store == StoreKind::Shared;
        let SharedSection {
            password_file,
            ca_file,
            ..
        } = &mut self.shared;
        let read = [
            (
                "password_file",
                password_file,
                "put the password of the token store there, mode 0600",
            ),
            (
                "ca_file",
                ca_file,
                "put the certificates there that the token store's is signed by, in PEM",
            ),
        ];
        let read = read.into_iter().filter_map(|(name, path, missing)| {
            let key = ["tokens", "shared", name].map(Step::Key);
            Some(FileSetting::read(key, path.as_mut()?, missing))
        });
        let durable = FileSetting {
            key: ["tokens", "durable", "path"].map(Step::Key).into(),
            path: &mut self.durable.path,
            usage: FileUse::Opened,
        };
        let read = read.filter(|_| is_shared);
        std::iter::once(durable).chain(read).collect()
    }

    /// How long a token may stay unused, if there is a limit.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        (!self.idle.is_zero()).then_some(self.idle)
    }
}

impl Default for TokensSection {
    fn default() -> Self {
        Self {
            store: StoreKind::Memory,
            lifetime: Duration::from_secs(24 * 60 * 60),
            renew: true,
            renew_overlap: Duration::from_secs(30),
            longest: Duration::from_secs(7 * 24 * 60 * 60),
            idle: Duration::ZERO,
            capacity: NonZeroUsize::MIN.saturating_add(999_999),
            per_user: NonZeroUsize::MIN.saturating_add(999),
            on_limit: OnLimit::EvictOldest,
            durable: DurableSection::default(),
            shared: SharedSection::default(),
        }
    }
}

impl Default for DurableSection {
    fn default() -> Self {
        Self {
            path: PathBuf::from("tokens.redb"),
            wait: Duration::from_secs(10),
        }
    }
}
