//! Pure: which entries of the account file an account has its rights from. The gateway keeps only
//! what they add up to; this is for whoever asks why.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::{Name, Role, User};
use super::mask::mask_secrets;
use crate::policy::rights::{Allow, AllowEntry, Rights};
use crate::route::RouteSection;
use crate::settings::document::{Document, Source, Step};

/// One entry of a list of rights, and what it alone gives.
#[derive(Debug)]
pub struct Origin {
    role: Option<String>,
    entry: Option<AllowEntry>,
    line: Option<usize>,
    rights: Rights,
}

impl Origin {
    /// The role whose list it is in; none for the account's own.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// The entry as written; none where the list is `"*"`.
    #[must_use]
    pub fn entry(&self) -> Option<&AllowEntry> {
        self.entry.as_ref()
    }

    /// The line that it begins on, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// What this entry alone gives, compiled as all of them are.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.rights
    }
}

/// Every entry that the account of this name has a right from, its own before those of its roles;
/// for a file that has been judged to be in order.
pub(super) fn origins(path: &Path, text: &str, routes: &[RouteSection], name: &str) -> Vec<Origin> {
    let shown = mask_secrets(text);
    let source = Source::scan_masked(&path.display().to_string(), text, &shown);
    let mut document = Document::new(&source);
    let roles: BTreeMap<Name, Role> = document.section("roles").unwrap_or_default();
    let users: BTreeMap<Name, User> = document.section("users").unwrap_or_default();
    let Some(user) = users.get(name) else {
        return Vec::new();
    };
    let paths = routes.iter().map(|route| route.path.as_str()).collect();
    let finder = Finder {
        document: &document,
        text,
        paths,
    };
    let own = user.allow.iter();
    let mut origins: Vec<_> = own
        .flat_map(|allow| finder.list("users", name, allow))
        .collect();
    for role in &user.roles {
        let role = role.get_ref();
        if let Some(shared) = roles.get(role.as_str()) {
            origins.extend(finder.list("roles", role, &shared.allow));
        }
    }
    origins
}

struct Finder<'a, 's> {
    document: &'a Document<'s>,
    text: &'a str,
    paths: Vec<&'a str>,
}

impl Finder<'_, '_> {
    fn list(&self, section: &str, name: &str, allow: &Allow) -> Vec<Origin> {
        let list = [Step::Key(section), Step::Key(name), Step::Key("allow")];
        let origin = |entry: Option<&AllowEntry>, place: &[Step<'_>]| {
            let alone = match entry {
                Some(entry) => Allow::Entries(vec![entry.clone()]),
                None => Allow::Everything,
            };
            Origin {
                role: (section == "roles").then(|| name.to_owned()),
                entry: entry.cloned(),
                line: self.line(place),
                // The file is in order, so every entry can be compiled.
                rights: Rights::compile(&alone, &self.paths).unwrap_or_default(),
            }
        };
        match allow {
            Allow::Everything => vec![origin(None, &list)],
            Allow::Entries(entries) => entries
                .iter()
                .enumerate()
                .map(|(index, entry)| {
                    origin(Some(entry), &[&list[..], &[Step::Element(index)]].concat())
                })
                .collect(),
        }
    }

    fn line(&self, place: &[Step<'_>]) -> Option<usize> {
        let start = self.document.span(place)?.start;
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
        origins(Path::new("users.toml"), &text, &routes, name)
            .iter()
            .map(|origin| {
                let line = origin
                    .line()
                    .map_or("?".to_owned(), |line| line.to_string());
                let route = origin.entry().map_or("*", |entry| &*entry.route);
                format!("{line} {} {route}", origin.role().unwrap_or("own"))
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
