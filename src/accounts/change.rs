//! Changing the account file: one change at a time, whole or not at all, and never to a file that
//! the gateway would refuse.

use std::path::Path;

use thiserror::Error;
use toml_edit::Datetime;

use super::account::{NameError, check_name};
use super::edit::{Draft, EditError};
use super::grants::{self, Grant};
use super::{AccountTable, Names, file, validate};
use crate::clock::UnixSeconds;
use crate::private_file::{self, PrivateFileError};
use crate::route::RouteSection;
use crate::settings::Problems;

/// The account file, opened for changes.
#[derive(Debug, Clone, Copy)]
pub struct AccountFile<'a> {
    path: &'a Path,
    routes: Option<&'a [RouteSection]>,
    /// What disabling, enabling and changing the password record as `tokens_before`.
    tokens_before: Option<UnixSeconds>,
}

/// The result of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The file was changed.
    Changed,
    /// The file already said so.
    Unchanged,
}

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The name is not a valid user name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file cannot be read or written.
    #[error("{error}{}", file::remedy(.error).map(|remedy| format!("; {remedy}")).unwrap_or_default())]
    File {
        /// The cause.
        #[from]
        error: PrivateFileError,
    },
    /// The file is invalid as it stands.
    #[error("fix the file first; nothing was changed\n\n{0}")]
    InvalidBefore(Problems),
    /// The change cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The change would make the file invalid.
    #[error("the gateway would then refuse the file; nothing was changed\n\n{0}")]
    InvalidAfter(Problems),
}

/// What a new account may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitialRights {
    /// Everything that is routed.
    Everything,
    /// Nothing yet.
    Nothing,
    /// Whatever these roles allow.
    Roles(Vec<String>),
}

impl<'a> AccountFile<'a> {
    /// The file at `path`. Without `routes`, any path may be allowed.
    #[must_use]
    pub fn new(path: &'a Path, routes: Option<&'a [RouteSection]>) -> Self {
        Self {
            path,
            routes,
            tokens_before: None,
        }
    }

    /// Makes disabling, enabling and changing the password also record `moment` as `tokens_before`, which
    /// ends tokens obtained before it. So they stay ended even if the change is undone before any gateway
    /// has seen it.
    #[must_use]
    pub fn ending_tokens_before(self, moment: UnixSeconds) -> Self {
        Self {
            tokens_before: Some(moment),
            ..self
        }
    }

