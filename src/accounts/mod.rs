//! Who may sign in: the accounts of the gateway, read from `users.toml` and swapped whole on reload.

mod account;
mod change;
mod difference;
mod edit;
mod file;
mod grants;
mod mask;
mod provenance;
mod settings;
mod validate;

pub use crate::private_file::PrivateFileError;
pub use account::{Account, MAX_USERNAME, NameError, check_name};
pub use change::{AccountFile, ChangeError, ChangeOutcome, InitialRights};
pub use difference::AccountChange;
pub use edit::EditError;
pub use grants::Grant;
pub use provenance::Provenance;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::Guard;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::managed_file::{Loader, Managed, ManagedFiles, Messages, Reader};
use crate::route::RouteSection;
use crate::session::{AccountId, End, PasswordMark};
use crate::settings::Problems;
use crate::traffic::Usage;

pub use settings::AccountsSection;

/// The current accounts. Reading them never blocks, not even during a reload.
#[derive(Debug)]
pub struct Accounts {
    file: Managed<AccountFileLoader>,
    registry: Arc<Registry>,
}

/// What outlives another account file, and other routes.
#[derive(Debug, Default)]
struct Registry {
    names: Mutex<Names>,
    /// Those in force: none before the first were put in force.
    in_force: Mutex<Weak<Accounts>>,
}

impl Registry {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_force(&self) -> MutexGuard<'_, Weak<Accounts>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Builds an [`AccountTable`] from the account file.
#[derive(Debug)]
struct AccountFileLoader {
    path: PathBuf,
    routes: Vec<RouteSection>,
    registry: Arc<Registry>,
}

impl Loader for AccountFileLoader {
    type Value = AccountTable;
    type Error = Problems;
    const MESSAGES: Messages = Messages {
        files: "accounts",
        reloaded: "the account file was reloaded",
        refused: "the account file cannot be used; the previous one stays in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    /// A file that has become empty is refused: removing all accounts means removing them one by one.
    fn load(
        &self,
        reader: &mut Reader,
        before: Option<&AccountTable>,
    ) -> Result<AccountTable, Problems> {
        let text = self.text(reader)?;
        let routes = Some(&*self.routes);
        let is_first = before.is_none() && self.registry.in_force().upgrade().is_none();
        let content = match is_first {
            true => validate::parse(&self.path, &text, routes)?,
            false => validate::parse_filled(&self.path, &text, routes)?,
        };
        Ok(AccountTable::new(content, &mut self.registry.names()))
    }

    fn count(&self, value: &AccountTable) -> usize {
        value.len()
    }
}

impl AccountFileLoader {
    fn new(path: &Path, routes: Vec<RouteSection>, registry: Arc<Registry>) -> Self {
        Self {
            path: path.to_owned(),
            routes,
            registry,
        }
    }

    fn text(&self, reader: &mut Reader) -> Result<Zeroizing<String>, Problems> {
        let text = reader.read_private(&self.path);
        text.map_err(|error| file::unreadable(&self.path, &error))
    }
}

impl Accounts {
    /// Reads the account file. Rights are compiled for `routes`, by their indices.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn open(path: &Path, routes: Vec<RouteSection>) -> Result<Self, Problems> {
        Self::registered(path, routes, Arc::default())
    }

    fn registered(
        path: &Path,
        routes: Vec<RouteSection>,
        registry: Arc<Registry>,
    ) -> Result<Self, Problems> {
        let loader = AccountFileLoader::new(path, routes, Arc::clone(&registry));
        let file = Managed::open(loader)?;
        Ok(Self { file, registry })
    }

    /// Reads the account file `path`, with rights compiled for other routes. Ids and usage of users stay. To be
    /// [put in force](Self::put_in_force) once everything else is ready for it.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn succeeded_by(&self, path: &Path, routes: Vec<RouteSection>) -> Result<Self, Problems> {
        Self::registered(path, routes, Arc::clone(&self.registry))
    }

    /// Makes these the accounts that [`in_force`](Self::in_force) returns.
    pub fn put_in_force(self: &Arc<Self>) {
        *self.registry.in_force() = Arc::downgrade(self);
    }

    /// The accounts that decide now, for whoever keeps accounts for longer than a request.
    #[must_use]
    pub fn in_force(self: &Arc<Self>) -> Arc<Self> {
        let in_force = self.registry.in_force().upgrade();
        in_force.unwrap_or_else(|| Arc::clone(self))
    }

