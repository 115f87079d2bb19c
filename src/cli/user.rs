//! `syncgate user ...`: the accounts, edited where they are kept. What is done is said on standard
//! error; standard output has only what was asked for, so that scripts can take it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};

use super::failure::Failure;
use super::password::{NewPassword, PasswordSource};
use super::{ConfigFile, print, user_list};
use crate::accounts::{AccountFile, ChangeError, Grant, NewRights, Outcome, check_name};
use crate::config::{self, suggest};
use crate::login::hashing::hash_password;
use crate::route::RouteSection;

/// Add, change and list the users who may sign in
///
/// Edits the account file that the configuration names, and keeps its comments. A running gateway
/// notices by itself, within seconds.
#[derive(Debug, Args)]
pub(super) struct UserCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Add(Add),
    Passwd(Passwd),
    /// Let a user neither sign in nor use its tokens, until enabled again
    Disable(Named),
    /// Undo `disable`
    Enable(Named),
    /// Remove a user; its tokens are refused from then on
    Remove(Named),
    List(List),
    /// Give a user a right: everything, a role, or a route with or without methods and forms
    Allow(Rights),
    /// Take a right from a user; what its roles allow stays allowed
    Deny(Rights),
}

/// Add a user
///
/// Asks for the password at the terminal, twice, unless told otherwise. The user may reach
/// everything that is routed, unless told otherwise.
#[derive(Debug, Args)]
struct Add {
    #[command(flatten)]
    user: Named,
    #[command(flatten)]
    password: PasswordSource,
    /// Give the user the rights of this role of the account file only; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Give the user no right yet; see `syncgate user allow`
    #[arg(long, conflicts_with = "roles")]
    no_rights: bool,
}

/// Set a user's password
///
/// Asks for it at the terminal, twice, unless told otherwise. Tokens that the old password obtained
/// are refused from then on.
#[derive(Debug, Args)]
struct Passwd {
    #[command(flatten)]
    user: Named,
    #[command(flatten)]
    password: PasswordSource,
}

#[derive(Debug, Args)]
struct Named {
    /// The user name
    name: String,
    #[command(flatten)]
    place: Place,
}

/// List the users and what they may
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["all", "role", "route"]))]
struct Rights {
    #[command(flatten)]
    user: Named,
    /// Everything
    #[arg(long)]
    all: bool,
    /// The rights of this role of the account file
    #[arg(long)]
    role: Option<String>,
    /// The path of a route
    #[arg(value_name = "PATH")]
    route: Option<String>,
    /// Only with these methods, separated by commas
    #[arg(long, alias = "method", value_name = "METHODS", value_delimiter = ',')]
    #[arg(requires = "route")]
    methods: Vec<String>,
    /// Only for these forms, separated by commas; one that ends in `*` stands for all that begin so
    #[arg(long, alias = "form", value_name = "FORMS", value_delimiter = ',')]
    #[arg(requires = "route")]
    forms: Vec<String>,
}

/// Which account file a command is about.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    config: ConfigFile,
    /// The account file; without it, the one that the configuration names
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
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
        // Before anybody is asked for a password in vain.
        check_name(name).map_err(Failure::usage)?;
        if opened.path.exists() && opened.file().read()?.find(name).is_some() {
            return Err(Failure::usage(format!("there is a user `{name}` already")));
        }
        let (rights, which) = match (&self.roles[..], self.no_rights) {
            ([], false) => (
                NewRights::Everything,
                "everything that is routed".to_owned(),
            ),
            ([], true) => (NewRights::Nothing, "nothing yet".to_owned()),
            (roles, _) => {
                let which = format!("what the roles {} allow", roles.join(", "));
                (NewRights::Roles(roles.to_vec()), which)
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
        // Before anybody is asked for a password in vain.
        let table = opened.file().read()?;
        if table.find(name).is_none() {
            let names: Vec<_> = table.accounts().map(|account| &**account.name()).collect();
            let near = suggest::nearest(name, &names).map(str::to_owned);
            let error = crate::accounts::EditError::NoSuchUser {
                name: name.clone(),
                near,
            };
            return Err(Failure::usage(error));
        }
        let new = self.password.obtain(Some(name)).map_err(Failure::usage)?;
        let hash = hash_password(&new.password).map_err(Failure::other)?;
        opened.file().set_password(name, &hash).map_err(failure)?;
        say(&format!(
            "Set the password of `{name}`. Tokens that the old one obtained are refused from now on."
        ));
        hand_over(name, new)
    }
}

impl Named {
    fn disable(&self) -> Result<(), Failure> {
        let Self { name, .. } = self;
        let done = format!("Disabled `{name}`: it can neither sign in nor use its tokens.");
        self.change(
            |file| file.disable(name),
            &done,
            &format!("`{name}` is disabled already."),
        )
    }

