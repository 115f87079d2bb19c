//! Pure: which entries of the account file give an account its rights. The gateway keeps only their
//! union; this is for explaining a decision.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::{Name, Role, User};
use super::mask::mask_secrets;
use crate::policy::rights::{Allow, AllowEntry, Rights};
use crate::route::RouteSection;
use crate::settings::document::{Document, Step, TomlText};

/// One `allow` entry, and the rights it gives by itself.
#[derive(Debug)]
pub struct Provenance {
    role: Option<String>,
    entry: Option<AllowEntry>,
    line: Option<usize>,
    rights: Rights,
}

impl Provenance {
    /// The role that lists the entry; `None` for the account's own.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// The entry as written; `None` for `"*"`.
    #[must_use]
    pub fn entry(&self) -> Option<&AllowEntry> {
        self.entry.as_ref()
    }

    /// The line it begins on, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The rights of this entry alone.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.rights
    }
}

/// Every entry that gives rights to the account, its own before those of its roles. The file must be
/// valid.
pub(super) fn of_account(
    path: &Path,
    text: &str,
    routes: &[RouteSection],
    name: &str,
) -> Vec<Provenance> {
    let shown = mask_secrets(text);
    let source = TomlText::scan_masked(&path.display().to_string(), text, &shown);
    let mut document = Document::new(&source);
    let roles: BTreeMap<Name, Role> = document.section("roles").unwrap_or_default();
    let users: BTreeMap<Name, User> = document.section("users").unwrap_or_default();
    let Some(user) = users.get(name) else {
        return Vec::new();
    };
    let paths = routes.iter().map(|route| route.path.as_str()).collect();
    let finder = EntryFinder {
        document: &document,
        text,
        paths,
    };
    let own = user.allow.iter();
    let mut found: Vec<_> = own
        .flat_map(|allow| finder.list("users", name, allow))
        .collect();
    for role in &user.roles {
        let role = role.get_ref();
        if let Some(shared) = roles.get(role.as_str()) {
            found.extend(finder.list("roles", role, &shared.allow));
        }
    }
    found
}

struct EntryFinder<'a, 's> {
    document: &'a Document<'s>,
    text: &'a str,
    paths: Vec<&'a str>,
}

impl EntryFinder<'_, '_> {
    fn list(&self, section: &str, name: &str, allow: &Allow) -> Vec<Provenance> {
        let list = [Step::Key(section), Step::Key(name), Step::Key("allow")];
        let entry_at = |entry: Option<&AllowEntry>, path: &[Step<'_>]| {
            let alone = match entry {
                Some(entry) => Allow::Entries(vec![entry.clone()]),
                None => Allow::Everything,
            };
            Provenance {
                role: (section == "roles").then(|| name.to_owned()),
                entry: entry.cloned(),
                line: self.line(path),
                // The file is valid, so every entry compiles.
                rights: Rights::compile(&alone, &self.paths).unwrap_or_default(),
            }
        };
        match allow {
            Allow::Everything => vec![entry_at(None, &list)],
            Allow::Entries(entries) => entries
                .iter()
                .enumerate()
                .map(|(index, entry)| {
                    entry_at(Some(entry), &[&list[..], &[Step::Element(index)]].concat())
                })
                .collect(),
        }
    }

    fn line(&self, path: &[Step<'_>]) -> Option<usize> {
        let start = self.document.span(path)?.start;
        let before = self.text.as_bytes().get(..start)?;
        Some(before.iter().filter(|&&byte| byte == b'\n').count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "\"$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ\
                        $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\"";

    /// `LINE OWNER ROUTE`, where the owner is `own` or a role.
    fn shown(text: &str, name: &str) -> Vec<String> {
        let text = text.replace("HASH", HASH);
        let routes = RouteSection::defaults();
        of_account(Path::new("users.toml"), &text, &routes, name)
            .iter()
            .map(|provenance| {
                let line = provenance
                    .line()
                    .map_or("?".to_owned(), |line| line.to_string());
                let route = provenance.entry().map_or("*", |entry| &*entry.route);
                format!("{line} {} {route}", provenance.role().unwrap_or("own"))
            })
            .collect()
    }

    #[test]
    fn every_entry_is_named_with_its_line_and_owner_in_every_layout() {
        let inline = "[users.a]\npassword = HASH\nallow = [{ route = \"/api/GetData\" }, \
                      { route = \"/api/SyncData\" }]\nroles = [\"r\", \"q\"]\n\
                      [roles.q]\nallow = \"*\"\n\
                      [roles.r]\nallow = [\n  # why\n  { route = \"/api/SyncVoucher\" },\n]\n";
        let tables = "[users.\"a.b\"]\npassword = HASH\n\n[[users.\"a.b\".allow]]\n\
                      route = \"/api/GetData\"\n\n[[users.\"a.b\".allow]]\nroute = \"/api/SyncData\"\n";
        let cases: [(&str, &str, &[&str]); 5] = [
            (
                inline,
                "a",
                &[
                    "3 own /api/GetData",
                    "3 own /api/SyncData",
                    "10 r /api/SyncVoucher",
                    "6 q *",
                ],
            ),
            (
                tables,
                "a.b",
                &["4 own /api/GetData", "7 own /api/SyncData"],
            ),
            (
                "[users.a]\npassword = HASH\nallow = \"*\"\n",
                "a",
                &["3 own *"],
            ),
            ("[users.a]\npassword = HASH\n", "a", &[]),
            (inline, "b", &[]),
        ];
        for (text, name, expected) in cases {
            assert_eq!(shown(text, name), expected, "{text}");
        }
    }
}
