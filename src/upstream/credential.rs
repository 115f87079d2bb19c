//! The backend's own credentials: what routes with `authorization = "replace"` send in place of the
//! client's token. Read at the start and on reload, and swapped whole.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::HeaderValue;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::managed_file::{Loader, Managed, ManagedFiles, Messages, Reader};
use crate::message::headers::AuthorizationHeader;
use crate::private_file::PrivateFileError;
use crate::route::RouteSection;

/// Why a credential cannot be used.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// The configuration names no file.
    #[error("the route {0} replaces Authorization, but has no authorization_file")]
    NoFile(String),
    /// The file is missing or not private.
    #[error("the backend's credential cannot be read{}", .0.remedy_in_parentheses())]
    File(#[from] PrivateFileError),
    /// The file does not hold the value of a header.
    #[error(
        "{path} must hold the value of the Authorization header in one line of visible ASCII, \
         for example: Basic dXNlcjpwYXNz",
        path = .0.display()
    )]
    NotOneLine(PathBuf),
}

/// The value of an `Authorization` header. Its memory is wiped once nothing holds it any more.
#[derive(Clone)]
pub struct BackendCredential(HeaderValue);

impl BackendCredential {
    fn parse(text: &str) -> Option<Self> {
        let line = text.trim_end_matches(['\r', '\n']);
        let visible = |byte: u8| matches!(byte, b' '..=b'~');
        if line.is_empty() || line.trim() != line || !line.bytes().all(visible) {
            return None;
        }
        let bytes = Bytes::from_owner(Zeroizing::new(line.as_bytes().to_vec()));
        let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// The header's value; its `Debug` is redacted.
    #[must_use]
    pub fn expose(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for BackendCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackendCredential(redacted)")
    }
}

/// The credentials of all routes.
#[derive(Debug)]
pub struct BackendCredentials(Managed<CredentialLoader>);

/// How they are made of their files.
#[derive(Debug)]
struct CredentialLoader {
    /// For each route, by its index.
    files: Vec<Option<PathBuf>>,
}

type Values = Vec<Option<BackendCredential>>;

impl Loader for CredentialLoader {
    type Value = Values;
    type Error = CredentialError;
    const MESSAGES: Messages = Messages {
        files: "backend_credentials",
        reloaded: "the backend's credentials were reloaded",
        refused: "a backend's credential cannot be used; the previous one stays in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().flatten().cloned().collect()
    }

    fn load(&self, reader: &mut Reader, _: Option<&Values>) -> Result<Values, CredentialError> {
        let mut read = |file: &Option<PathBuf>| {
            let path = file.as_deref();
            path.map(|path| read_one(reader, path)).transpose()
        };
        self.files.iter().map(&mut read).collect()
    }

    fn count(&self, value: &Values) -> usize {
        value.iter().flatten().count()
    }
}

impl BackendCredentials {
    /// Reads the files of the routes that replace `Authorization`.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn open(routes: &[RouteSection]) -> Result<Self, CredentialError> {
        let file = |route: &RouteSection| match route.authorization {
            AuthorizationHeader::Strip | AuthorizationHeader::Keep => Ok(None),
            AuthorizationHeader::Replace => match &route.authorization_file {
                Some(file) => Ok(Some(file.clone())),
                None => Err(CredentialError::NoFile(route.path.to_string())),
            },
        };
        let files = routes.iter().map(file).collect::<Result<Vec<_>, _>>()?;
        Managed::open(CredentialLoader { files }).map(Self)
    }

    /// The files that they come from.
    pub(crate) fn managed(&self) -> &dyn ManagedFiles {
        &self.0
    }

    /// The credential of a route, by its index.
    #[must_use]
    pub fn of(&self, route: usize) -> Option<BackendCredential> {
        self.0.value().get(route).cloned().flatten()
    }
}

fn read_one(reader: &mut Reader, path: &Path) -> Result<BackendCredential, CredentialError> {
    let text = reader.read_private(path)?;
    BackendCredential::parse(&text).ok_or_else(|| CredentialError::NotOneLine(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_one_line_and_never_shown() {
        for (text, expected) in [
            ("Basic eDp5\n", Some("Basic eDp5")),
            ("Bearer x\r\n", Some("Bearer x")),
            ("Bearer x", Some("Bearer x")),
            ("", None),
            ("\n", None),
            (" Bearer x\n", None),
            ("Bearer x\nBearer y\n", None),
            ("Bearer \u{e9}\n", None),
            ("Bearer\tx\n", None),
        ] {
            let found = BackendCredential::parse(text);
            if let Some(found) = &found {
                let shown = format!("{found:?} {:?}", found.expose());
                assert_eq!(shown, "BackendCredential(redacted) Sensitive");
            }
            let found = found.map(|found| found.expose().to_str().unwrap().to_owned());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }
}
