//! `syncgate user ...`: the accounts, edited where they are kept.

use clap::{Args, Subcommand};

use super::account_file::{AccountFileOption, Named, failure, say};
use super::failure::Failure;
use super::password::{NewPassword, PasswordSource};
use super::user_rights::Rights;
use super::{print, user_list};
use crate::accounts::{ChangeOutcome, EditError, InitialRights, check_name};
use crate::password::hash_password;
use crate::settings::suggest;

/// Add, change and list the users who may sign in
///
/// Edits the account file that the configuration names, and keeps its comments. A running gateway
/// reloads it automatically, within seconds.
#[derive(Debug, Args)]
pub(super) struct UserCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Add(Add),
    Passwd(Passwd),
    /// Disable a user until enabled again, and revoke its tokens for good
    Disable(Named),
    /// Let a disabled user sign in again
    Enable(Named),
    /// Remove a user, and revoke its tokens for good
    Remove(Named),
    List(List),
    /// Grant a user a right: everything, a role, or a route, optionally limited to methods and forms
    Allow(Rights),
    /// Take a right from a user; what its roles grant stays granted
    Deny(Rights),
}

/// Add a user
///
/// Prompts for the password, twice, unless told otherwise. The user may call every route, unless told
/// otherwise.
#[derive(Debug, Args)]
struct Add {
    #[command(flatten)]
    user: Named,
    #[command(flatten)]
    password: PasswordSource,
    /// Grant only the rights of this role of the account file; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Grant no rights yet; see `syncgate user allow`
    #[arg(long, conflicts_with = "roles")]
    no_rights: bool,
}

/// Set a user's password
///
/// Prompts for it, twice, unless told otherwise. Tokens obtained with the old password are revoked for
/// good.
#[derive(Debug, Args)]
struct Passwd {
    #[command(flatten)]
    user: Named,
    #[command(flatten)]
    password: PasswordSource,
}

/// List the users and their rights
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    place: AccountFileOption,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl UserCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.action {
            Action::Add(command) => command.run(),
            Action::Passwd(command) => command.run(),
            Action::Disable(command) => command.disable(),
            Action::Enable(command) => command.enable(),
            Action::Remove(command) => command.remove(),
            Action::List(command) => command.run(),
            Action::Allow(command) => command.allow(),
            Action::Deny(command) => command.deny(),
        }
    }
}

impl Add {
    fn run(&self) -> Result<(), Failure> {
        let (name, opened) = (&self.user.name, self.user.place.open()?);
        // Before prompting for a password in vain.
        check_name(name).map_err(Failure::usage)?;
        if opened.path.exists() && opened.file().read()?.find(name).is_some() {
            return Err(Failure::usage(format!("there is a user `{name}` already")));
        }
        let (rights, which) = match (&self.roles[..], self.no_rights) {
            ([], false) => (
                InitialRights::Everything,
                "everything that is routed".to_owned(),
            ),
            ([], true) => (InitialRights::Nothing, "nothing yet".to_owned()),
            (roles, _) => {
                let which = format!("what the roles {} allow", roles.join(", "));
                (InitialRights::Roles(roles.to_vec()), which)
            }
        };
        let new = self.password.obtain(Some(name)).map_err(Failure::usage)?;
        let hash = hash_password(&new.password).map_err(Failure::other)?;
        opened.file().add(name, &hash, &rights).map_err(failure)?;
        say(&format!(
            "Added the user `{name}` to {}. It may reach {which}.",
            opened.shown()
        ));
        hand_over(name, new)
    }
}

impl Passwd {
    fn run(&self) -> Result<(), Failure> {
        let (name, opened) = (&self.user.name, self.user.place.open()?);
        // Before prompting for a password in vain.
        let table = opened.file().read()?;
        if table.find(name).is_none() {
            let names: Vec<_> = table.accounts().map(|account| &**account.name()).collect();
            let near = suggest::nearest(name, &names).map(str::to_owned);
            let error = EditError::NoSuchUser {
                name: name.clone(),
                near,
            };
            return Err(Failure::usage(error));
        }
        let new = self.password.obtain(Some(name)).map_err(Failure::usage)?;
        let hash = hash_password(&new.password).map_err(Failure::other)?;
        let file = opened.file_ending_tokens();
        file.set_password(name, &hash).map_err(failure)?;
        let ended = self.user.place.end_tokens(name);
        say(&format!("Set the password of `{name}`. {ended}"));
        hand_over(name, new)
    }
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let opened = self.place.open()?;
        let table = opened.file().read()?;
        let mut accounts: Vec<_> = table.accounts().collect();
        accounts.sort_by(|a, b| a.name().cmp(b.name()));
        let listed = match self.json {
            true => user_list::json(&accounts),
            false if accounts.is_empty() => {
                say(&format!(
                    "No users in {}; `syncgate user add NAME` adds one.",
                    opened.shown()
                ));
                String::new()
            }
            false => user_list::text(&accounts),
        };
        print(listed.as_bytes())
    }
}

/// Prints a generated password.
fn hand_over(name: &str, new: NewPassword) -> Result<(), Failure> {
    let Some(text) = new.generated else {
        return Ok(());
    };
    say(&format!("The password of `{name}` is shown this once:"));
    print(format!("{}\n", *text).as_bytes())
}

impl Named {
    fn disable(&self) -> Result<(), Failure> {
        let Self { name, .. } = self;
        let opened = self.place.open()?;
        match opened.file_ending_tokens().disable(name).map_err(failure)? {
            ChangeOutcome::Changed => {
                let ended = self.place.end_tokens(name);
                say(&format!("Disabled `{name}`: it cannot sign in. {ended}"));
            }
            ChangeOutcome::Unchanged => say(&format!(
                "`{name}` is disabled already. Nothing was changed."
            )),
        }
        Ok(())
    }

    fn enable(&self) -> Result<(), Failure> {
        let Self { name, .. } = self;
        let done = format!("Enabled `{name}`. It has to sign in again: its tokens stay ended.");
        self.change(
            |file| file.enable(name),
            &done,
            &format!("`{name}` is enabled already."),
        )
    }

    fn remove(&self) -> Result<(), Failure> {
        let Self { name, .. } = self;
        self.place.open()?.file().remove(name).map_err(failure)?;
        let ended = self.place.end_tokens(name);
        say(&format!("Removed `{name}`. {ended}"));
        Ok(())
    }
}
