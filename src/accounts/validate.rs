//! Pure: checks that the parts of an account file are consistent, and compiles its rights.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;

use super::account::ValidUser;
use super::file::{Name, Role, StoredPassword, User};
use super::mask::mask_secrets;
use crate::clock::UnixSeconds;
use crate::password::PasswordHash;
use crate::policy::admission::{Admission, Moment};
use crate::policy::rights::{Allow, AllowEntry, Mode, Rights, RightsError};
use crate::route::RouteSection;
use crate::session::PasswordMark;
use crate::settings::document::{Document, Step, TomlText};
use crate::settings::{Problem, Problems, suggest};

/// Parses and validates `text`, the content of the file at `path`.
pub(super) fn parse(
    path: &Path,
    text: &str,
    routes: Option<&[RouteSection]>,
) -> Result<ValidFile, Problems> {
    let shown = mask_secrets(text);
    let source = TomlText::scan_masked(&path.display().to_string(), text, &shown);
    let mut document = Document::new(&source);
    document.refuse_other_sections(&["users", "roles"], section_of);
    let roles = document.section("roles").unwrap_or_default();
    let users = document.section("users").unwrap_or_default();
    Validator {
        document,
        roles,
        routes,
    }
    .validate(users)
}

/// As [`parse`], but refuses an empty file: for one that had content before.
pub(super) fn parse_filled(
    path: &Path,
    text: &str,
    routes: Option<&[RouteSection]>,
) -> Result<ValidFile, Problems> {
    if text.trim().is_empty() {
        let mut problems = Problems::none(path.display().to_string(), "");
        let problem = Problem::error("the account file is empty");
        problems.push(problem.remedy("restore its content, or leave a comment in it"));
        return Err(problems);
    }
    parse(path, text, routes)
}

/// The section a misplaced key belongs in: users' keys are easily written without their user.
fn section_of(key: &str) -> Option<String> {
    let user_keys = [
        "password",
        "disabled",
        "tokens_before",
        "allow",
        "mode",
        "networks",
        "hours",
    ];
    user_keys.contains(&key).then(|| "users.NAME".to_owned())
}

/// A validated account file, and its warnings.
#[derive(Debug)]
pub(super) struct ValidFile {
    /// By name.
    pub(super) users: BTreeMap<String, ValidUser>,
    pub(super) warnings: Problems,
}

/// What could be read of the file.
pub(super) struct Validator<'s, 'r> {
    pub(super) document: Document<'s>,
    pub(super) roles: BTreeMap<Name, Role>,
    /// The configured routes, if known.
    pub(super) routes: Option<&'r [RouteSection]>,
}

/// A role, compiled.
struct CompiledRole {
    rights: Rights,
    mode: Mode,
}

impl Validator<'_, '_> {
    /// Returns the valid file, or everything that is wrong with it.
    pub(super) fn validate(mut self, users: BTreeMap<Name, User>) -> Result<ValidFile, Problems> {
        self.check_distinct_names(&users);
        let mut roles = BTreeMap::new();
        for (name, role) in std::mem::take(&mut self.roles) {
            let rights = self.rights("roles", &name, &role.allow);
            roles.insert(
                name,
                CompiledRole {
                    rights,
                    mode: role.mode.unwrap_or_default(),
                },
            );
        }
        let users = users
            .into_iter()
            .filter_map(|(name, user)| self.user(name, user, &roles))
            .collect();
        let warnings = self.document.into_problems();
        match warnings.only_warnings() {
            true => Ok(ValidFile { users, warnings }),
            false => Err(warnings),
        }
    }

    /// Many backends would take names that differ only in case for one.
    fn check_distinct_names(&mut self, users: &BTreeMap<Name, User>) {
        let mut seen: BTreeMap<String, &Name> = BTreeMap::new();
        for name in users.keys() {
            if let Some(other) = seen.insert(name.text.to_ascii_lowercase(), name) {
                let message = format!("`{}` and `{}` differ only in case", other.text, name.text);
                let problem = Problem::error(message).at(Some(name.span.clone()));
                self.document
                    .report(problem.remedy("rename one: a backend may mistake them"));
            }
        }
    }

