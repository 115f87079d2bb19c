//! Who may sign in: the accounts of the gateway, read from `users.toml` and swapped whole on reload.

mod account;
mod change;
mod edit;
mod file;
mod grants;
mod judge;
mod mask;
mod origin;
mod settings;

pub use crate::private_file::PrivateFileError;
pub use account::{Account, MAX_USERNAME, NameError, check_name};
pub use change::{AccountFile, ChangeError, NewRights, Outcome};
pub use edit::EditError;
pub use grants::Grant;
pub use origin::Origin;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::Guard;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::managed_file::{Load, Managed, ManagedFiles, Messages, Reader};
use crate::route::RouteSection;
use crate::session::{AccountId, End, PasswordMark};
use crate::settings::Problems;
use crate::traffic::Usage;

pub use settings::AccountsSection;

/// The accounts in force. Reading never waits, not even for a reload.
#[derive(Debug)]
pub struct Accounts(Managed<AccountFileLoader>);

/// How a table is made of the account file.
#[derive(Debug)]
struct AccountFileLoader {
    path: PathBuf,
    routes: Vec<RouteSection>,
    names: Mutex<Names>,
}

impl Load for AccountFileLoader {
    type Value = AccountTable;
    type Error = Problems;
    const MESSAGES: Messages = Messages {
        read: "the account file was read again",
        refused: "the account file cannot be used; the previous one stays in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    /// A file that has become empty counts as wrong: whoever wants no accounts removes them one by one.
    fn load(
        &self,
        reader: &mut Reader,
        before: Option<&AccountTable>,
    ) -> Result<AccountTable, Problems> {
        let text = self.text(reader)?;
        let routes = Some(&*self.routes);
        let content = match before {
            None => judge::parse(&self.path, &text, routes)?,
            Some(_) => judge::parse_filled(&self.path, &text, routes)?,
        };
        Ok(AccountTable::new(content, &mut self.names()))
    }

    fn count(&self, value: &AccountTable) -> usize {
        value.len()
    }
}

impl AccountFileLoader {
    fn new(path: &Path, routes: Vec<RouteSection>) -> Self {
        Self {
            path: path.to_owned(),
            routes,
            names: Mutex::default(),
        }
    }

    fn text(&self, reader: &mut Reader) -> Result<Zeroizing<String>, Problems> {
        let text = reader.read_private(&self.path);
        text.map_err(|error| file::unreadable(&self.path, &error))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    /// Reads the account file. Rights are compiled for `routes`, by their indices.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn open(path: &Path, routes: Vec<RouteSection>) -> Result<Self, Problems> {
        Managed::open(AccountFileLoader::new(path, routes)).map(Self)
    }

    /// As [`open`](Self::open), and out of the same text what the account `name` has its rights from.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn open_with_origins(
        path: &Path,
        routes: Vec<RouteSection>,
        name: &str,
    ) -> Result<(Self, Vec<Origin>), Problems> {
        let loader = AccountFileLoader::new(path, routes);
        let mut reader = Reader::onlooking();
        let text = loader.text(&mut reader)?;
        let content = judge::parse(path, &text, Some(&loader.routes))?;
        let origins = origin::origins(path, &text, &loader.routes, name);
        let table = AccountTable::new(content, &mut loader.names());
        Ok((Self(Managed::of(loader, reader, table)), origins))
    }

    /// Reads the account file again. From its return on, every lookup sees the new state; returns
    /// the number of accounts.
    ///
    /// # Errors
    /// Everything that is wrong with the file; the state before stays in force. A file that has
    /// become empty counts as wrong: whoever wants no accounts removes them one by one.
    pub fn reload(&self) -> Result<usize, Problems> {
        self.0.reload().map(|table| table.len())
    }

    /// The account file.
    pub(crate) fn managed(&self) -> &dyn ManagedFiles {
        &self.0
    }

    /// Why the account does not stand behind a token any more that was obtained with this password of
    /// it, given at `authenticated`, if it does not.
    #[must_use]
    pub fn disowned(
        &self,
        id: AccountId,
        mark: PasswordMark,
        authenticated: UnixSeconds,
    ) -> Option<Disowned> {
        self.0.value().disowned(id, mark, authenticated)
    }

