//! Signed identities: the backend can check that a request came through the gateway, and whose it
//! is. The keys are read at the start and on reload, and swapped whole.

mod claims;
pub mod key;
mod settings;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use thiserror::Error;

use crate::clock::UnixSeconds;
use crate::managed_file::{Loader, Managed, ManagedFiles, Messages, Reader};
use crate::private_file::{PrivateFileError, ReadBy};

use claims::{Claims, Signer};
use key::{Holds, KeyError, PublicKey, SigningKey};
pub use settings::IdentitySection;

/// Why identities cannot be signed as configured.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file with a private key is missing or not private.
    #[error("the key file cannot be used{}", remedy(.0))]
    Private(#[from] PrivateFileError),
    /// A file with public keys cannot be read.
    #[error("the key file {path} cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// A file holds no key that can be used.
    #[error("the key file {path} cannot be used", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: KeyError,
    },
}

fn remedy(error: &PrivateFileError) -> String {
    if error.is_missing() {
        return " (`syncgate identity-key FILE` makes one)".to_owned();
    }
    error.remedy_in_parentheses()
}

/// What signs identities, if anything does.
#[derive(Debug)]
pub struct Identities {
    section: IdentitySection,
    keys: Option<Managed<KeyLoader>>,
    random: SystemRandom,
}

/// How keys are made of their files.
#[derive(Debug)]
struct KeyLoader {
    key: PathBuf,
    published: Vec<PathBuf>,
    random: SystemRandom,
}

/// What is said of a request that was authorized.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The user's name.
    pub user: &'a str,
    /// The route's path, as configured.
    pub route: &'a str,
    /// The form that the body names, if it was read.
    pub form: Option<&'a str>,
    /// The request's id.
    pub request_id: &'a str,
}

impl Identities {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn open(section: &IdentitySection) -> Result<Self, IdentityError> {
        let loader = section.key.as_ref().map(|key| KeyLoader {
            key: key.clone(),
            published: section.published.clone(),
            random: SystemRandom::new(),
        });
        Ok(Self {
            section: section.clone(),
            keys: loader.map(Managed::open).transpose()?,
            random: SystemRandom::new(),
        })
    }

    /// The files of the keys, if there are any.
    pub(crate) fn managed(&self) -> Option<&dyn ManagedFiles> {
        self.keys.as_ref().map(|keys| keys as &dyn ManagedFiles)
    }

    /// The header that carries a signed identity, and that no client's own may pass in.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        &self.section.header
    }

    /// Whether anything is signed at all.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.keys.is_some()
    }

    /// Signs what is said of a request, `None` without a key.
    ///
    /// # Errors
    /// When the key needs random numbers and the operating system gives none.
    pub fn sign(
        &self,
        facts: Facts<'_>,
        now: UnixSeconds,
    ) -> Result<Option<HeaderValue>, Unspecified> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        let claims = Claims {
            iss: &self.section.issuer,
            sub: facts.user,
            aud: &self.section.audience,
            route: facts.route,
            form: facts.form,
            jti: facts.request_id,
            iat: now.timestamp().as_second(),
            exp: now.plus(self.section.lifetime).timestamp().as_second(),
        };
        let jws = keys.value().signer.sign(&claims, &self.random)?;
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(jws))
            .expect("base64url and dots are visible ASCII");
        // It lets its holder in for as long as it holds.
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// How many keys are published.
    #[must_use]
    pub fn published(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.value().published)
    }

    /// The published key set (RFC 7517), in JSON.
    #[must_use]
    pub fn key_set(&self) -> Bytes {
        match &self.keys {
            Some(keys) => keys.value().set.clone(),
            None => key::key_set(&[]).into(),
        }
    }
}

/// One consistent state of all keys.
#[derive(Debug)]
struct Keys {
    signer: Signer,
    set: Bytes,
    published: usize,
}

impl Loader for KeyLoader {
    type Value = Keys;
    type Error = IdentityError;
    const MESSAGES: Messages = Messages {
        reloaded: "the identity keys were reloaded",
        refused: "the identity keys cannot be used; the previous ones stay in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        let key = std::iter::once(&self.key);
        key.chain(&self.published).cloned().collect()
    }

    /// The key that signed until now stays published, since what it signed is still under way.
    fn load(&self, reader: &mut Reader, before: Option<&Keys>) -> Result<Keys, IdentityError> {
        let key = signing_key(reader, &self.key, &self.random)?;
        let mut published = vec![key.public().clone()];
        for path in &self.published {
            published.extend(public_keys(reader, path, &self.random)?);
        }
        if let Some(before) = before {
            published.push(before.signer.key().public().clone());
        }
        let mut seen = HashSet::new();
        published.retain(|key| seen.insert(key.id().to_owned()));
        Ok(Keys {
            signer: Signer::new(key),
            set: key::key_set(&published).into(),
            published: published.len(),
        })
    }

    fn count(&self, value: &Keys) -> usize {
        value.published
    }
}

/// Reads a key that signs, to look at it.
///
/// # Errors
/// When the file is not private, or holds anything but one private key.
pub fn read_signing_key(path: &Path, random: &SystemRandom) -> Result<SigningKey, IdentityError> {
    signing_key(&mut Reader::for_command(), path, random)
}

fn signing_key(
    reader: &mut Reader,
    path: &Path,
    random: &SystemRandom,
) -> Result<SigningKey, IdentityError> {
    let pem = reader.read_private(path)?;
    SigningKey::from_pem(pem.as_bytes(), random).map_err(|cause| unusable(path, cause))
}

fn public_keys(
    reader: &mut Reader,
    path: &Path,
    random: &SystemRandom,
) -> Result<Vec<PublicKey>, IdentityError> {
    let file = reader.read(path).map_err(|cause| IdentityError::Read {
        path: path.to_owned(),
        cause,
    })?;
    file.check_whole(path)?;
    let (keys, holds) =
        PublicKey::all_from_pem(file.bytes(), random).map_err(|cause| unusable(path, cause))?;
    match holds {
        Holds::PublicKeys => {}
        Holds::PrivateKeys => file.check_private(path, ReadBy::Gateway)?,
    }
    Ok(keys)
}

fn unusable(path: &Path, cause: KeyError) -> IdentityError {
    IdentityError::Key {
        path: path.to_owned(),
        cause,
    }
}
