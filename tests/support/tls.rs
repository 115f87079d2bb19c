//! Certificates for a test's gateway, and TLS settings for its clients.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

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
