//! `syncgate user allow` and `syncgate user deny`.

use clap::{ArgGroup, Args};

use super::account_file::{Named, say};
use super::failure::Failure;
use crate::accounts::{AccountFile, Grant};

/// The right to give or to take, and whose it is.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["all", "role", "route"]))]
pub(super) struct Rights {
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
    /// Only these methods, separated by commas
    #[arg(long, alias = "method", value_name = "METHODS", value_delimiter = ',')]
    #[arg(requires = "route")]
    methods: Vec<String>,
    /// Only these forms, separated by commas; a trailing `*` matches any suffix
    #[arg(long, alias = "form", value_name = "FORMS", value_delimiter = ',')]
    #[arg(requires = "route")]
    forms: Vec<String>,
}

impl Rights {
    pub(super) fn allow(&self) -> Result<(), Failure> {
        let name = &self.user.name;
        let done = format!(
            "`{name}` may reach {} from the next request on.",
            self.what()
        );
        let as_before = format!("`{name}` may reach that already.");
        let change = |file: AccountFile<'_>| match (&self.role, self.grant()) {
            (Some(role), _) => file.add_role(name, role),
            (None, Some(grant)) => file.allow(name, &grant),
            (None, None) => file.allow_everything(name),
        };
        self.user.change(change, &done, &as_before)
    }

    pub(super) fn deny(&self) -> Result<(), Failure> {
        let name = &self.user.name;
        let done = format!(
            "Took from `{name}`: {}. It holds from the next request on.",
            self.what()
        );
        let as_before = format!("`{name}` has no right of its own.");
        let change = |file: AccountFile<'_>| match (&self.role, self.grant()) {
            (Some(role), _) => file.remove_role(name, role),
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