    /// The accounts in the file.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn read(&self) -> Result<AccountTable, Problems> {
        let text = file::inspect(self.path)?;
        let content = validate::parse(self.path, &text, self.routes)?;
        Ok(AccountTable::new(content, &mut Names::default()))
    }

    /// Adds an account with a stored hash. Creates the file if it does not exist.
    ///
    /// # Errors
    /// If the account exists already, and as for every change: see [`ChangeError`].
    pub fn add(
        &self,
        name: &str,
        phc: &str,
        rights: &InitialRights,
    ) -> Result<ChangeOutcome, ChangeError> {
        check_name(name)?;
        self.change(Some(HEADER), |draft| {
            let allow = match rights {
                InitialRights::Everything => Some(grants::everything()),
                InitialRights::Nothing => Some(grants::nothing()),
                InitialRights::Roles(_) => None,
            };
            draft.add(name, phc, allow)?;
            match rights {
                InitialRights::Everything | InitialRights::Nothing => Ok(()),
                InitialRights::Roles(roles) => {
                    let account = draft.account(name)?;
                    roles
                        .iter()
                        .try_for_each(|role| grants::add_role(account, role))
                }
            }
        })
    }

    /// Replaces the stored hash of an account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn set_password(&self, name: &str, phc: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| {
            draft.set(name, "password", phc)?;
            self.end_tokens(draft, name)
        })
    }

    /// Disables an account: nobody can sign in as it or use its tokens.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn disable(&self, name: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| {
            let is_disabled = is_disabled(draft, name)?;
            draft.set(name, "disabled", true)?;
            match is_disabled {
                true => Ok(()),
                false => self.end_tokens(draft, name),
            }
        })
    }

    /// Enables an account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn enable(&self, name: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| {
            let was_disabled = is_disabled(draft, name)?;
            if draft.account(name)?.contains_key("disabled") {
                draft.set(name, "disabled", false)?;
            }
            match was_disabled {
                // Somebody who disabled it by hand may not have recorded anything.
                true => self.end_tokens(draft, name),
                false => Ok(()),
            }
        })
    }

    /// Has the rights of an account enforced, which were only reported.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn enforce(&self, name: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| {
            if draft.account(name)?.contains_key("mode") {
                draft.set(name, "mode", "enforce")?;
            }
            Ok(())
        })
    }

    /// Removes an account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn remove(&self, name: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| draft.remove(name))
    }

    /// Adds a right to the account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn allow(&self, name: &str, grant: &Grant) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| grants::allow(draft.account(name)?, grant))
    }

    /// Removes a right from the account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn deny(&self, name: &str, grant: &Grant) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| grants::deny(draft.account(name)?, grant))
    }

    /// Allows the account everything.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn allow_everything(&self, name: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| {
            draft.replace(name, "allow", grants::everything())
        })
    }

    /// Removes all of the account's own rights; those of its roles stay.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn deny_everything(&self, name: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| {
            draft.replace(name, "allow", grants::nothing())
        })
    }

    /// Adds a role to the account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn add_role(&self, name: &str, role: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| grants::add_role(draft.account(name)?, role))
    }

    /// Removes a role from the account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn remove_role(&self, name: &str, role: &str) -> Result<ChangeOutcome, ChangeError> {
        self.change(None, |draft| {
            grants::remove_role(draft.account(name)?, role)
        })
    }

    fn end_tokens(&self, draft: &mut Draft, name: &str) -> Result<(), EditError> {
        let Some(moment) = self.tokens_before else {
            return Ok(());
        };
        let moment = moment.timestamp().to_string().parse::<Datetime>();
        draft.set(
            name,
            "tokens_before",
            moment.map_err(|_| EditError::Layout)?,
        )
    }

    fn change(
        &self,
        fresh: Option<&str>,
        change: impl FnOnce(&mut Draft) -> Result<(), EditError>,
    ) -> Result<ChangeOutcome, ChangeError> {
        let mut outcome = ChangeOutcome::Unchanged;
        private_file::update(self.path, fresh, |before| {
            validate::parse(self.path, before, self.routes).map_err(ChangeError::InvalidBefore)?;
            let mut draft = Draft::parse(before)?;
            change(&mut draft)?;
            let after = draft.into_text();
            if after == before {
                return Ok::<_, ChangeError>(None);
            }
            validate::parse(self.path, &after, self.routes).map_err(ChangeError::InvalidAfter)?;
            outcome = ChangeOutcome::Changed;
            Ok(Some(after))
        })?;
        Ok(outcome)
    }
}

fn is_disabled(draft: &mut Draft, name: &str) -> Result<bool, EditError> {
    let account = draft.account(name)?;
    let disabled = account.get("disabled").and_then(|item| item.as_bool());
    Ok(disabled.unwrap_or_default())
}

const HEADER: &str = "\
# The accounts of the gateway. Only its owner may read this file (mode 0600).
#
# `syncgate user add | passwd | disable | enable | remove | list | allow | deny` edits it and keeps
# the comments; editing it by hand works as well. The running gateway picks up changes by itself.
#
# [users.NAME]
# password = \"$argon2id$...\"               # made by `syncgate user passwd` or `syncgate hash`
# disabled = true                          # can neither sign in nor use its tokens
# tokens_before = 2026-01-01T00:00:00Z     # tokens obtained before this no longer work
# allow = \"*\"                              # every route, or a list:
# allow = [{ route = \"/api/SyncData\", methods = [\"POST\"], forms = [\"setCustomer\", \"get*\"] }]
# roles = [\"tills\"]                        # the rights of [roles.tills] as well
# mode = \"report\"                          # log what the rights forbid, but let it through
# networks = [\"10.1.0.0/16\", \"192.0.2.7\"]  # where the user may come from
# valid_from = 2026-01-01T00:00:00Z        # and when
# valid_until = 2027-01-01T00:00:00Z
# hours = { from = \"06:00\", until = \"22:00\", offset = \"+01:00\" }
#
# [roles.NAME]
# allow = [{ route = \"/api/GetData\" }]
# mode = \"report\"

[users]
";
