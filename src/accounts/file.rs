//! The account file `users.toml`: reading and judging it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Deserialize;
use thiserror::Error;

use crate::login::hashing::PasswordHash;

/// What is wrong with an account file.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Problems(String);

/// One `[users.NAME]` of the file, validated.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// The stored hash as it is written.
    pub(super) phc: String,
    pub(super) password: PasswordHash,
    pub(super) disabled: bool,
}

/// Reads the account file.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, Problems> {
    let text = read_private(path)?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Entry>, Problems> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Document {
        #[serde(default)]
        users: BTreeMap<String, User>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct User {
        password: String,
        #[serde(default)]
        disabled: bool,
        #[serde(default)]
        #[expect(dead_code, reason = "rights follow with the rights model")]
        allow: Option<toml::Value>,
    }
    let document: Document =
        toml::from_str(text).map_err(|e| Problems(format!("{}: {e}", path.display())))?;
    let mut entries = Vec::new();
    for (name, user) in document.users {
        let password = PasswordHash::parse(&user.password)
            .map_err(|e| Problems(format!("{}: user {name}: {e}", path.display())))?;
        entries.push(Entry {
            name,
            phc: user.password,
            password,
            disabled: user.disabled,
        });
    }
    Ok(entries)
}

/// Reads a file that only its owner can read or write.
fn read_private(path: &Path) -> Result<String, Problems> {
    let failed = |error| Problems(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    // Of the open file, not of the name, so that both looks are at the same one.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Problems(format!(
            "{path}: others than the owner have access (mode {mode:04o}); run: chmod 600 {path}",
            path = path.display()
        )));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
