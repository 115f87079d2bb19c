//! The secrets that authenticate requests to the admin interface over TCP: the backend's, for introspection, and
//! the scraper's, for metrics. Read at the start and on reload; only a MAC of each is kept, under a key of this
//! process.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use ring::rand::SystemRandom;
use thiserror::Error;

use super::settings::AdminSection;
use crate::managed_file::{Loader, Managed, ManagedFiles, Messages, Reader};
use crate::private_file::PrivateFileError;

/// Why the secret cannot be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file is missing or not private.
    #[error("a secret of the admin interface cannot be read{}", .0.remedy_in_parentheses())]
    File(#[from] PrivateFileError),
    /// The content is too short, or cannot be sent as a bearer token.
    #[error(
        "{path} must hold one line of at least {MIN_LENGTH} characters: letters, digits and -._~+/, as in a bearer \
         token ({setting}); run: (umask 077; openssl rand -hex 32 > '{path}')",
        path = .path.display()
    )]
    NotASecret {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
    },
    /// The random number generator failed.
    #[error("the operating system's random number generator failed")]
    NoRandom,
}

/// All secrets of the admin interface.
#[derive(Debug)]
pub(crate) struct AdminSecrets {
    pub(super) introspection: Secret<Introspection>,
    pub(super) metrics: Secret<Scraping>,
}

impl AdminSecrets {
    /// Reads the files that are configured.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(crate) fn open(section: &AdminSection, random: &SystemRandom) -> Result<Self, SecretError> {
        Ok(Self {
            introspection: Secret::open(section.introspection_secret_file.as_deref(), random)?,
            metrics: Secret::open(section.metrics_secret_file.as_deref(), random)?,
        })
    }

    /// The files that are configured.
    pub(crate) fn managed(&self) -> impl Iterator<Item = &dyn ManagedFiles> {
        let (introspection, metrics) = (&self.introspection.0, &self.metrics.0);
        let introspection = introspection.as_ref().map(|it| it as &dyn ManagedFiles);
        let metrics = metrics.as_ref().map(|it| it as &dyn ManagedFiles);
        introspection.into_iter().chain(metrics)
    }
}

/// What a secret is for.
pub(super) trait Purpose: Send + Sync + 'static {
    /// The setting that names its file.
    const SETTING: &'static str;
    /// See [`Loader::MESSAGES`].
    const MESSAGES: Messages;
}

/// The backend asks about a token.
#[derive(Debug)]
pub(super) struct Introspection;

impl Purpose for Introspection {
    const SETTING: &'static str = "admin.introspection_secret_file";
    const MESSAGES: Messages = Messages {
        files: "introspection_secret",
        reloaded: "the introspection secret was reloaded",
        refused: "the introspection secret cannot be used; the previous one stays in force",
    };
}

/// A scraper asks for metrics.
#[derive(Debug)]
pub(super) struct Scraping;

impl Purpose for Scraping {
    const SETTING: &'static str = "admin.metrics_secret_file";
    const MESSAGES: Messages = Messages {
        files: "metrics_secret",
        reloaded: "the metrics secret was reloaded",
        refused: "the metrics secret cannot be used; the previous one stays in force",
    };
}

/// The secret in force for one purpose, if there is one.
#[derive(Debug)]
pub(super) struct Secret<P: Purpose>(Option<Managed<SecretLoader<P>>>);

/// Reads the file and computes the MAC.
#[derive(Debug)]
struct SecretLoader<P> {
    file: PathBuf,
    key: hmac::Key,
    purpose: PhantomData<P>,
}

impl<P: Purpose> Loader for SecretLoader<P> {
    type Value = hmac::Tag;
    type Error = SecretError;
    const MESSAGES: Messages = P::MESSAGES;

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }

    fn load(&self, reader: &mut Reader, _: Option<&hmac::Tag>) -> Result<hmac::Tag, SecretError> {
        let text = reader.read_private(&self.file)?;
        let line = text.trim_end_matches(['\r', '\n']);
        match is_secret(line) {
            true => Ok(hmac::sign(&self.key, line.as_bytes())),
            false => Err(SecretError::NotASecret {
                path: self.file.clone(),
                setting: P::SETTING,
            }),
        }
    }

    fn count(&self, _: &hmac::Tag) -> usize {
        1
    }
}

impl<P: Purpose> Secret<P> {
    /// Reads the file, if one is configured.
    ///
    /// # Errors
    /// When it cannot be used.
    fn open(file: Option<&Path>, random: &SystemRandom) -> Result<Self, SecretError> {
        let Some(file) = file else {
            return Ok(Self(None));
        };
        let key = hmac::Key::generate(hmac::HMAC_SHA256, random);
        let loader = SecretLoader {
            file: file.to_owned(),
            key: key.map_err(|_| SecretError::NoRandom)?,
            purpose: PhantomData,
        };
        Managed::open(loader).map(|secret| Self(Some(secret)))
    }

    /// Whether there is one.
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a request presents the secret as its only bearer token. Compares in constant time.
    pub(super) fn is_presented(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Some((scheme, rest)) = value.as_bytes().split_at_checked(SCHEME.len()) else {
            return false;
        };
        let presented = rest.trim_ascii_start();
        scheme.eq_ignore_ascii_case(SCHEME)
            && self.0.as_ref().is_some_and(|secret| {
                let (key, mac) = (&secret.loader().key, secret.value());
                hmac::verify(key, presented, (**mac).as_ref()).is_ok()
            })
    }
}

/// The `b64token` of RFC 6750, which needs no quoting anywhere, and long enough not to be guessed.
fn is_secret(line: &str) -> bool {
    let stands = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    line.len() >= MIN_LENGTH && line.trim_end_matches('=').bytes().all(stands)
}

const SCHEME: &[u8] = b"Bearer ";
/// In characters.
const MIN_LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_long_and_needs_no_quoting() {
        let long = "0123456789abcdef0123456789abcdef";
        for (line, expected) in [
            (long, true),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAAAA-._~+/==", true),
            (&long[1..], false),
            ("0123456789abcdef 123456789abcdef", false),
            ("0123456789abcdef=123456789abcdef", false),
            ("0123456789abcdef\n0123456789abcdef", false),
            ("0123456789abcdef0123456789abcde\u{e9}", false),
            ("", false),
        ] {
            assert_eq!(is_secret(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_secret_is_accepted_as_the_only_bearer_token_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("introspection.secret");
        let text = "0123456789abcdef0123456789abcdef";
        std::fs::write(&path, format!("{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = Secret::<Introspection>::open(Some(&path), &SystemRandom::new()).unwrap();
        assert!(!format!("{secret:?}").contains("0123456789abcdef"));
        let is_presented = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            secret.is_presented(&headers)
        };
        let (right, wrong) = (format!("Bearer {text}"), format!("Bearer {text}0"));
        for (values, expected) in [
            (&[&*right][..], true),
            (&[&format!("bearer   {text}")], true),
            (&[&wrong], false),
            (&[&right[..right.len() - 1]], false),
            (&[text], false),
            (&[&format!("Basic {text}")], false),
            (&["Bearer "], false),
            (&["Bearer"], false),
            (&[], false),
            (&[&right, &right], false),
            (&[&wrong, &right], false),
        ] {
            assert_eq!(is_presented(values), expected, "{values:?}");
        }
        let none = Secret::<Introspection>::open(None, &SystemRandom::new()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, right.parse().unwrap());
        assert!(!none.is_set() && !none.is_presented(&headers));
    }
}
