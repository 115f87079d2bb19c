//! `syncgate hash`.

use clap::Args;

use super::failure::Failure;
use super::password::PasswordSource;
use super::print;
use crate::password::hash_password;

/// Make a password hash, to put into an account file by hand
///
/// Asks for the password at the terminal, twice, unless told otherwise. `syncgate user add` and
/// `syncgate user passwd` write the file themselves.
#[derive(Debug, Args)]
pub(super) struct HashCommand {
    #[command(flatten)]
    source: PasswordSource,
}

impl HashCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let new = self.source.obtain(None).map_err(Failure::usage)?;
        let hash = hash_password(&new.password).map_err(Failure::other)?;
        match new.generated {
            Some(text) => print(format!("password: {}\nhash: {hash}\n", *text).as_bytes()),
            None => print(format!("{hash}\n").as_bytes()),
        }
    }
}
