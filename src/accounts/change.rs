//! Changing the account file: one change at a time, whole or not at all, and never to a file that
//! the gateway would refuse.

use std::path::Path;

use thiserror::Error;
use toml_edit::Datetime;

use super::account::{NameError, check_name};
use super::edit::{Draft, EditError};
use super::grants::{self, Grant};
use super::{AccountTable, Names, file, judge};
use crate::clock::UnixSeconds;
use crate::private_file::{self, PrivateFileError};
use crate::route::RouteSection;
use crate::settings::Problems;

/// The account file, to be changed.
#[derive(Debug, Clone, Copy)]
pub struct AccountFile<'a> {
    path: &'a Path,
    routes: Option<&'a [RouteSection]>,
    /// What disabling an account, enabling it and changing its password write down as `tokens_before`.
    tokens_before: Option<UnixSeconds>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The file was changed.
    Changed,
    /// The file said so already.
    AsBefore,
}

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file cannot be read or written.
    #[error("{error}{}", file::remedy(.error).map(|remedy| format!("; {remedy}")).unwrap_or_default())]
    File {
        /// Why not.
        #[from]
        error: PrivateFileError,
    },
    /// The file is wrong as it is.
    #[error("the file must be put right first; nothing was changed\n\n{0}")]
    AlreadyWrong(Problems),
    /// The change cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The change would make the file wrong.
    #[error("the gateway would refuse the file then; nothing was changed\n\n{0}")]
    WouldBeWrong(Problems),
}

/// What a new account may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewRights {
    /// Everything that is routed.
    Everything,
    /// Nothing yet.
    Nothing,
    /// What these roles may.
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

    /// The same: whoever disables an account, enables it or changes its password also ends, by a note in
    /// the file, its tokens whose password was given before `moment`, so that they stay ended when the
    /// change is undone before any gateway has seen it.
    #[must_use]
    pub fn ending_tokens_before(self, moment: UnixSeconds) -> Self {
        Self {
            tokens_before: Some(moment),
            ..self
        }
    }

    /// The accounts that the file has.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn read(&self) -> Result<AccountTable, Problems> {
        let text = file::look(self.path)?;
        let content = judge::parse(self.path, &text, self.routes)?;
        Ok(AccountTable::new(content, &mut Names::default()))
    }

    /// Adds an account with a stored hash. Makes the file if there is none.
    ///
    /// # Errors
    /// When there is such an account, and as for every change.
    pub fn add(&self, name: &str, phc: &str, rights: &NewRights) -> Result<Outcome, ChangeError> {
        check_name(name)?;
        self.change(Some(HEADER), |draft| {
            let allow = match rights {
                NewRights::Everything => Some(grants::everything()),
                NewRights::Nothing => Some(grants::nothing()),
                NewRights::Roles(_) => None,
            };
            draft.add(name, phc, allow)?;
            match rights {
                NewRights::Everything | NewRights::Nothing => Ok(()),
                NewRights::Roles(roles) => {
                    let account = draft.account(name)?;
                    roles
                        .iter()
                        .try_for_each(|role| grants::join(account, role))
                }
            }
        })
    }

    /// Replaces the stored hash of an account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn set_password(&self, name: &str, phc: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| {
            draft.set(name, "password", phc)?;
            self.end_tokens(draft, name)
        })
    }

    /// Lets nobody sign in as the account, nor use its tokens.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn disable(&self, name: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| {
            let is_disabled = is_disabled(draft, name)?;
            draft.set(name, "disabled", true)?;
            match is_disabled {
                true => Ok(()),
                false => self.end_tokens(draft, name),
            }
        })
    }

    /// Undoes [`disable`](Self::disable).
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn enable(&self, name: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| {
            let was_disabled = is_disabled(draft, name)?;
            if draft.account(name)?.contains_key("disabled") {
                draft.set(name, "disabled", false)?;
            }
            match was_disabled {
                // Whoever disabled it by hand may have noted nothing.
                true => self.end_tokens(draft, name),
                false => Ok(()),
            }
        })
    }

    /// Removes an account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn remove(&self, name: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| draft.remove(name))
    }

    /// Gives the account a right.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn allow(&self, name: &str, grant: &Grant) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| grants::give(draft.account(name)?, grant))
    }

    /// Takes a right from the account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn deny(&self, name: &str, grant: &Grant) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| grants::take(draft.account(name)?, grant))
    }

    /// Gives the account every right.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn allow_everything(&self, name: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| {
            draft.replace(name, "allow", grants::everything())
        })
    }

    /// Takes every right of its own from the account; those of its roles stay.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn deny_everything(&self, name: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| {
            draft.replace(name, "allow", grants::nothing())
        })
    }

    /// Gives the account a role.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn join(&self, name: &str, role: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| grants::join(draft.account(name)?, role))
    }

    /// Takes a role from the account.
    ///
    /// # Errors
    /// As for every change: see [`ChangeError`].
    pub fn leave(&self, name: &str, role: &str) -> Result<Outcome, ChangeError> {
        self.change(None, |draft| grants::leave(draft.account(name)?, role))
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
    ) -> Result<Outcome, ChangeError> {
        let mut outcome = Outcome::AsBefore;
        private_file::update(self.path, fresh, |before| {
            judge::parse(self.path, before, self.routes).map_err(ChangeError::AlreadyWrong)?;
            let mut draft = Draft::parse(before)?;
            change(&mut draft)?;
            let after = draft.into_text();
            if after == before {
                return Ok::<_, ChangeError>(None);
            }
            judge::parse(self.path, &after, self.routes).map_err(ChangeError::WouldBeWrong)?;
            outcome = Outcome::Changed;
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
# the comments; editing it by hand is as good. The running gateway notices a change by itself.
#
# [users.NAME]
# password = \"$argon2id$...\"               # made by `syncgate user passwd` or `syncgate hash`
# disabled = true                          # may neither sign in nor use its tokens
# tokens_before = 2026-01-01T00:00:00Z     # tokens whose password was given before it are over
# allow = \"*\"                              # everything that is routed, or a list:
# allow = [{ route = \"/api/SyncData\", methods = [\"POST\"], forms = [\"setCustomer\", \"get*\"] }]
# roles = [\"tills\"]                        # the rights of [roles.tills] as well
# mode = \"report\"                          # log what the rights forbid, but let it pass
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