    /// As [`open`](Self::open); also returns where the account `name` gets its rights from.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn open_with_provenance(
        path: &Path,
        routes: Vec<RouteSection>,
        name: &str,
    ) -> Result<(Self, Vec<Provenance>), Problems> {
        let registry = Arc::default();
        let loader = AccountFileLoader::new(path, routes, Arc::clone(&registry));
        let mut reader = Reader::for_command();
        let text = loader.text(&mut reader)?;
        let content = validate::parse(path, &text, Some(&loader.routes))?;
        let provenance = provenance::of_account(path, &text, &loader.routes, name);
        let table = AccountTable::new(content, &mut registry.names());
        let file = Managed::of(loader, reader, table);
        Ok((Self { file, registry }, provenance))
    }

    /// Reloads the account file and returns the number of accounts. Every lookup after it returns sees
    /// the new state.
    ///
    /// # Errors
    /// Everything that is wrong with the file, which includes having become empty; the previous state
    /// stays in force.
    pub fn reload(&self) -> Result<usize, Problems> {
        self.file.reload().map(|table| table.len())
    }

    /// The account file.
    pub(crate) fn managed(&self) -> &dyn ManagedFiles {
        &self.file
    }

    /// Why the account no longer honors a token obtained at `authenticated` with the password of this
    /// mark, if it does not.
    #[must_use]
    pub fn disowned(
        &self,
        id: AccountId,
        mark: PasswordMark,
        authenticated: UnixSeconds,
    ) -> Option<Disowned> {
        self.file.value().disowned(id, mark, authenticated)
    }

    /// The account with this name, compared byte for byte.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Account>> {
        self.file.value().find(name).cloned()
    }

    /// The account of a session, unless it has been removed since.
    #[must_use]
    pub fn by_id(&self, id: AccountId) -> Option<Arc<Account>> {
        self.file.value().by_id(id).cloned()
    }

    /// The id of a name, assigned if new, whether or not there is such an account: for stored records.
    #[must_use]
    pub fn id_of(&self, name: &str) -> AccountId {
        self.names().intern(name).1.id
    }

    /// The id of a name, if the name was ever seen: for lookups, which must not assign ids.
    #[must_use]
    pub fn known_id_of(&self, name: &str) -> Option<AccountId> {
        self.names().ids.get(name).map(|(id, _)| *id)
    }

    /// The name of an id, whether or not the account still exists.
    #[must_use]
    pub fn name_of(&self, id: AccountId) -> Option<Arc<str>> {
        self.names().by_id.get(id.index()).cloned()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.registry.names()
    }

    /// The current state, without counting references: the cheapest way to read it. Do not hold it
    /// across an await.
    #[must_use]
    pub fn table(&self) -> Guard<Arc<AccountTable>> {
        self.file.value()
    }

    /// Logs the warnings about the file, if any.
    pub fn log_warnings(&self) {
        let table = self.file.value();
        if !table.warnings.is_empty() {
            tracing::warn!("the account file is used as it is:\n{}", table.warnings);
        }
    }

    /// Logs for each user how many requests, since the last call, passed only because rights are
    /// reported rather than enforced.
    pub fn log_reported(&self) {
        for account in self.file.value().accounts() {
            let reported = account.usage().take_reported();
            if reported > 0 {
                tracing::warn!(
                    user = &**account.name(),
                    reported,
                    "requests passed that the user's rights do not allow (mode = \"report\"); \
                     `would_refuse` in the access records says which"
                );
            }
        }
    }

    /// The path of the account file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.loader().path
    }
}

/// Why an account no longer honors a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disowned {
    /// It was removed.
    Removed,
    /// It is disabled.
    Disabled,
    /// It now has another password, with this mark.
    OtherPassword(PasswordMark),
    /// Its tokens from before this moment no longer work ([`Account::tokens_before`]).
    Earlier(UnixSeconds),
}

impl From<Disowned> for End {
    fn from(why: Disowned) -> Self {
        match why {
            Disowned::Removed => Self::UserRemoved,
            Disowned::Disabled => Self::UserDisabled,
            Disowned::OtherPassword(_) => Self::PasswordChanged,
            Disowned::Earlier(_) => Self::Revoked,
        }
    }
}

