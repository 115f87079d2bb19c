//! `syncgate identity-key`.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ring::rand::SystemRandom;
use thiserror::Error;

use super::failure::Failure;
use super::print;
use crate::identity::key::{Algorithm, SigningKey, key_set};
use crate::identity::read_signing_key;
use crate::new_file::write_new;

/// Generate a key that signs identities, or show the public half of one
///
/// Writes a new private key to FILE, which must not exist yet and is readable by its owner only, and
/// prints the public half. To use the key, set identity.key. To rotate it without an outage: publish the
/// public half of the new key first (identity.published), then replace the old file with the new one; the
/// gateway reloads it automatically and keeps the old key published until the next change.
#[derive(Debug, Args)]
pub(super) struct IdentityKeyCommand {
    /// The file of the private key
    file: PathBuf,
    /// The signature algorithm
    #[arg(long, value_enum, default_value_t = Kind::Es256, conflicts_with_all = ["public", "jwks"])]
    algorithm: Kind,
    /// Generate nothing; print the public half of the key in FILE, in PEM
    #[arg(long)]
    public: bool,
    /// Generate nothing; print the public half of the key in FILE as a JSON Web Key Set
    #[arg(long, conflicts_with = "public")]
    jwks: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// ECDSA on P-256: every platform can verify it
    Es256,
    /// Ed25519: newer; .NET has no built-in support
    Ed25519,
}

#[derive(Debug, Error)]
#[error("cannot write a key to {path}{hint}", path = path.display())]
struct WriteError {
    path: PathBuf,
    hint: &'static str,
    source: io::Error,
}

impl IdentityKeyCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let random = SystemRandom::new();
        if !self.public && !self.jwks {
            self.make(&random)?;
        }
        let key = read_signing_key(&self.file, &random).map_err(Failure::usage)?;
        let public = key.public();
        if self.jwks {
            let mut set = key_set(std::slice::from_ref(public));
            set.push(b'\n');
            return print(&set);
        }
        print(public.to_pem().as_bytes())
    }

    fn make(&self, random: &SystemRandom) -> Result<(), Failure> {
        let algorithm = match self.algorithm {
            Kind::Es256 => Algorithm::Es256,
            Kind::Ed25519 => Algorithm::Ed25519,
        };
        let pem = SigningKey::generate(algorithm, random)
            .map_err(|_| Failure::other("the system's random number generator failed"))?;
        write_new(&self.file, 0o600, &pem).map_err(|source| {
            let path = self.file.clone();
            if source.kind() == io::ErrorKind::AlreadyExists {
                let hint = " (a key is never overwritten: name another file)";
                return Failure::usage(WriteError { path, hint, source });
            }
            let hint = "";
            Failure::other(WriteError { path, hint, source })
        })
    }
}
