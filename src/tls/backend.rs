//! TLS to a backend: whom the gateway trusts there, what it shows of itself, and how long the certificates
//! that it is shown last.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::settings::{BackendTlsSection, CertificateSection, Pin};
use super::x509::{Facts, public_key};
use super::{NEAR_ITS_END, TlsError, load_pair, provider, read_chain};
use crate::clock::Clock;
use crate::managed_file::{Loader, Managed, ManagedFiles, Messages, Reader};

/// TLS to the servers of one upstream. What its files hold is read again when they change, and holds for
/// connections that begin then.
#[derive(Debug)]
pub struct BackendTls {
    managed: Managed<BackendTlsLoader>,
    server_name: Option<ServerName<'static>>,
    clock: Clock,
    /// When it was last said that a certificate is near its end, in seconds.
    told: AtomicI64,
}

/// How it is made of its files.
#[derive(Debug)]
struct BackendTlsLoader {
    roots: Option<PathBuf>,
    shown: Option<CertificateSection>,
    pins: Vec<Pin>,
    clock: Clock,
}

impl BackendTls {
    /// Reads the files of the section.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn open(section: &BackendTlsSection, clock: &Clock) -> Result<Self, TlsError> {
        let roots = match (section.verify, &section.ca_file) {
            (false, _) => None,
            (true, Some(file)) => Some(file.clone()),
            (true, None) => Some(system_roots().ok_or(TlsError::NoSystemRoots)?),
        };
        let shown = match (&section.certificate, &section.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(CertificateSection {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            (Some(_), None) | (None, Some(_)) => return Err(TlsError::Half),
        };
        let loader = BackendTlsLoader {
            roots,
            shown,
            pins: section.pin.clone(),
            clock: clock.clone(),
        };
        Ok(Self {
            managed: Managed::open(loader)?,
            server_name: section.server_name.clone(),
            clock: clock.clone(),
            told: AtomicI64::new(i64::MIN),
        })
    }

    /// The settings for a connection that begins now.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.managed.value())
    }

    /// The name that the certificate of the server at this host must be for.
    ///
    /// # Errors
    /// When that is no name, and none is configured.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| TlsError::ServerName(host.to_owned())),
        }
    }

    /// The files that it comes from.
    pub(crate) fn managed(&self) -> &dyn ManagedFiles {
        &self.managed
    }

    /// Takes in the certificate that `server` has shown, and returns the last second of its validity: once a
    /// day the log tells of one that is near its end.
    pub(crate) fn note(&self, shown: &CertificateDer<'_>, server: &impl fmt::Debug) -> Option<i64> {
        let facts = Facts::read(shown)?;
        let now = self.clock.now().timestamp().as_second();
        let told = self.told.load(Ordering::Relaxed);
        // Of the workers that find it so at once, one tells.
        if is_due(facts.not_after, now, told)
            && let Ok(_) =
                (self.told).compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed)
        {
            let ends = jiff::Timestamp::from_second(facts.not_after)
                .map_or_else(|_| "?".to_owned(), |end| end.to_string());
            tracing::warn!(?server, ends, "the backend's certificate is near its end");
        }
        Some(facts.not_after)
    }
}

/// Whether the log tells `now` of a certificate that ends at `not_after`, after it last told of one at `told`.
fn is_due(not_after: i64, now: i64, told: i64) -> bool {
    not_after - now < NEAR_ITS_END && now >= told.saturating_add(A_DAY)
}

impl Loader for BackendTlsLoader {
    type Value = Arc<ClientConfig>;
    type Error = TlsError;
    const MESSAGES: Messages = Messages {
        files: "backend_certificates",
        reloaded: "the certificates for the backend were reloaded",
        refused: "the certificates for the backend cannot be used; the previous ones stay in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        let shown = self
            .shown
            .iter()
            .flat_map(|shown| [&shown.certificate, &shown.key]);
        self.roots.iter().chain(shown).cloned().collect()
    }

    fn load(
        &self,
        reader: &mut Reader,
        _: Option<&Arc<ClientConfig>>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = provider();
        let trusted = match &self.roots {
            Some(path) => Some(trusting(read_roots(reader, path)?, path, &provider)?),
            None => None,
        };
        let verifier = Arc::new(BackendVerifier {
            trusted,
            pins: self.pins.clone(),
            provider: Arc::clone(&provider),
        });
        let time = Arc::new(TimeOfDay(self.clock.clone()));
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.shown {
            Some(section) => {
                let (shown, _) = load_pair(reader, section, &provider, &self.clock)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn count(&self, _: &Arc<ClientConfig>) -> usize {
        self.files().len()
    }
}

fn read_roots(reader: &mut Reader, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system's list may hold some that are too old to be understood.
    let (_, _) = roots.add_parsable_certificates(read_chain(reader, path)?);
    match roots.is_empty() {
        true => Err(TlsError::NoRoots(path.to_owned())),
        false => Ok(roots),
    }
}

fn trusting(
    roots: RootCertStore,
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    verifier
        .build()
        .map_err(|_| TlsError::NoRoots(path.to_owned()))
}

/// The file in which the system keeps the certificates of the authorities it trusts.
#[must_use]
pub fn system_roots() -> Option<PathBuf> {
    match std::env::var_os("SSL_CERT_FILE") {
        Some(file) => Some(PathBuf::from(file)),
        None => {
            let known = SYSTEM_ROOTS.iter().map(PathBuf::from);
            known.into_iter().find(|path| path.exists())
        }
    }
}

/// Of Debian and its kin, of Fedora and its kin, of SUSE, and of Alpine.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The gateway's clock, for who checks dates.
#[derive(Debug)]
struct TimeOfDay(Clock);

impl TimeProvider for TimeOfDay {
    fn current_time(&self) -> Option<UnixTime> {
        let now = Duration::from_millis(self.0.now().as_u64());
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// Checks what a server shows. That the server has the key of its certificate is always checked.
#[derive(Debug)]
struct BackendVerifier {
    /// None where any certificate will do.
    trusted: Option<Arc<WebPkiServerVerifier>>,
    /// None where any key will do.
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for BackendVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            trusted.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?;
        }
        let key = public_key(end_entity).ok_or(CertificateError::BadEncoding)?;
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, &key).as_ref());
        let presented = Pin::of(sum);
        match self.pins.is_empty() || self.pins.contains(&presented) {
            true => Ok(ServerCertVerified::assertion()),
            false => {
                let other = OtherError(Arc::new(NotPinned { presented }));
                Err(CertificateError::Other(other).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A key that is none of those pinned.
#[derive(Debug, thiserror::Error)]
#[error("its public key is none of those in `pin`: it is {presented}")]
struct NotPinned {
    presented: Pin,
}

const A_DAY: i64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_near_its_end_is_due_once_a_day() {
        const END: i64 = 100 * A_DAY;
        for (now, told, expected) in [
            (END - NEAR_ITS_END, i64::MIN, false),
            (END - NEAR_ITS_END + 1, i64::MIN, true),
            (END - A_DAY, END - 2 * A_DAY + 1, false),
            (END - A_DAY, END - 2 * A_DAY, true),
            (END + A_DAY, END, true),
        ] {
            assert_eq!(is_due(END, now, told), expected, "{now} {told}");
        }
    }
}
