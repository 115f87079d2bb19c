//! Signed identities: the backend can check that a request came through the gateway, and whose it
//! is. The keys are read at the start and on reload, and swapped whole.

mod claims;
pub mod key;
mod settings;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::private_file::{self, PrivateFileError};

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
    let remedy = error.remedy();
    remedy.map_or(String::new(), |remedy| format!(" ({remedy})"))
}

/// What signs identities, if anything does.
#[derive(Debug)]
pub struct Identities {
    section: IdentitySection,
    keys: Option<ArcSwap<Keys>>,
    /// Held over a whole reload, so that an older file never replaces a newer one.
    reloading: Mutex<()>,
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
        let random = SystemRandom::new();
        let keys = match &section.key {
            Some(path) => Some(ArcSwap::from_pointee(Keys::read(
                path, section, None, &random,
            )?)),
            None => None,
        };
        Ok(Self {
            section: section.clone(),
            keys,
            reloading: Mutex::new(()),
            random,
        })
    }

    /// Reads the keys again, and returns how many are published. The key that signed until now
    /// stays published, since what it signed is still under way.
    ///
    /// # Errors
    /// The first file that cannot be used; everything stays as it is then.
    pub fn reload(&self) -> Result<usize, IdentityError> {
        let (Some(path), Some(keys)) = (&self.section.key, &self.keys) else {
            return Ok(0);
        };
        let _turn = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = keys.load_full();
        let read = Keys::read(path, &self.section, Some(&before), &self.random)?;
        let count = read.published;
        keys.store(Arc::new(read));
        Ok(count)
    }

    /// The files behind [`Identities::reload`].
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.section.key {
            Some(key) => [key]
                .into_iter()
                .chain(&self.section.published)
                .cloned()
                .collect(),
            None => Vec::new(),
        }
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
        let jws = keys.load().signer.sign(&claims, &self.random)?;
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(jws))
            .expect("base64url and dots are visible ASCII");
        // It lets its holder in for as long as it holds.
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// How many keys are published.
    #[must_use]
    pub fn published(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.load().published)
    }

    /// The published key set (RFC 7517), in JSON.
    #[must_use]
    pub fn key_set(&self) -> Bytes {
        match &self.keys {
            Some(keys) => keys.load().set.clone(),
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

impl Keys {
    fn read(
        path: &Path,
        section: &IdentitySection,
        before: Option<&Self>,
        random: &SystemRandom,
    ) -> Result<Self, IdentityError> {
        let pem = Zeroizing::new(private_file::read(path)?);
        let key = signing_key(path, &pem, random)?;
        let mut published = vec![key.public().clone()];
        for path in &section.published {
            published.extend(read_public_keys(path, random)?);
        }
        if let Some(before) = before {
            published.push(before.signer.key().public().clone());
        }
        let mut seen = HashSet::new();
        published.retain(|key| seen.insert(key.id().to_owned()));
        Ok(Self {
            signer: Signer::new(key),
            set: key::key_set(&published).into(),
            published: published.len(),
        })
    }
}

/// Reads a key that signs, to look at it.
///
/// # Errors
/// When the file is not private, or holds anything but one private key.
pub fn read_signing_key(path: &Path, random: &SystemRandom) -> Result<SigningKey, IdentityError> {
    let pem = Zeroizing::new(private_file::look(path)?);
    signing_key(path, &pem, random)
}

fn signing_key(path: &Path, pem: &str, random: &SystemRandom) -> Result<SigningKey, IdentityError> {
    SigningKey::from_pem(pem.as_bytes(), random).map_err(|cause| unusable(path, cause))
}

fn read_public_keys(path: &Path, random: &SystemRandom) -> Result<Vec<PublicKey>, IdentityError> {
    let pem = fs::read(path).map_err(|cause| IdentityError::Read {
        path: path.to_owned(),
        cause,
    })?;
    let pem = Zeroizing::new(pem);
    let (keys, holds) =
        PublicKey::all_from_pem(&pem, random).map_err(|cause| unusable(path, cause))?;
    match holds {
        Holds::PublicKeys => {}
        Holds::PrivateKeys => drop(Zeroizing::new(private_file::read(path)?)),
    }
    Ok(keys)
}

fn unusable(path: &Path, cause: KeyError) -> IdentityError {
    IdentityError::Key {
        path: path.to_owned(),
        cause,
    }
}
