//! What a store opens while the process still has the rights of its start: it may become another
//! user after that, and be confined to its files.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::Backing;
use super::durable::{FileFault, Journal, TokenFile};
use super::live::LiveTokens;
use super::settings::{StoreKind, TokensSection};
use super::shared::SharedTokens;
use crate::accounts::Accounts;
use crate::clock::UnixMillis;
use crate::cluster::ConnectError;
use crate::takeover::Inherited;

/// What is open of a store that is not in use yet.
#[derive(Debug)]
pub struct Prepared(Kind);

#[derive(Debug)]
enum Kind {
    Memory,
    Durable(TokenFile),
    Shared,
}

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum StoreOpenError {
    /// The file of the durable store.
    #[error(transparent)]
    File(#[from] FileFault),
    /// The settings of the server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No thread for the server.
    #[error("the operating system gives no threads")]
    Thread(#[source] std::io::Error),
}

impl Prepared {
    /// Opens what `tokens.store` asks for. A file that is missing is made; it belongs to the user
    /// and group `owner`, if the process is to become another.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(
        section: &TokensSection,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, StoreOpenError> {
        Self::open_or_inherit(section, owner, &mut Inherited::default())
    }

    /// As [`open`](Self::open), but for a file that the process before has open.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn open_or_inherit(
        section: &TokensSection,
        owner: Option<(u32, u32)>,
        inherited: &mut Inherited,
    ) -> Result<Self, StoreOpenError> {
        match section.store {
            StoreKind::Memory => Ok(Self(Kind::Memory)),
            StoreKind::Durable => {
                let path = &section.durable.path;
                let file = match inherited.token_file(path) {
                    Some(file) => TokenFile::inherited(path, file, owner)?,
                    None => TokenFile::open(path, owner)?,
                };
                Ok(Self(Kind::Durable(file)))
            }
            StoreKind::Shared => Ok(Self(Kind::Shared)),
        }
    }

    #[cfg(test)]
    pub(super) fn of_file(file: TokenFile) -> Self {
        Self(Kind::Durable(file))
    }

    /// For `TokenStore::start`.
    pub(super) fn into_backing(
        self,
        section: &TokensSection,
        live: &Arc<LiveTokens>,
        accounts: &Arc<Accounts>,
    ) -> Result<Backing, StoreOpenError> {
        match self.0 {
            Kind::Memory => Ok(Backing::Memory),
            Kind::Durable(file) => {
                let (wait, accounts) = (section.durable.wait, Arc::clone(accounts));
                Ok(Backing::Durable(Journal::new(file, wait, accounts)))
            }
            Kind::Shared => {
                let (live, accounts) = (Arc::clone(live), Arc::clone(accounts));
                let shared = SharedTokens::start(section, live, accounts)?;
                Ok(Backing::Shared(Box::new(shared)))
            }
        }
    }
}

/// Moves what was kept out of the way, so that the next opening begins without any token. Returns
/// where it is now, if there was anything.
///
/// # Errors
/// When it cannot be moved, or a running gateway has it open.
pub fn discard(
    section: &TokensSection,
    now: UnixMillis,
) -> Result<Option<PathBuf>, StoreOpenError> {
    match section.store {
        StoreKind::Memory | StoreKind::Shared => Ok(None),
        StoreKind::Durable => Ok(TokenFile::move_aside(&section.durable.path, now)?),
    }
}

/// What tokens are kept in: a process cannot take them over from one that keeps them elsewhere.
#[must_use]
pub fn place(section: &TokensSection) -> String {
    match section.store {
        StoreKind::Memory => "memory".to_owned(),
        StoreKind::Durable => format!("file {}", section.durable.path.display()),
        StoreKind::Shared => format!("server {:?}", section.shared.servers),
    }
}

/// Says in a few words what is kept at present, without changing anything; `None` where nothing
/// outlives the process.
///
/// # Errors
/// What would keep a gateway from starting.
pub fn look(
    section: &TokensSection,
    owner: Option<(u32, u32)>,
) -> Result<Option<String>, StoreOpenError> {
    match section.store {
        StoreKind::Memory | StoreKind::Shared => Ok(None),
        StoreKind::Durable => Ok(Some(TokenFile::look(&section.durable.path, owner)?)),
    }
}