    fn user(
        &mut self,
        name: Name,
        user: User,
        roles: &BTreeMap<Name, CompiledRole>,
    ) -> Option<(String, ValidUser)> {
        let has_rights = user.allow.is_some() || !user.roles.is_empty();
        if !has_rights && !self.document.is_damaged("users", "allow") {
            let problem = Problem::warning(format!("`{}` has no rights", name.text));
            let remedy = "add `allow` or `roles`, or `allow = []` if that is intended";
            self.document
                .report(problem.at(Some(name.span.clone())).remedy(remedy));
        }
        let own = user
            .allow
            .as_ref()
            .map(|allow| self.rights("users", &name, allow));
        let named: Vec<_> = user
            .roles
            .iter()
            .filter_map(|role| self.role(role, roles))
            .collect();
        let admission = Admission {
            networks: user.networks.0,
            valid_from: user.valid_from.as_ref().map(|moment| *moment.get_ref()),
            valid_until: user.valid_until.as_ref().map(|moment| *moment.get_ref()),
            hours: user.hours,
        };
        self.validity(user.valid_from.as_ref(), user.valid_until.as_ref());
        let (password, mark) = self.password(&name, &user.password)?;
        let valid = ValidUser {
            password,
            mark,
            disabled: user.disabled,
            tokens_before: user
                .tokens_before
                .map_or(UnixSeconds::new(0), Moment::seconds),
            allow: user.allow,
            mode: mode(user.mode, &named),
            rights: named
                .iter()
                .fold(own.unwrap_or_default(), |all, role| all.union(&role.rights)),
            roles: user.roles.into_iter().map(Spanned::into_inner).collect(),
            admission,
        };
        Some((name.text, valid))
    }

    fn password(
        &mut self,
        name: &Name,
        stored: &Spanned<StoredPassword>,
    ) -> Option<(Arc<PasswordHash>, PasswordMark)> {
        let user = &name.text;
        let remedy = format!("set a password: syncgate user passwd {user}");
        match stored.get_ref() {
            StoredPassword::Unusable(error) => {
                let problem = Problem::error(error.to_string());
                self.document
                    .report(problem.at(Some(stored.span())).remedy(remedy));
                None
            }
            StoredPassword::Hash { hash, mark } => {
                if !hash.has_standard_cost() {
                    let problem = Problem::warning(format!(
                        "verifying this hash takes a different time than for an unknown user, \
                         so strangers can find out that there is a user `{user}`"
                    ));
                    self.document
                        .report(problem.at(Some(stored.span())).remedy(remedy));
                }
                Some((Arc::clone(hash), *mark))
            }
        }
    }

    fn validity<T: PartialOrd>(&mut self, from: Option<&Spanned<T>>, until: Option<&Spanned<T>>) {
        if let (Some(from), Some(until)) = (from, until)
            && from.get_ref() >= until.get_ref()
        {
            let problem = Problem::error("`valid_until` is not after `valid_from`");
            let problem = problem
                .at(Some(until.span()))
                .remedy("write a later moment");
            self.document.report(problem);
        }
    }

