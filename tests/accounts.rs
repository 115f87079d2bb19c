//! The account file through its front door: reading, reloading, changing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use proptest::prelude::*;
use syncgate::accounts::{
    AccountFile, Accounts, ChangeError, ChangeOutcome, EditError, Grant, InitialRights,
};
use syncgate::policy::rights::{Decision, Mode};
use syncgate::route::RouteSection;
use tempfile::TempDir;

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ\
                    $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
const OTHER_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQx\
                          $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

/// A directory with an account file of its own.
struct Place(TempDir);

impl Place {
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn with(text: &str) -> Self {
        let place = Self::empty();
        place.write(text);
        place
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("users.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text.replace("HASH", HASH)).expect("written");
        self.set_mode(0o600);
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).expect("readable")
    }

    fn open(&self) -> Accounts {
        Accounts::open(&self.path(), RouteSection::defaults()).expect("a usable file")
    }

    fn change<T>(&self, change: impl FnOnce(AccountFile<'_>) -> T) -> T {
        let routes = RouteSection::defaults();
        change(AccountFile::new(&self.path(), Some(&routes)))
    }
}

fn grant(route: &str, forms: &[&str]) -> Grant {
    let forms = forms.iter().map(|&form| form.to_owned()).collect();
    Grant {
        route: route.to_owned(),
        methods: Vec::new(),
        forms,
    }
}

#[test]
fn accounts_are_found_by_their_exact_name_and_by_id() {
    let place = Place::with("[users.till]\npassword = \"HASH\"\nallow = \"*\"\n");
    let accounts = place.open();
    let till = accounts.find("till").expect("there");
    assert_eq!(&**till.name(), "till");
    assert!(till.password().is_some() && !till.is_disabled());
    for name in ["Till", "till ", "", "til"] {
        assert!(accounts.find(name).is_none(), "{name}");
    }
    let by_id = accounts.by_id(till.id()).expect("there");
    assert!(Arc::ptr_eq(&till, &by_id));
}

#[test]
fn a_name_keeps_its_id_over_reloads_also_when_it_was_gone() {
    let place = Place::with("[users.m]\npassword = \"HASH\"\n");
    let accounts = place.open();
    let before = accounts.find("m").expect("there");
    place.write("[users.a]\npassword = \"HASH\"\n[users.z]\npassword = \"HASH\"\n");
    assert_eq!(accounts.reload().expect("usable"), 2);
    assert!(accounts.find("m").is_none() && accounts.by_id(before.id()).is_none());
    assert_ne!(accounts.find("a").expect("there").id(), before.id());
    place.write(&format!("[users.m]\npassword = \"{OTHER_HASH}\"\n"));
    assert_eq!(accounts.reload().expect("usable"), 1);
    let after = accounts.find("m").expect("there");
    assert_eq!(after.id(), before.id());
    assert_ne!(
        after.password_mark(),
        before.password_mark(),
        "whoever had it before is out"
    );
}

#[test]
fn a_name_has_an_id_before_there_is_an_account_of_it() {
    let place = Place::with("[users.till]\npassword = \"HASH\"\n");
    let accounts = place.open();
    let (till, shop) = (accounts.id_of("till"), accounts.id_of("shop"));
    assert_eq!(
        accounts.find("till").map(|account| account.id()),
        Some(till)
    );
    assert_ne!(shop, till);
    assert_eq!(accounts.id_of("shop"), shop);
    assert_eq!(accounts.name_of(shop).as_deref(), Some("shop"));
    assert!(accounts.by_id(shop).is_none());
    place.write("[users.shop]\npassword = \"HASH\"\n");
    accounts.reload().expect("in order");
    assert_eq!(
        accounts
            .by_id(shop)
            .map(|account| account.name().to_string())
            .as_deref(),
        Some("shop")
    );
    assert_eq!(accounts.name_of(till).as_deref(), Some("till"));
}

#[test]
fn a_disabled_account_has_no_password_to_verify() {
    let place = Place::with("[users.till]\npassword = \"HASH\"\ndisabled = true\n");
    let till = place.open().find("till").expect("there");
    assert!(till.is_disabled() && till.password().is_none());
}

#[test]
fn a_bad_file_leaves_the_last_good_state_in_force() {
    let place = Place::with("[users.till]\npassword = \"HASH\"\n");
    let accounts = place.open();
    let problems = [
        "[users.till]\npassword = 5\n",
        "not toml",
        "[users.till]\npassword = \"HASH\"\nroles = [\"none\"]\n",
    ];
    for text in problems {
        place.write(text);
        let report = accounts.reload().expect_err(text).to_string();
        assert!(report.contains("users.toml:"), "{report}");
        assert!(accounts.find("till").is_some(), "{text}");
    }
    place.write("");
    place.set_mode(0o644);
    let report = accounts.reload().expect_err("not private").to_string();
    assert!(
        report.contains("(mode 0644)") && report.contains("run: chmod 600 '"),
        "{report}"
    );
    assert!(accounts.find("till").is_some());
    fs::remove_file(place.path()).expect("removed");
    let report = accounts.reload().expect_err("missing").to_string();
    assert!(
        report.contains("`syncgate user add NAME` creates it"),
        "{report}"
    );
    assert!(accounts.find("till").is_some());
}

#[test]
fn rights_change_with_the_file_and_obey_on_the_next_look() {
    let place = Place::with("[users.till]\npassword = \"HASH\"\nallow = \"*\"\n");
    let accounts = place.open();
    let id = accounts.find("till").expect("there").id();
    let denied = |accounts: &Accounts| {
        let till = accounts.by_id(id).expect("there");
        matches!(till.rights().decide(0, &Method::POST), Decision::Denied(_))
    };
    assert!(!denied(&accounts));
    place
        .change(|file| file.deny_everything("till"))
        .expect("changed");
    accounts.reload().expect("usable");
    assert!(denied(&accounts));
    place
        .change(|file| file.allow("till", &grant("/api/SyncData", &["set*"])))
        .expect("changed");
    accounts.reload().expect("usable");
    assert!(!denied(&accounts));
    assert_eq!(accounts.by_id(id).expect("there").mode(), Mode::Enforce);
}

#[test]
fn an_account_goes_through_its_whole_life_and_comments_stay() {
    let place = Place::empty();
    let added = place.change(|file| file.add("till", HASH, &InitialRights::Everything));
    assert!(added.is_ok());
    let mode = fs::metadata(place.path())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    let header = place.text();
    assert!(
        header.starts_with("# The accounts of the gateway."),
        "{header}"
    );

    place.write(
        &place
            .text()
            .replace("[users.till]", "# By the door.\n[users.till] # ours"),
    );
    let outcomes = place.change(|file| {
        [
            file.disable("till"),
            file.disable("till"),
            file.enable("till"),
            file.enable("till"),
            file.set_password("till", OTHER_HASH),
            file.allow_everything("till"),
        ]
        .map(|outcome| outcome.expect("done"))
    });
    use ChangeOutcome::{Changed, Unchanged};
    assert_eq!(
        outcomes,
        [Changed, Unchanged, Changed, Unchanged, Changed, Unchanged]
    );
    let text = place.text();
    assert!(
        text.contains("# By the door.\n[users.till] # ours\n"),
        "{text}"
    );
    assert!(text.contains(OTHER_HASH) && !text.contains(HASH), "{text}");
    assert!(!place.open().find("till").expect("there").is_disabled());

    place.change(|file| file.remove("till")).expect("removed");
    assert!(place.open().table().is_empty());
    assert!(place.text().starts_with("# The accounts of the gateway."));
}

#[test]
fn a_fresh_enable_of_an_account_that_never_was_disabled_changes_nothing() {
    let place = Place::with("[users.till]\npassword = \"HASH\"\n");
    let outcome = place
        .change(|file| file.enable("till"))
        .expect("nothing to do");
    assert_eq!(outcome, ChangeOutcome::Unchanged);
}

#[test]
fn roles_are_added_and_removed_and_must_exist() {
    let roles = "[roles.tills]\nallow = [{ route = \"/api/SyncData\" }]\n";
    let place = Place::with(roles);
    let tills = InitialRights::Roles(vec!["tills".to_owned()]);
    place
        .change(|file| file.add("till", HASH, &tills))
        .expect("added");
    assert_eq!(place.open().find("till").expect("there").roles(), ["tills"]);
    let error = place
        .change(|file| file.add_role("till", "shops"))
        .expect_err("no such role");
    assert!(matches!(error, ChangeError::InvalidAfter(_)), "{error}");
    assert!(
        error.to_string().contains("there is no role `shops`"),
        "{error}"
    );
    place
        .change(|file| file.remove_role("till", "tills"))
        .expect("removed");
    assert!(place.open().find("till").expect("there").roles().is_empty());
}

#[test]
fn what_cannot_be_changed_changes_nothing() {
    let text = "[users.till]\npassword = \"HASH\"\nallow = []\n";
    let place = Place::with(text);
    let before = place.text();
    let errors = place.change(|file| {
        [
            file.add("till", HASH, &InitialRights::Nothing),
            file.add("TILL", HASH, &InitialRights::Nothing),
            file.add("a b", HASH, &InitialRights::Nothing),
            file.add("new", "secret", &InitialRights::Nothing),
            file.disable("till-2"),
            file.allow("till", &grant("/api/getdat", &[])),
            file.allow("till", &grant("/api/GetData", &["a*b"])),
            file.deny("till", &grant("/api/GetData", &[])),
        ]
        .map(|outcome| outcome.expect_err("refused").to_string())
    });
    let expected = [
        "there is a user `till` already",
        "differ only in case",
        "a user name cannot contain ' '",
        "not a password hash",
        "there is no user `till-2`; did you mean `till`?",
        "did you mean \"/api/GetData\"?",
        "`a*b` is neither a name nor a prefix",
        "no such right of its own on /api/GetData",
    ];
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(place.text(), before);
}

#[test]
fn a_file_that_is_wrong_already_is_not_touched() {
    let place = Place::with("[users.till]\npassword = \"HASH\"\nalow = \"*\"\n");
    let before = place.text();
    let error = place
        .change(|file| file.disable("till"))
        .expect_err("wrong already");
    assert!(matches!(error, ChangeError::InvalidBefore(_)), "{error}");
    assert!(
        error.to_string().contains("did you mean `allow`?"),
        "{error}"
    );
    assert_eq!(place.text(), before);
    place.set_mode(0o640);
    let error = place
        .change(|file| file.disable("till"))
        .expect_err("not private");
    assert!(error.to_string().contains("run: chmod 600"), "{error}");
    fs::remove_file(place.path()).expect("removed");
    let error = place
        .change(|file| file.disable("till"))
        .expect_err("missing");
    assert!(
        error
            .to_string()
            .contains("`syncgate user add NAME` creates it"),
        "{error}"
    );
    assert!(!place.path().exists());
}

#[test]
fn every_layout_can_be_edited_or_is_refused_whole() {
    let layouts = [
        "[users]\ntill = { password = \"HASH\", allow = \"*\" }\n",
        "[users]\ntill.password = \"HASH\"\n",
        "users.till.password = \"HASH\"\n",
        "users = { till = { password = \"HASH\" } }\n",
        "[users.till]\npassword = 'HASH'\n[[users.till.allow]]\nroute = \"/api/GetData\"\n",
        "[users.\"till\"]\r\npassword = \"HASH\" # crlf\r\n",
    ];
    for layout in layouts {
        let place = Place::with(layout);
        place.change(|file| file.disable("till")).expect(layout);
        place
            .change(|file| file.set_password("till", OTHER_HASH))
            .expect(layout);
        place
            .change(|file| file.deny_everything("till"))
            .expect(layout);
        let till = place.open().find("till").expect("there");
        assert!(till.is_disabled(), "{layout}");
        assert!(place.text().contains(OTHER_HASH), "{layout}");
        let before = place.text();
        match place.change(|file| file.add("new", HASH, &InitialRights::Everything)) {
            Ok(_) => assert!(place.open().find("new").is_some(), "{layout}"),
            Err(ChangeError::Edit(EditError::Layout) | ChangeError::InvalidAfter(_)) => {
                assert_eq!(place.text(), before, "{layout}");
            }
            Err(error) => panic!("{layout}: {error}"),
        }
        place.change(|file| file.remove("till")).expect(layout);
        assert!(place.open().find("till").is_none(), "{layout}");
    }
}

#[test]
fn thousands_of_accounts_fit_the_file() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in 0..5_000 {
        write!(
            text,
            "[users.till-{number}]\npassword = \"HASH\"\nallow = \"*\"\n"
        )
        .expect("text");
    }
    let place = Place::with(&text);
    let accounts = place.open();
    assert_eq!(accounts.table().len(), 5_000);
    assert!(accounts.find("till-4999").is_some());
}

