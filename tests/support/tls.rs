//! Certificates for a test's gateway, and TLS settings for its clients.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::PublicKeyData as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use syncgate::clock::Clock;

/// A self-signed P-256 certificate and its key.
#[derive(Clone)]
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Identity {
    pub fn new(names: &[&str]) -> Self {
        Self::make(names, |_| {})
    }

    /// One whose validity ended long ago.
    pub fn expired(names: &[&str]) -> Self {
        Self::make(names, |parameters| {
            parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    /// One whose validity begins on this day.
    pub fn from(names: &[&str], year: i32, month: u8, day: u8) -> Self {
        Self::make(names, |parameters| {
            parameters.not_before = rcgen::date_time_ymd(year, month, day);
        })
    }

    /// One whose validity ends so many days from now.
    pub fn ending_in(names: &[&str], days: u64) -> Self {
        Self::make(names, |parameters| {
            let now = Duration::from_millis(Clock::system().now().as_u64());
            let left = Duration::from_secs(days * 24 * 60 * 60);
            parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + left;
        })
    }

    /// One whose validity ends on this day.
    pub fn until(names: &[&str], year: i32, month: u8, day: u8) -> Self {
        Self::make(names, |parameters| {
            parameters.not_after = rcgen::date_time_ymd(year, month, day);
        })
    }

    fn make(names: &[&str], adjust: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).expect("names for a certificate");
        adjust(&mut parameters);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The SHA-256 digest of its public key, as `pin` takes it.
    pub fn pin(&self) -> String {
        let key = rcgen::KeyPair::from_pem(&self.key_pem).expect("its own key");
        let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
        format!("sha256/{}", STANDARD.encode(digest.as_ref()))
    }

    /// Writes `NAME.pem` and `NAME.key` (readable by the owner only).
    pub fn write(&self, directory: &Path, name: &str) {
        super::harness::write(
            &directory.join(format!("{name}.pem")),
            &self.certificate_pem,
            0o644,
        );
        super::harness::write(&directory.join(format!("{name}.key")), &self.key_pem, 0o600);
    }
}

/// ring's provider, as the clients use it.
pub fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// What a backend serves with: these versions, and only to clients with `clients`' certificate where one is
/// given.
pub fn server(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<&Identity>,
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .expect("protocol versions that the provider has");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(clients.certificate.clone())
                .expect("a certificate to trust");
            let provider = Arc::new(provider());
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier of clients"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
    let config = builder.with_single_cert(vec![identity.certificate.clone()], key);
    Arc::new(config.expect("a certificate and its key"))
}

/// A client configuration that trusts these certificates and offers these protocols.
pub fn client(
    trusted: &[CertificateDer<'static>],
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
    provider: CryptoProvider,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots
            .add(certificate.clone())
            .expect("a certificate to trust");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("protocol versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
