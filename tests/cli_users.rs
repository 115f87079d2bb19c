//! `syncgate user` and `syncgate hash`, run as programs.

use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use syncgate::login::hashing::{Caller, HashingPool};
use syncgate::password::Password;
use syncgate::password::PasswordHash;
use tempfile::TempDir;

/// A directory with a configuration, where the program is run.
struct Place(TempDir);

/// What a run of the program came to.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        fs::write(place.path().join("config.toml"), "").expect("written");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn users(&self) -> String {
        fs::read_to_string(self.path().join("users.toml")).unwrap_or_default()
    }

    fn write_users(&self, text: &str) {
        let path = self.path().join("users.toml");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Run {
        run_in(self.path(), arguments, input)
    }
}

fn run_in(directory: &Path, arguments: &[&str], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("SYNCGATE_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // A program that reads no input may have ended by now.
    let _ = child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes());
    let output = child.wait_with_output().expect("ended");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Run {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Run {
    /// Checks that all went well, and gives what was said to the person.
    fn said(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        &self.stderr
    }

    /// Checks that the operator was told what to set right.
    fn refused(&self) -> &str {
        assert_eq!(self.code, Some(64), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        &self.stderr
    }
}

async fn verifies(stored: &str, password: &str) -> bool {
    let pool = HashingPool::start(NonZeroUsize::MIN, NonZeroUsize::MIN).expect("threads");
    let hash = Arc::new(PasswordHash::parse(stored).expect("a usable hash"));
    pool.verify(
        Password::new(password.to_owned()),
        Some(hash),
        Caller::Unknown,
    )
    .await
        == Ok(true)
}

fn stored_hash(users: &str) -> &str {
    let start = users.rfind("\"$argon2id$v").expect("a hash") + 1;
    let end = users[start..].find('"').expect("its end");
    &users[start..start + end]
}

#[tokio::test]
async fn a_generated_password_is_printed_once_and_signs_in() {
    let place = Place::new();
    let run = place.run(&["user", "add", "till", "--generate"]);
    let said = run.said();
    assert!(
        said.contains("Added the user `till` to users.toml."),
        "{said}"
    );
    let password = run.stdout.strip_suffix('\n').expect("one line");
    assert_eq!(password.len(), 29);
    assert!(!said.contains(password) && !place.users().contains(password));
    assert!(verifies(stored_hash(&place.users()), password).await);
    let mode = fs::metadata(place.path().join("users.toml"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[tokio::test]
async fn a_password_from_standard_input_is_one_line() {
    let place = Place::new();
    let add = ["user", "add", "till", "--password-stdin"];
    let run = place.run_with(&add, "correct horse\n");
    run.said();
    assert_eq!(run.stdout, "");
    assert!(verifies(stored_hash(&place.users()), "correct horse").await);
    let passwd = ["user", "passwd", "till", "--password-stdin"];
    let run = place.run_with(&passwd, "battery staple");
    assert!(
        run.said()
            .contains("No gateway could be reached to revoke its tokens")
    );
    assert!(verifies(stored_hash(&place.users()), "battery staple").await);
    let before = place.users();
    for (input, expected) in [
        ("short\n", "at least 8 characters"),
        ("", "at least 8 characters"),
        ("one line\nand another\n", "send one line"),
        (&"a".repeat(2000), "1024 bytes"),
    ] {
        let run = place.run_with(&passwd, input);
        assert!(run.refused().contains(expected), "{}", run.stderr);
    }
    assert_eq!(place.users(), before);
}

#[test]
fn a_password_is_never_an_argument() {
    let place = Place::new();
    for arguments in [
        &["user", "add", "till", "--password", "correct horse"][..],
        &["user", "add", "till", "correct horse"],
        &["user", "passwd", "till", "correct horse"],
        &["hash", "correct horse"],
        &["hash", "--password=correct horse"],
        &["user", "add", "till", "--generate", "--password-stdin"],
    ] {
        place.run(arguments).refused();
    }
    assert!(!place.path().join("users.toml").exists());
}

#[test]
fn a_user_goes_through_its_whole_life() {
    let place = Place::new();
    place.write_users("# Ours.\n\n[roles.tills]\nallow = [{ route = \"/api/GetData\" }]\n# End.\n");
    place
        .run(&["user", "add", "till", "--generate", "--role", "tills"])
        .said();
    place
        .run(&["user", "add", "shop", "--generate", "--no-rights"])
        .said();
    for (arguments, expected) in [
        (
            &["user", "disable", "till"][..],
            "it cannot sign in. No gateway could be reached",
        ),
        (
            &["user", "disable", "till"],
            "is disabled already. Nothing was changed.",
        ),
        (&["user", "enable", "till"], "its tokens stay ended"),
        (
            &["user", "enable", "till"],
            "is enabled already. Nothing was changed.",
        ),
        (
            &["user", "allow", "shop", "--all"],
            "may reach everything that is routed",
        ),
        (&["user", "allow", "shop", "--all"], "Nothing was changed."),
        (&["user", "deny", "shop", "--all"], "Took from `shop`"),
        (
            &[
                "user",
                "allow",
                "shop",
                "/api/SyncData",
                "--methods",
                "post",
                "--forms",
                "set*",
            ],
            "`shop` may reach POST /api/SyncData for the forms set* from the next request on.",
        ),
        (
            &["user", "deny", "till", "--all"],
            "What its roles allow stays allowed: tills.",
        ),
    ] {
        let run = place.run(arguments);
        assert!(
            run.said().contains(expected),
            "{arguments:?}: {}",
            run.stderr
        );
        assert_eq!(run.stdout, "");
    }
    let listed = place.run(&["user", "list"]);
    listed.said();
    let rows: Vec<_> = listed.stdout.lines().collect();
    assert_eq!(rows[0].split_whitespace().next(), Some("USER"));
    assert!(
        rows[1].starts_with("shop  enabled  /api/SyncData POST (set*)"),
        "{}",
        rows[1]
    );
    assert!(rows[2].starts_with("till  enabled  nothing"), "{}", rows[2]);
    assert!(rows[2].ends_with("tills"), "{}", rows[2]);
    place.run(&["user", "remove", "till"]).said();
    place.run(&["user", "remove", "shop"]).said();
    assert_eq!(
        place.users(),
        "# Ours.\n\n[roles.tills]\nallow = [{ route = \"/api/GetData\" }]\n# End.\n"
    );
    assert!(
        place
            .run(&["user", "list"])
            .said()
            .contains("No users in users.toml")
    );
}

#[test]
fn the_list_can_be_read_by_programs_and_shows_no_hash() {
    let place = Place::new();
    place.run(&["user", "add", "till", "--generate"]).said();
    let limits = "networks = [\"10.0.0.0/8\"]\nvalid_until = 2027-01-01T00:00:00Z\n\
                  hours = { from = \"06:00\", until = \"22:00\", offset = \"+01:00\" }\n";
    place.write_users(&(place.users() + limits));
    let run = place.run(&["user", "list", "--json"]);
    run.said();
    assert!(!run.stdout.contains("argon2"));
    let list: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    let expected = serde_json::json!([{
        "name": "till",
        "disabled": false,
        "allow": "*",
        "roles": [],
        "mode": "enforce",
        "limits": {
            "networks": ["10.0.0.0/8"],
            "valid_from": null,
            "valid_until": "2027-01-01T00:00:00Z",
            "hours": { "from": "06:00", "until": "22:00", "offset": "+01:00" },
        },
    }]);
    assert_eq!(list, expected);
    let run = place.run(&["user", "list"]);
    let limits = "10.0.0.0/8, until 2027-01-01T00:00:00Z, 06:00-22:00 UTC+01:00";
    assert!(run.stdout.contains(limits), "{}", run.stdout);
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_changed() {
    let place = Place::new();
    place
        .run(&["user", "add", "till", "--generate", "--no-rights"])
        .said();
    let before = place.users();
    for (arguments, expected) in [
        (
            &["user", "add", "till", "--generate"][..],
            "there is a user `till` already",
        ),
        (
            &["user", "add", "a b", "--generate"],
            "a user name cannot contain ' '",
        ),
        (
            &["user", "add", "Till", "--generate"],
            "differ only in case",
        ),
        (
            &["user", "add", "new", "--generate", "--role", "none"],
            "there is no role `none`",
        ),
        (
            &["user", "passwd", "tull", "--generate"],
            "did you mean `till`?",
        ),
        (&["user", "disable", "tull"], "did you mean `till`?"),
        (&["user", "remove", "nobody"], "there is no user `nobody`"),
        (&["user", "allow", "till"], "required"),
        (&["user", "allow", "till", "--forms", "x"], "required"),
        (
            &["user", "allow", "till", "/api/GetDate"],
            "did you mean \"/api/GetData\"?",
        ),
        (
            &["user", "deny", "till", "/api/GetData"],
            "no such right of its own on /api/GetData",
        ),
        (
            &["user", "deny", "till", "--role", "none"],
            "does not have the role `none`",
        ),
    ] {
        let run = place.run(arguments);
        assert!(
            run.refused().contains(expected),
            "{arguments:?}: {}",
            run.stderr
        );
    }
    assert_eq!(place.users(), before);
}

#[test]
fn a_wrong_account_file_is_shown_without_its_secrets() {
    let place = Place::new();
    let text = "[users.till]\npassword = \"hunter2hunter2\"\nalow = \"*\"\n";
    place.write_users(text);
    for arguments in [
        &["user", "list"][..],
        &["user", "add", "new", "--generate"],
        &["user", "passwd", "till", "--generate"],
        &["user", "disable", "till"],
    ] {
        let run = place.run(arguments);
        let said = run.refused();
        assert!(
            said.contains("users.toml:2:12") && said.contains("users.toml:3:1"),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(place.users(), text);
}

#[test]
fn the_account_file_is_the_one_of_the_configuration_or_the_one_named() {
    let place = Place::new();
    let folder = place.path().join("etc");
    fs::create_dir(&folder).expect("made");
    fs::write(
        folder.join("other.toml"),
        "[accounts]\nfile = \"people.toml\"\n",
    )
    .expect("written");
    let config = folder.join("other.toml");
    let config = config.to_str().expect("UTF-8");
    let elsewhere = tempfile::tempdir().expect("a directory");
    run_in(
        elsewhere.path(),
        &["user", "add", "a", "--generate", "--config", config],
        "",
    )
    .said();
    assert!(folder.join("people.toml").exists());

    run_in(
        elsewhere.path(),
        &["user", "add", "b", "--generate", "--file", "mine.toml"],
        "",
    )
    .said();
    let listed = run_in(
        elsewhere.path(),
        &["user", "list", "--file", "mine.toml"],
        "",
    );
    listed.said();
    assert!(
        listed.stdout.contains("\nb ") && !listed.stdout.contains("\na "),
        "{}",
        listed.stdout
    );

    let run = run_in(elsewhere.path(), &["user", "list"], "");
    assert!(run.refused().contains("--config FILE"), "{}", run.stderr);
}

#[tokio::test]
async fn hash_makes_hashes_for_the_account_file() {
    let place = Place::new();
    let run = place.run_with(&["hash", "--password-stdin"], "correct horse\n");
    run.said();
    let hash = run.stdout.strip_suffix('\n').expect("one line");
    assert!(verifies(hash, "correct horse").await);
    let run = place.run(&["hash", "--generate"]);
    run.said();
    let (password, hash) = run.stdout.split_once('\n').expect("two lines");
    let password = password.strip_prefix("password: ").expect("the password");
    let hash = hash.trim_end().strip_prefix("hash: ").expect("the hash");
    assert!(verifies(hash, password).await);
}