/// A change that the property below makes, by number; what it may not do is refused.
fn nth_change(file: AccountFile<'_>, number: u8, name: &str) -> Result<ChangeOutcome, ChangeError> {
    match number {
        0 => file.disable(name),
        1 => file.enable(name),
        2 => file.set_password(name, OTHER_HASH),
        3 => file.allow(name, &grant("/api/GetData", &["get*", "x"])),
        4 => file.allow(name, &grant("/api/SyncData", &[])),
        5 => file.deny(name, &grant("/api/GetData", &["x"])),
        6 => file.deny(name, &grant("/api/SyncData", &[])),
        7 => file.allow_everything(name),
        8 => file.deny_everything(name),
        9 => file.add_role(name, "tills"),
        10 => file.remove_role(name, "tills"),
        11 => file.add(name, HASH, &InitialRights::Nothing),
        12 => file.remove(name),
        _ => file.add_role(name, "no such role"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_changed_the_rest_stays_and_the_file_is_usable(
        changes in proptest::collection::vec((0..14_u8, prop::sample::select(&["a", "b", "c"])), 0..12),
    ) {
        let rest = [
            "# Heading.\n\n",
            "# Nobody touches this.\n[users.fixed] # ours\npassword = 'HASH' # old\nallow = [\n  \
             # first\n  { route = \"/api/GetData\" }, # one\n]\n",
            "[roles.tills] # shared\nallow = [ { route='/api/GetData' } ]\n",
            "# End.\n",
        ]
        .map(|part| part.replace("HASH", HASH));
        let user = format!("\n# Of a.\n[users.a]\npassword = \"{HASH}\"\nallow = []\n\n");
        let place = Place::with(&[&rest[0], &rest[1], &user, &rest[2], &rest[3]].map(|p| &**p).concat());
        for (number, name) in changes {
            let before = place.text();
            let outcome = place.change(|file| nth_change(file, number, name));
            let after = place.text();
            prop_assert_eq!(after != before, matches!(outcome, Ok(ChangeOutcome::Changed)));
            prop_assert!(Accounts::open(&place.path(), RouteSection::defaults()).is_ok(), "{}", after);
            for part in &rest {
                prop_assert!(after.contains(part), "{} {} lost\n{}\nof\n{}", number, name, part, after);
            }
            let there = place.open().find(name).is_some();
            match number {
                11 => prop_assert!(there),
                12 => prop_assert!(!there),
                _ => {}
            }
        }
    }
}
