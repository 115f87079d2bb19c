//! The schema of the account file `users.toml`, and reading it. `validate` checks that its parts are
//! consistent.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::account::check_name;
use crate::origin::Network;
use crate::password::{PasswordHash, PasswordHashError};
use crate::policy::admission::{Hours, Moment};
use crate::policy::rights::{Allow, Mode};
use crate::private_file::{self, PrivateFileError};
use crate::session::PasswordMark;
use crate::settings::units::refuse;
use crate::settings::{Problem, Problems};

/// Reads the file to inspect it, not to serve it.
pub(super) fn inspect(path: &Path) -> Result<String, Problems> {
    private_file::inspect(path).map_err(|error| unreadable(path, &error))
}

/// How to fix an account file that cannot be read.
pub(super) fn remedy(error: &PrivateFileError) -> Option<String> {
    match error.is_missing() {
        true => Some("`syncgate user add NAME` creates it with a first user".to_owned()),
        false => error.remedy(),
    }
}

/// The report for a file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &PrivateFileError) -> Problems {
    let mut problems = Problems::none(path.display().to_string(), "");
    let problem = Problem::error(error.to_string());
    problems.push(match remedy(error) {
        Some(remedy) => problem.remedy(remedy),
        None => problem,
    });
    problems
}

/// `[users.NAME]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) password: Spanned<StoredPassword>,
    #[serde(default)]
    pub(super) disabled: bool,
    /// Tokens obtained before this moment no longer work.
    pub(super) tokens_before: Option<Moment>,
    pub(super) allow: Option<Allow>,
    #[serde(default)]
    pub(super) roles: Vec<Spanned<String>>,
    pub(super) mode: Option<Mode>,
    #[serde(default)]
    pub(super) networks: Networks,
    pub(super) valid_from: Option<Spanned<Moment>>,
    pub(super) valid_until: Option<Spanned<Moment>>,
    pub(super) hours: Option<Hours>,
}

/// `[roles.NAME]`: rights shared by several users.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    pub(super) allow: Allow,
    pub(super) mode: Option<Mode>,
}

/// The name of a user or role, and its span in the text.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = Spanned::<String>::deserialize(from)?;
        check_name(name.get_ref())
            .map_err(|error| refuse(error, "write for example [users.till-01]"))?;
        Ok(Self {
            span: name.span(),
            text: name.into_inner(),
        })
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Name {}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.text
    }
}

/// The value of `password`. One that is not a hash is kept out of every message.
#[derive(Debug, Clone)]
pub(super) enum StoredPassword {
    Hash {
        hash: Arc<PasswordHash>,
        mark: PasswordMark,
    },
    Unusable(PasswordHashError),
}

impl<'de> Deserialize<'de> for StoredPassword {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StoredPasswordVisitor)
    }
}

/// Accepts values of every type, since serde quotes the ones it refuses.
struct StoredPasswordVisitor;