    /// The account of a name, compared byte for byte.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Account>> {
        self.0.value().find(name).cloned()
    }

    /// The account that a session names, unless it has been removed since.
    #[must_use]
    pub fn by_id(&self, id: AccountId) -> Option<Arc<Account>> {
        self.0.value().by_id(id).cloned()
    }

    /// The id of a name, whether there is an account of it or not: for what was kept under the name.
    #[must_use]
    pub fn id_of(&self, name: &str) -> AccountId {
        self.names().intern(name).1.id
    }

    /// The id of a name, if anything was ever known of it: for a name that somebody asks for.
    #[must_use]
    pub fn known_id_of(&self, name: &str) -> Option<AccountId> {
        self.names().ids.get(name).map(|(id, _)| *id)
    }

    /// The name that an id stands for, whether there is still an account of it or not.
    #[must_use]
    pub fn name_of(&self, id: AccountId) -> Option<Arc<str>> {
        self.names().by_id.get(id.index()).cloned()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.loader().names()
    }

    /// The present state, to look at without counting references: cheapest for a look that does
    /// not outlive the step it serves. Not to be kept across an await.
    #[must_use]
    pub fn table(&self) -> Guard<Arc<AccountTable>> {
        self.0.value()
    }

    /// Logs what is probably not as it was meant in the file, if anything is.
    pub fn log_warnings(&self) {
        let table = self.0.value();
        if !table.warnings.is_empty() {
            tracing::warn!("the account file is used as it is:\n{}", table.warnings);
        }
    }

    /// Says in the log for each user how many requests passed, since this was last called, only
    /// because rights are reported and not enforced.
    pub fn log_reported(&self) {
        for account in self.0.value().accounts() {
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

    /// The file that the accounts come from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.loader().path
    }
}

/// Why an account does not stand behind its tokens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disowned {
    /// It is gone.
    Removed,
    /// It is switched off.
    Disabled,
    /// It has this other password now.
    OtherPassword(PasswordMark),
    /// Tokens whose password was given before this moment are over ([`Account::tokens_before`]).
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

/// One consistent state of all accounts.
#[derive(Debug)]
pub struct AccountTable {
    by_name: HashMap<Arc<str>, Arc<Account>>,
    /// Indexed by [`AccountId`]; names that are gone leave a hole.
    by_id: Vec<Option<Arc<Account>>>,
    warnings: Problems,
}

impl AccountTable {
    fn new(content: judge::Content, names: &mut Names) -> Self {
        let judge::Content { entries, warnings } = content;
        let mut by_name = HashMap::with_capacity(entries.len());
        for entry in entries {
            let (name, known) = names.intern(&entry.name);
            by_name.insert(
                Arc::clone(&name),
                Arc::new(Account::new(name, known, entry)),
            );
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

    /// The account of a name, compared byte for byte.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    /// The account that a session names, unless it has been removed since.
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

    /// The accounts that were good before and do not stand behind the tokens of then any more.
    pub(crate) fn disowned_since(&self, before: &Self) -> Vec<(AccountId, Disowned)> {
        let good = before.accounts().filter(|account| !account.is_disabled());
        let why = |account: &Arc<Account>| {
            // Those of the last moment before the one that is noted now stand for all of then.
            let last = self
                .by_id(account.id())
                .filter(|now| now.tokens_before() > account.tokens_before())
                .map_or(UnixSeconds::new(u32::MAX), |_| account.tokens_before());
            let why = self.disowned(account.id(), account.password_mark(), last)?;
            Some((account.id(), why))
        };
        good.filter_map(why).collect()
    }

    /// What is probably not as it was meant in the file that this state comes from.
    #[must_use]
    pub fn warnings(&self) -> &Problems {
        &self.warnings
    }

    /// How many accounts there are, disabled ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True when nobody can sign in because there is no account.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Every name ever read in this process and its id: a name keeps its id over reloads, also when
/// it was gone for a while. What it has under way is kept only while there is an account.
#[derive(Debug, Default)]
struct Names {
    ids: HashMap<Arc<str>, (AccountId, Weak<Usage>)>,
    by_id: Vec<Arc<str>>,
}

/// What an account has in common with those of its name before.
#[derive(Debug)]
struct Known {
    id: AccountId,
    usage: Arc<Usage>,
}

impl Names {
    fn intern(&mut self, name: &str) -> (Arc<str>, Known) {
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
        (name, Known { id: *id, usage })
    }
}