    fn role<'r>(
        &mut self,
        role: &Spanned<String>,
        roles: &'r BTreeMap<Name, CompiledRole>,
    ) -> Option<&'r CompiledRole> {
        let name = role.get_ref();
        let found = roles.get(name.as_str());
        if found.is_none() && !self.document.is_damaged("roles", name) {
            let names: Vec<_> = roles.keys().map(|role| &*role.text).collect();
            let remedy = match suggest::nearest(name, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("add a section [roles.{name}]"),
            };
            let problem = Problem::error(format!("there is no role `{name}`"));
            self.document
                .report(problem.at(Some(role.span())).remedy(remedy));
        }
        found
    }

    /// Compiles a list of rights; invalid entries are reported and left out.
    fn rights(&mut self, section: &str, name: &Name, allow: &Allow) -> Rights {
        let paths: Vec<_> = self
            .routes
            .unwrap_or_default()
            .iter()
            .map(|route| route.path.as_str())
            .collect();
        let entries = match allow {
            Allow::Everything => {
                return Rights::compile(allow, &paths).unwrap_or_default();
            }
            Allow::Entries(entries) => entries,
        };
        let mut rights = Rights::default();
        for (index, entry) in entries.iter().enumerate() {
            let list = Allow::Entries(vec![entry.clone()]);
            let compiled = match self.routes {
                Some(_) => Rights::compile(&list, &paths),
                None => Rights::compile(&list, &[&entry.route]),
            };
            let locate = |document: &Document<'_>, key| locate(document, section, name, index, key);
            match compiled {
                Ok(more) => rights = rights.union(&more),
                Err(error) => {
                    let (key, remedy) = describe(&error, &paths);
                    let problem = Problem::error(error.to_string()).remedy(remedy);
                    let span = locate(&self.document, key);
                    self.document.report(problem.at(span));
                }
            }
            if let Some(problem) = self.unreachable(entry) {
                let span = locate(&self.document, "methods");
                self.document.report(problem.at(span));
            }
        }
        rights
    }

    /// The warning for a method that the route does not accept: the right to it has no effect.
    fn unreachable(&self, entry: &AllowEntry) -> Option<Problem> {
        let same = |route: &&RouteSection| route.path.as_str().eq_ignore_ascii_case(&entry.route);
        let route = self.routes?.iter().find(same)?;
        let method = entry
            .methods
            .iter()
            .flatten()
            .find(|method| !route.methods.contains(method))?;
        let taken: Vec<_> = route.methods.iter().map(|method| method.as_str()).collect();
        let problem =
            Problem::warning(format!("the route {} does not accept {method}", route.path));
        Some(problem.remedy(format!("it accepts {}", taken.join(", "))))
    }
}

/// The user's own mode, if set; otherwise `report` only if all of the user's roles say so.
fn mode(own: Option<Mode>, roles: &[&CompiledRole]) -> Mode {
    let all_report = !roles.is_empty() && roles.iter().all(|role| role.mode == Mode::Report);
    own.unwrap_or(if all_report {
        Mode::Report
    } else {
        Mode::Enforce
    })
}

/// The span of a key of an entry, or of the closest thing around it.
fn locate(
    document: &Document<'_>,
    section: &str,
    name: &Name,
    index: usize,
    key: &str,
) -> Option<Range<usize>> {
    let list = [
        Step::Key(section),
        Step::Key(&name.text),
        Step::Key("allow"),
    ];
    // Entries left out as invalid have shifted the indices of the others.
    let exact = !document.is_damaged(section, "allow");
    let entry = [&list[..], &[Step::Element(index)]].concat();
    let inside = [&entry[..], &[Step::Key(key)]].concat();
    let places = [inside, entry]
        .into_iter()
        .filter(|_| exact)
        .chain([list.to_vec()]);
    places.into_iter().find_map(|path| document.span(&path))
}

/// The invalid key of the entry, and what to write instead.
fn describe(error: &RightsError, paths: &[&str]) -> (&'static str, String) {
    match error {
        RightsError::UnknownRoute { route, .. } => {
            let known = format!("the routes are {}", paths.join(", "));
            let remedy = match suggest::nearest(route, paths) {
                Some(near) => format!("did you mean \"{near}\"? {known}"),
                None => known,
            };
            ("route", remedy)
        }
        RightsError::NoMethods { .. } => ("methods", "write for example [\"POST\"]".to_owned()),
        RightsError::NoForms { .. } | RightsError::MalformedForm { .. } => (
            "forms",
            "write for example [\"setCustomer\", \"getStock*\"]".to_owned(),
        ),
    }
}