impl<'de> Visitor<'de> for StoredPasswordVisitor {
    type Value = StoredPassword;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a password hash in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StoredPassword, E> {
        Ok(match PasswordHash::parse(text) {
            Ok(hash) => StoredPassword::Hash {
                hash: Arc::new(hash),
                mark: PasswordMark::of(text),
            },
            Err(error) => StoredPassword::Unusable(error),
        })
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<StoredPassword, E> {
        Ok(MALFORMED)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<StoredPassword, E> {
        Ok(MALFORMED)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<StoredPassword, E> {
        Ok(MALFORMED)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<StoredPassword, E> {
        Ok(MALFORMED)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<StoredPassword, E> {
        Ok(MALFORMED)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<StoredPassword, E> {
        Ok(MALFORMED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StoredPassword, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(MALFORMED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StoredPassword, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(MALFORMED)
    }
}

const MALFORMED: StoredPassword = StoredPassword::Unusable(PasswordHashError::Malformed);

/// At least one network if given: an empty list could be read as all or as none.
#[derive(Debug, Default)]
pub(super) struct Networks(pub(super) Vec<Network>);

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let networks = Vec::deserialize(from)?;
        if networks.is_empty() {
            return Err(refuse(
                "an empty list of networks admits nobody",
                "leave `networks` out to admit everybody, or set `disabled = true`",
            ));
        }
        Ok(Self(networks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::validate::{ValidFile, parse};
    use crate::policy::rights::Decision;
    use crate::route::RouteSection;

    const HASH: &str = "\"$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ\
                        $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\"";

    fn read(text: &str) -> Result<ValidFile, Problems> {
        let routes = RouteSection::defaults();
        parse(
            Path::new("users.toml"),
            &text.replace("HASH", HASH),
            Some(&routes),
        )
    }

    fn report_on(text: &str) -> String {
        match read(text) {
            Ok(content) => content.warnings.to_string(),
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn an_empty_file_has_no_accounts() {
        for text in ["", "# nobody\n", "[users]\n", "[roles]\n[users]\n"] {
            let content = read(text).expect(text);
            assert!(
                content.users.is_empty() && content.warnings.is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn every_problem_is_shown_with_line_caret_and_remedy() {
        let user = "[users.till]\npassword = HASH\n";
        let cases = [
            ("password = HASH", "1:1", "it belongs under [users.NAME]"),
            (
                "[user.till]\npassword = HASH",
                "1:2",
                "did you mean `users`?",
            ),
            (
                "[users.till]\nallow = \"*\"",
                "1:1",
                "`password` is missing",
            ),
            (
                "[users.till]\npasword = HASH",
                "2:1",
                "did you mean `password`?",
            ),
            (
                "[users.till]\npassword = HASH\npassword = HASH",
                "3:1",
                "defined twice",
            ),
            (
                "[users.\"a b\"]\npassword = HASH",
                "1:8",
                "a user name cannot contain ' '",
            ),
            (
                "[users.a]\npassword = HASH\n[users.A]\npassword = HASH",
                "1:8",
                "differ only in case",
            ),
            (
                &format!("{user}disabled = 1"),
                "3:12",
                "write true or false",
            ),
            (
                &format!("{user}allow = \"all\""),
                "3:9",
                "\"*\" or a list of",
            ),
            (
                &format!("{user}allow = [{{ rout = \"/x\" }}]"),
                "3:12",
                "did you mean `route`?",
            ),
            (
                &format!("{user}allow = [\n  {{ route = \"/api/GetDate\" }}\n]"),
                "4:13",
                "did you mean \"/api/GetData\"?",
            ),
            (
                &format!("{user}allow = [{{ route = \"/api/GetData\", forms = [] }}]"),
                "3:44",
                "`forms` is empty",
            ),
            (
                &format!("{user}allow = [{{ route = \"/api/GetData\", methods = [\"GET\"] }}]"),
                "3:46",
                "does not accept GET",
            ),
            (user, "1:8", "warning: `till` has no rights"),
            (
                &format!("{user}roles = [\"tils\"]\n[roles.tills]\nallow = \"*\""),
                "3:10",
                "\"tills\"",
            ),
            (
                &format!("{user}roles = [\"tills\"]"),
                "3:10",
                "add a section [roles.tills]",
            ),
            (
                "[roles.tills]\nmode = \"report\"",
                "1:1",
                "`allow` is missing",
            ),
            (
                "[roles.tills]\nallow = \"*\"\nmode = \"reprot\"",
                "3:8",
                "did you mean \"report\"?",
            ),
            (
                "[roles.tills]\nallow = [{ route = \"/x\" }]",
                "2:20",
                "no route has the path `/x`",
            ),
            (&format!("{user}networks = []"), "3:12", "admits nobody"),
            (
                &format!("{user}networks = [\"::1\", \"office\"]"),
                "3:20",
                "is not a network",
            ),
            (
                &format!(
                    "{user}valid_from = 2026-01-02T00:00:00Z\nvalid_until = \"2026-01-02T01:00:00+01:00\""
                ),
                "4:15",
                "`valid_until` is not after `valid_from`",
            ),
            (
                &format!("{user}hours = {{ from = \"6\", until = \"22:00\" }}"),
                "3:18",
                "time of day",
            ),
            (
                &"[users.till]\npassword = HASH".replace("HASH", &HASH.replace("t=2", "t=3")),
                "2:12",
                "strangers can find out",
            ),
        ];
        for (text, place, expected) in cases {
            let report = report_on(text);
            assert!(
                report.contains(&format!("users.toml:{place}\n")),
                "{text}\n{report}"
            );
            assert!(report.contains(expected), "{text}\n{report}");
        }
    }

    #[test]
    fn problems_come_all_at_once() {
        let report = report_on(
            "[users.a]\npassword = 1\ndisabled = 2\nroles = [\"x\"]\nnetworks = []\n\
             [users.b]\npassword = HASH\nmode = \"off\"\nhours = 3\n[roles.c]\n",
        );
        for place in ["2:12", "3:12", "4:10", "5:12", "8:8", "9:9", "10:1"] {
            assert!(
                report.contains(&format!("users.toml:{place}\n")),
                "{place}\n{report}"
            );
        }
        assert!(report.ends_with("7 errors, 1 warning"), "{report}");
    }

    #[test]
    fn no_report_shows_what_may_be_a_password() {
        for line in [
            "password = \"hunter2\"",
            "password = 'hunter2'",
            "password = hunter2",
            "password = \"hunter2",
            "password = [\"hunter2\"]",
            "password = { is = \"hunter2\" }",
            "pasword = \"hunter2\"",
            "secret = \"hunter2\"",
            "password = \"\"\"\nhunter2\"\"\"",
        ] {
            for section in ["[users.till]\n", ""] {
                let report = report_on(&format!("{section}{line}\n"));
                assert!(report.contains("error: "), "{line}\n{report}");
                assert!(!report.contains("hunter2"), "{line}\n{report}");
            }
        }
        for number in ["7357", "-7357", "7357.5", "2026-07-30"] {
            let report = report_on(&format!("[users.till]\npassword = {number}\n"));
            assert!(report.contains("not a password hash"), "{report}");
            assert!(!report.contains(number), "{report}");
        }
    }

    #[test]
    fn without_routes_any_path_may_be_allowed() {
        let text = "[users.a]\npassword = HASH\nallow = [{ route = \"/x\", forms = [\"y\"] }]\n";
        assert!(parse(Path::new("f"), &text.replace("HASH", HASH), None).is_ok());
        let text = text.replace("[\"y\"]", "[]");
        assert!(parse(Path::new("f"), &text.replace("HASH", HASH), None).is_err());
    }

    #[test]
    fn rights_are_those_of_the_user_and_of_its_roles() {
        let text = "\
            [users.a]\npassword = HASH\nallow = [{ route = \"/api/GetData\" }]\nroles = [\"r\"]\n\
            [users.b]\npassword = HASH\nroles = [\"r\"]\n\
            [users.c]\npassword = HASH\nallow = []\n\
            [roles.r]\nallow = [{ route = \"/api/SyncData\", forms = [\"set*\"] }]\n";
        let content = read(text).expect("valid");
        let post = http::Method::POST;
        let decisions = content.users.values().map(|user| {
            [0, 2].map(|route| match user.rights.decide(route, &post) {
                Decision::Allowed => "all",
                Decision::AllowedForForms(forms) if forms.permits("setCustomer") => "set*",
                Decision::AllowedForForms(_) => "other forms",
                Decision::Denied(_) => "no",
            })
        });
        assert_eq!(
            decisions.collect::<Vec<_>>(),
            [["set*", "all"], ["set*", "no"], ["no", "no"]]
        );
        assert_eq!(content.users["a"].roles, ["r"]);
    }

    #[test]
    fn the_stricter_mode_wins_unless_the_user_has_its_own() {
        let cases = [
            ("", Mode::Enforce),
            ("mode = \"report\"", Mode::Report),
            ("roles = [\"soft\"]", Mode::Report),
            ("roles = [\"soft\", \"hard\"]", Mode::Enforce),
            (
                "roles = [\"soft\", \"hard\"]\nmode = \"report\"",
                Mode::Report,
            ),
            ("roles = [\"soft\"]\nmode = \"enforce\"", Mode::Enforce),
            ("roles = []", Mode::Enforce),
        ];
        for (lines, expected) in cases {
            let text = format!(
                "[roles.soft]\nallow = []\nmode = \"report\"\n[roles.hard]\nallow = []\n\
                 [users.a]\npassword = HASH\n{lines}\n"
            );
            assert_eq!(
                read(&text).expect("valid").users["a"].mode,
                expected,
                "{lines}"
            );
        }
    }
}
