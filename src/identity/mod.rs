//! Signed identities, by which the backend can verify that a request came through the gateway, and from
//! which user. The keys are loaded at startup and on reload, and swapped as a whole.

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
use key::{KeyError, PublicKey, Sensitivity, SigningKey};
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
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// A file contains no usable key.
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
        return " (`syncgate identity-key FILE` creates one)".to_owned();
    }
    error.remedy_in_parentheses()
}

/// Signs identities, if a key is configured.
#[derive(Debug)]
pub struct Identities {
    section: IdentitySection,
    keys: Option<Managed<KeyLoader>>,
    random: SystemRandom,
}

/// Loads the keys from their files.
#[derive(Debug)]
struct KeyLoader {
    key: PathBuf,
    published: Vec<PathBuf>,
    random: SystemRandom,
}

/// The attributes of an authorized request that are signed.
#[derive(Debug, Clone, Copy)]
pub struct RequestAttributes<'a> {
    /// The user's name.
    pub user: &'a str,
    /// The route's path, as configured.
    pub route: &'a str,
    /// The form in the body, if it was read.
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

    /// The key files, if a key is configured.
    pub(crate) fn managed(&self) -> Option<&dyn ManagedFiles> {
        self.keys.as_ref().map(|keys| keys as &dyn ManagedFiles)
    }

    /// The header with the signed identity. A client's own header of that name is dropped.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        &self.section.header
    }

    /// Whether a key is configured.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.keys.is_some()
    }

    /// Signs the attributes of a request; `None` without a key.
    ///
    /// # Errors
    /// If the key needs random numbers and the operating system's generator fails.
    pub fn sign(
        &self,
        attributes: RequestAttributes<'_>,
        now: UnixSeconds,
    ) -> Result<Option<HeaderValue>, Unspecified> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        let claims = Claims {
            iss: &self.section.issuer,
            sub: attributes.user,
            aud: &self.section.audience,
            route: attributes.route,
            form: attributes.form,
            jti: attributes.request_id,
            iat: now.timestamp().as_second(),
            exp: now.plus(self.section.lifetime).timestamp().as_second(),
        };
        let jws = keys.value().signer.sign(&claims, &self.random)?;
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(jws))
            .expect("base64url and dots are visible ASCII");
        // Until it expires, anyone who has it can use it.
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Signs a text that is no identity, with the key's id and in the format of RFC 7518; `None` without a key.
    ///
    /// # Errors
    /// If the key needs random numbers and the operating system's generator fails.
    pub fn sign_text(&self, text: &[u8]) -> Result<Option<(String, Vec<u8>)>, Unspecified> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        let keys = keys.value();
        let key = keys.signer.key();
        let signature = key.sign(text, &self.random)?.as_ref().to_owned();
        Ok(Some((key.public().id().to_owned(), signature)))
    }

    /// The number of published keys.
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

/// A consistent snapshot of all keys.
#[derive(Debug)]
struct LoadedKeys {
    signer: Signer,
    set: Bytes,
    published: usize,
}

impl Loader for KeyLoader {
    type Value = LoadedKeys;
    type Error = IdentityError;
    const MESSAGES: Messages = Messages {
        files: "identity_keys",
        reloaded: "the identity keys were reloaded",
        refused: "the identity keys cannot be used; the previous ones stay in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        let key = std::iter::once(&self.key);
        key.chain(&self.published).cloned().collect()
    }

    /// The previous signing key stays published, since requests that it signed may still be in flight.
    fn load(
        &self,
        reader: &mut Reader,
        before: Option<&LoadedKeys>,
    ) -> Result<LoadedKeys, IdentityError> {
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
        Ok(LoadedKeys {
            signer: Signer::new(key),
            set: key::key_set(&published).into(),
            published: published.len(),
        })
    }

    fn count(&self, value: &LoadedKeys) -> usize {
        value.published
    }
}

/// Reads a signing key for a command.
///
/// # Errors
/// If the file is not private, or contains anything but one private key.
pub fn read_signing_key(path: &Path, random: &SystemRandom) -> Result<SigningKey, IdentityError> {
    signing_key(&mut Reader::for_command(), path, random)
}

/// Reads the public halves of all keys of a section, for a command.
///
/// # Errors
/// The first file that cannot be used.
pub fn read_public_keys(section: &IdentitySection) -> Result<Vec<PublicKey>, IdentityError> {
    let (random, mut reader) = (SystemRandom::new(), Reader::for_command());
    let mut keys = Vec::new();
    if let Some(path) = &section.key {
        keys.push(signing_key(&mut reader, path, &random)?.public().clone());
    }
    for path in &section.published {
        keys.extend(public_keys(&mut reader, path, &random)?);
    }
    Ok(keys)
}

/// Reads the public halves of the keys in a file, for a command.
///
/// # Errors
/// If the file cannot be read, or holds anything but keys.
pub fn read_public_keys_of(path: &Path) -> Result<Vec<PublicKey>, IdentityError> {
    public_keys(&mut Reader::for_command(), path, &SystemRandom::new())
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
    let (keys, sensitivity) =
        PublicKey::all_from_pem(file.bytes(), random).map_err(|cause| unusable(path, cause))?;
    match sensitivity {
        Sensitivity::Public => {}
        Sensitivity::Private => file.check_private(path, ReadBy::Gateway)?,
    }
    Ok(keys)
}

fn unusable(path: &Path, cause: KeyError) -> IdentityError {
    IdentityError::Key {
        path: path.to_owned(),
        cause,
    }
}
