//! TLS: the cryptographic provider, which only this room chooses, protocol settings and certificates.

pub mod backend;
pub mod development;
pub(crate) mod inspect;
mod settings;
mod x509;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, NamedGroup, ProtocolVersion, ServerConfig, ServerConnection};
use thiserror::Error;

use x509::Facts;

pub use settings::{BackendTlsSection, CertificateSection, Pin, TlsSection};

use crate::clock::{Clock, UnixMillis};
use crate::managed_file::{Loader, Managed, ManagedFiles, Messages, Reader};
use crate::private_file::{PrivateFileError, Snapshot};

/// Why TLS cannot be served as configured.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("{path} cannot be read as {what} in PEM", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should contain.
        what: &'static str,
        /// What is wrong.
        #[source]
        cause: PemError,
    },
    /// A certificate file contains no certificate.
    #[error("{path} contains no certificate", path = path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be parsed.
    #[error("{path} contains something that is not an X.509 certificate", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A certificate is not valid now.
    #[error("the certificate in {path} is valid from {from} until {until}, but it is now {now}",
            path = path.display())]
    OutOfDate {
        /// The file.
        path: PathBuf,
        /// The start of its validity.
        from: String,
        /// The end of its validity.
        until: String,
        /// The current time.
        now: String,
    },
    /// The file of a private key is missing, or others have access to it.
    #[error("a certificate's key cannot be read{}", .0.remedy_in_parentheses())]
    KeyFile(#[from] PrivateFileError),
    /// A private key of a kind that is not supported.
    #[error("the key in {path} cannot be used", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: rustls::Error,
    },
    /// A private key belongs to another certificate.
    #[error("the key in {key} does not belong to the certificate in {certificate}",
            key = key.display(), certificate = certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A client certificate without its key, or a key alone.
    #[error("of a certificate and its key for the backend, the configuration names only one")]
    Half,
    /// There is nobody to trust.
    #[error("{path} holds no certificate of an authority", path = .0.display())]
    NoRoots(PathBuf),
    /// The system has no list of authorities where it is looked for.
    #[error(
        "the system's certificate authorities are not found: install its ca-certificates, or \
             write ca_file"
    )]
    NoSystemRoots,
    /// What a server would have to be called is no name.
    #[error("{0} is no name that a certificate could be for: write server_name")]
    ServerName(String),
    /// The provider does not support the protocol settings.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Certificates by server name, swapped as a whole.
#[derive(Debug)]
pub struct Certificates(Managed<CertificateLoader>);

/// Loads the certificates from their files.
#[derive(Debug)]
struct CertificateLoader {
    sections: Vec<CertificateSection>,
    clock: Clock,
}

#[derive(Debug)]
struct CertificateSet {
    /// For clients without a known server name: the first in the configuration.
    default: Arc<CertifiedKey>,
    /// Exact names, and `*.` for one label, in lower case.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    addresses: HashSet<IpAddr>,
    ends: Vec<CertificateEnd>,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEnd {
    /// Its file, as configured.
    pub file: PathBuf,
    /// The last second of its validity, since 1970.
    pub ends: i64,
}

/// How long before its end a certificate is reported, in seconds: two weeks.
pub const NEAR_ITS_END: i64 = 14 * 24 * 60 * 60;

impl Certificates {
    /// Loads the configured certificates and keys, and checks that they match and are valid. A new connection
    /// uses those in force at the time.
    ///
    /// # Errors
    /// The first one that cannot be served.
    pub fn open(section: &TlsSection, clock: &Clock) -> Result<Self, TlsError> {
        let loader = CertificateLoader {
            sections: section.certificates.clone(),
            clock: clock.clone(),
        };
        Managed::open(loader).map(Self)
    }

    /// Whether one of the current certificates is for this host: a name or an address, IPv6 in brackets.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let literal = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let set = self.0.value();
        match literal.unwrap_or(host).parse::<IpAddr>() {
            Ok(address) => set.addresses.contains(&address),
            Err(_) => set.named(host).is_some(),
        }
    }

    /// When each of the current certificates ends.
    #[must_use]
    pub fn ends(&self) -> Vec<CertificateEnd> {
        self.0.value().ends.clone()
    }

    /// The files of the certificates and keys.
    pub(crate) fn managed(&self) -> &dyn ManagedFiles {
        &self.0
    }
}

impl Loader for CertificateLoader {
    type Value = CertificateSet;
    type Error = TlsError;
    const MESSAGES: Messages = Messages {
        files: "certificates",
        reloaded: "the certificates were reloaded",
        refused: "the certificates cannot be used; the previous ones stay in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        let pairs = self.sections.iter();
        let files = pairs.flat_map(|pair| [&pair.certificate, &pair.key]);
        files.cloned().collect()
    }

    fn load(
        &self,
        reader: &mut Reader,
        _: Option<&CertificateSet>,
    ) -> Result<CertificateSet, TlsError> {
        let provider = provider();
        let mut by_name = HashMap::new();
        let mut addresses = HashSet::new();
        let mut first = None;
        let mut ends = Vec::new();
        for section in &self.sections {
            let (key, facts) = load_pair(reader, section, &provider, &self.clock)?;
            let key = Arc::new(key);
            first.get_or_insert_with(|| Arc::clone(&key));
            addresses.extend(facts.addresses);
            ends.push(CertificateEnd {
                file: section.certificate.clone(),
                ends: facts.not_after,
            });
            for name in facts.names {
                // Of two certificates for a name, the first in the configuration is served.
                by_name
                    .entry(name.to_ascii_lowercase())
                    .or_insert_with(|| Arc::clone(&key));
            }
        }
        let default = first.ok_or_else(|| TlsError::NoCertificate {
            path: PathBuf::from("tls.certificates"),
        })?;
        Ok(CertificateSet {
            default,
            by_name,
            addresses,
            ends,
        })
    }