fn disowned(
    account: Option<&Arc<Account>>,
    mark: PasswordMark,
    authenticated: UnixSeconds,
) -> Option<Disowned> {
    match account {
        None => Some(Disowned::Removed),
        Some(account) if account.is_disabled() => Some(Disowned::Disabled),
        Some(account) => {
            let now = account.password_mark();
            let before = account.tokens_before();
            match now != mark {
                true => Some(Disowned::OtherPassword(now)),
                false => (authenticated < before).then_some(Disowned::Earlier(before)),
            }
        }
    }
}

/// A consistent snapshot of all accounts.
#[derive(Debug)]
pub struct AccountTable {
    by_name: HashMap<Arc<str>, Arc<Account>>,
    /// Indexed by [`AccountId`]; `None` for names without an account.
    by_id: Vec<Option<Arc<Account>>>,
    warnings: Problems,
}

impl AccountTable {
    fn new(content: validate::ValidFile, names: &mut Names) -> Self {
        let validate::ValidFile { users, warnings } = content;
        let mut by_name = HashMap::with_capacity(users.len());
        for (name, user) in users {
            let (name, known) = names.intern(&name);
            let account = Account::new(Arc::clone(&name), known, user);
            by_name.insert(name, Arc::new(account));
        }
        let mut by_id = vec![None; names.by_id.len()];
        for account in by_name.values() {
            by_id[account.id().index()] = Some(Arc::clone(account));
        }
        Self {
            by_name,
            by_id,
            warnings,
        }
    }

    /// The account with this name, compared byte for byte.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    /// The account of a session, unless it has been removed since.
    #[must_use]
    pub fn by_id(&self, id: AccountId) -> Option<&Arc<Account>> {
        self.by_id.get(id.index())?.as_ref()
    }

    /// Every account, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_name.values()
    }

    fn disowned(
        &self,
        id: AccountId,
        mark: PasswordMark,
        authenticated: UnixSeconds,
    ) -> Option<Disowned> {
        disowned(self.by_id(id), mark, authenticated)
    }

    /// As [`Accounts::disowned`], for the account of a name.
    pub(crate) fn disowned_by_name(
        &self,
        name: &str,
        mark: PasswordMark,
        authenticated: UnixSeconds,
    ) -> Option<Disowned> {
        disowned(self.find(name), mark, authenticated)
    }

    /// The accounts that were enabled `before` and no longer honor the tokens they had then.
    pub(crate) fn disowned_since(&self, before: &Self) -> Vec<(AccountId, Disowned)> {
        let good = before.accounts().filter(|account| !account.is_disabled());
        let why = |account: &Arc<Account>| {
            // If `tokens_before` was moved, a token from just before it stands for all earlier ones.
            let last = self
                .by_id(account.id())
                .filter(|now| now.tokens_before() > account.tokens_before())
                .map_or(UnixSeconds::new(u32::MAX), |_| account.tokens_before());
            let why = self.disowned(account.id(), account.password_mark(), last)?;
            Some((account.id(), why))
        };
        good.filter_map(why).collect()
    }

    /// The warnings about the file that this state comes from.
    #[must_use]
    pub fn warnings(&self) -> &Problems {
        &self.warnings
    }

    /// The number of accounts, disabled ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no accounts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Every name this process has seen, and its id. A name keeps its id across reloads, even if it was
/// gone for a while; its usage is kept only while an account or a request holds it.
#[derive(Debug, Default)]
struct Names {
    ids: HashMap<Arc<str>, (AccountId, Weak<Usage>)>,
    by_id: Vec<Arc<str>>,
}

/// What an account shares with earlier ones of the same name.
#[derive(Debug)]
struct Interned {
    id: AccountId,
    usage: Arc<Usage>,
}

impl Names {
    fn intern(&mut self, name: &str) -> (Arc<str>, Interned) {
        let Self { ids, by_id } = self;
        let next = AccountId::from_index(by_id.len());
        let name = match ids.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => name.into(),
        };
        let (id, kept) = ids.entry(Arc::clone(&name)).or_insert_with(|| {
            by_id.push(Arc::clone(&name));
            (next, Weak::new())
        });
        let usage = kept.upgrade().unwrap_or_default();
        *kept = Arc::downgrade(&usage);
        (name, Interned { id: *id, usage })
    }
}