    fn enable(&self) -> Result<(), Failure> {
        let Self { name, .. } = self;
        let done = format!("Enabled `{name}`. Its tokens that have not expired hold again.");
        self.change(
            |file| file.enable(name),
            &done,
            &format!("`{name}` is enabled already."),
        )
    }

    fn remove(&self) -> Result<(), Failure> {
        let Self { name, .. } = self;
        let done = format!("Removed `{name}`. Its tokens are refused from now on.");
        self.change(|file| file.remove(name), &done, "")
    }

    /// Makes the change and says which of the two it was.
    fn change(
        &self,
        change: impl FnOnce(AccountFile<'_>) -> Result<Outcome, ChangeError>,
        changed: &str,
        as_before: &str,
    ) -> Result<(), Failure> {
        let opened = self.place.open()?;
        match change(opened.file()).map_err(failure)? {
            Outcome::Changed => say(changed),
            Outcome::AsBefore => say(&format!("{as_before} Nothing was changed.")),
        }
        Ok(())
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

impl Rights {
    fn allow(&self) -> Result<(), Failure> {
        let name = &self.user.name;
        let done = format!(
            "`{name}` may reach {} from the next request on.",
            self.what()
        );
        let as_before = format!("`{name}` may reach that already.");
        let change = |file: AccountFile<'_>| match (&self.role, self.grant()) {
            (Some(role), _) => file.join(name, role),
            (None, Some(grant)) => file.allow(name, &grant),
            (None, None) => file.allow_everything(name),
        };
        self.user.change(change, &done, &as_before)
    }

    fn deny(&self) -> Result<(), Failure> {
        let name = &self.user.name;
        let done = format!(
            "Took from `{name}`: {}. It holds from the next request on.",
            self.what()
        );
        let as_before = format!("`{name}` has no right of its own.");
        let change = |file: AccountFile<'_>| match (&self.role, self.grant()) {
            (Some(role), _) => file.leave(name, role),
            (None, Some(grant)) => file.deny(name, &grant),
            (None, None) => file.deny_everything(name),
        };
        self.user.change(change, &done, &as_before)?;
        let table = self.user.place.open()?.file().read()?;
        let roles = table
            .find(name)
            .map(|account| account.roles().join(", "))
            .unwrap_or_default();
        if !roles.is_empty() {
            say(&format!("What its roles allow stays allowed: {roles}."));
        }
        Ok(())
    }

    fn grant(&self) -> Option<Grant> {
        let methods = self
            .methods
            .iter()
            .map(|method| method.to_ascii_uppercase())
            .collect();
        let forms = self.forms.clone();
        self.route.clone().map(|route| Grant {
            route,
            methods,
            forms,
        })
    }

    fn what(&self) -> String {
        let Some(grant) = self.grant() else {
            let role = self
                .role
                .as_ref()
                .map(|role| format!("what the role {role} allows"));
            return role.unwrap_or_else(|| "everything that is routed".to_owned());
        };
        let mut what = grant.route;
        if !grant.methods.is_empty() {
            what = format!("{} {what}", grant.methods.join(" and "));
        }
        if !grant.forms.is_empty() {
            what = format!("{what} for the forms {}", grant.forms.join(", "));
        }
        what
    }
}

/// The account file, and the routes if the configuration was read to find it.
struct Opened {
    path: PathBuf,
    routes: Option<Vec<RouteSection>>,
}

impl Place {
    fn open(&self) -> Result<Opened, Failure> {
        if let Some(path) = &self.file {
            return Ok(Opened {
                path: path.clone(),
                routes: None,
            });
        }
        let path = &self.config.path;
        // Not as `run` would: what else the configuration names need not be there yet.
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            Failure::usage(format!(
                "cannot read the configuration {path}: {error}; name it with --config FILE, or the \
                 account file itself with --file FILE"
            ))
        })?;
        let config = config::parse(&path.display().to_string(), &text)?.config;
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok(Opened {
            path: directory.join(config.accounts.file),
            routes: Some(config.routes),
        })
    }
}

impl Opened {
    fn file(&self) -> AccountFile<'_> {
        AccountFile::new(&self.path, self.routes.as_deref())
    }

    fn shown(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// Prints a password that nobody has seen yet.
fn hand_over(name: &str, new: NewPassword) -> Result<(), Failure> {
    let Some(text) = new.generated else {
        return Ok(());
    };
    say(&format!("The password of `{name}` is shown this once:"));
    print(format!("{}\n", *text).as_bytes())
}

/// A message for the person at the terminal. One that cannot be read is no failure of the command.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

fn failure(error: ChangeError) -> Failure {
    match error {
        ChangeError::File { .. } => Failure::other(error),
        ChangeError::Name(_)
        | ChangeError::AlreadyWrong(_)
        | ChangeError::Edit(_)
        | ChangeError::WouldBeWrong(_) => Failure::usage(error),
    }
}