    fn count(&self, _: &CertificateSet) -> usize {
        self.sections.len()
    }
}

impl CertificateSet {
    fn find(&self, server_name: Option<&str>) -> &Arc<CertifiedKey> {
        let named = server_name.and_then(|name| self.named(name));
        named.unwrap_or(&self.default)
    }

    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        self.by_name.get(&name).or_else(wildcard)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.0.value().find(hello.server_name())))
    }
}

/// The TLS configuration of all HTTPS listeners.
///
/// # Errors
/// If the provider does not support the protocol versions.
pub fn server_config(certificates: Arc<Certificates>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    // Old clients configured for HTTP/1.0 offer the last; it is served like HTTP/1.1.
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"]
        .map(<[u8]>::to_vec)
        .to_vec();
    // One stateless ticket: resumption saves an RSA signature; more tickets have no benefit.
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // No early data: a replayed login or batch would be processed twice.
    config.max_early_data_size = 0;
    Ok(config)
}

/// The version and the key exchange group that were agreed on, as RFC 8446 and IANA's registry call them. A
/// resumed TLS 1.2 session has no group.
pub(crate) fn negotiated(session: &ServerConnection) -> (&'static str, &'static str) {
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(_) | None => "other",
    };
    let group = session.negotiated_key_exchange_group();
    let group = match group.map(SupportedKxGroup::name) {
        Some(NamedGroup::X25519) => "X25519",
        Some(NamedGroup::secp256r1) => "secp256r1",
        Some(NamedGroup::secp384r1) => "secp384r1",
        Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
        Some(_) => "other",
        None => "none",
    };
    (version, group)
}

/// *ring*, with X25519MLKEM768 as the preferred key exchange if the processor supports it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if let Some(group) = post_quantum_group() {
        provider.kx_groups.insert(0, group);
    }
    Arc::new(provider)
}

#[cfg(feature = "pq")]
fn post_quantum_group() -> Option<&'static dyn SupportedKxGroup> {
    processor_runs_graviola().then(|| rustls_graviola::kx::ALL_KX_GROUPS[0])
}

#[cfg(not(feature = "pq"))]
fn post_quantum_group() -> Option<&'static dyn SupportedKxGroup> {
    None
}

/// Graviola's assembly asserts these at first use.
#[cfg(all(feature = "pq", target_arch = "x86_64"))]
fn processor_runs_graviola() -> bool {
    std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("ssse3")
        && std::arch::is_x86_feature_detected!("pclmulqdq")
        && std::arch::is_x86_feature_detected!("avx")
        && std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("adx")
}

#[cfg(all(feature = "pq", target_arch = "aarch64"))]
fn processor_runs_graviola() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
        && std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
        && std::arch::is_aarch64_feature_detected!("sha2")
}

#[cfg(all(
    feature = "pq",
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
fn processor_runs_graviola() -> bool {
    false
}

fn load_pair(
    reader: &mut Reader,
    section: &CertificateSection,
    provider: &CryptoProvider,
    clock: &Clock,
) -> Result<(CertifiedKey, Facts), TlsError> {
    let path = &section.certificate;
    let chain = read_chain(reader, path)?;
    let leaf = chain
        .first()
        .ok_or_else(|| TlsError::NoCertificate { path: path.clone() })?;
    let facts = check_leaf(leaf, path, clock.now())?;
    let pem = reader.read_private(&section.key)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|cause| TlsError::Read {
        path: section.key.clone(),
        what: "a private key",
        cause,
    })?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|cause| TlsError::Key {
            path: section.key.clone(),
            cause,
        })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok((certified, facts))
        }
        Err(_) => Err(TlsError::Mismatch {
            key: section.key.clone(),
            certificate: path.clone(),
        }),
    }
}

fn read_chain(reader: &mut Reader, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_file(reader, path)
        .and_then(|file| CertificateDer::pem_slice_iter(file.bytes()).collect())
        .map_err(|cause| TlsError::Read {
            path: path.to_owned(),
            what: "a certificate",
            cause,
        })
}

fn read_file(reader: &mut Reader, path: &Path) -> Result<Snapshot, PemError> {
    let file = reader.read(path).map_err(PemError::Io)?;
    let whole = file.check_whole(path).map_err(io::Error::other);
    whole.map_err(PemError::Io)?;
    Ok(file)
}

/// Checks a certificate's validity and returns what it is for.
fn check_leaf(leaf: &CertificateDer<'_>, path: &Path, now: UnixMillis) -> Result<Facts, TlsError> {
    let facts = Facts::read(leaf).ok_or_else(|| TlsError::Malformed {
        path: path.to_owned(),
    })?;
    let seconds = now.timestamp().as_second();
    if seconds < facts.not_before || facts.not_after < seconds {
        let show = |seconds| {
            jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |t| t.to_string())
        };
        return Err(TlsError::OutOfDate {
            path: path.to_owned(),
            from: show(facts.not_before),
            until: show(facts.not_after),
            now: show(seconds),
        });
    }
    Ok(facts)
}
