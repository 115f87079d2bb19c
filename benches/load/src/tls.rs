//! A TLS 1.3 client that verifies nothing: a generator must cost less than what it measures.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, NamedGroup, SignatureScheme,
};

/// What the client offers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offer {
    /// Resume sessions with tickets.
    pub resumption: bool,
    /// Offer X25519MLKEM768 first instead of X25519 alone.
    pub post_quantum: bool,
}

/// Makes the client's configuration: TLS 1.3, AES-256-GCM, ALPN `http/1.1`.
pub fn client(offer: Offer) -> Result<Arc<ClientConfig>, Error> {
    let mut provider = ring::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384);
    provider
        .kx_groups
        .retain(|group| group.name() == NamedGroup::X25519);
    if offer.post_quantum {
        let groups = rustls_graviola::kx::ALL_KX_GROUPS;
        let hybrid = groups
            .iter()
            .find(|group| group.name() == NamedGroup::X25519MLKEM768);
        provider
            .kx_groups
            .insert(0, *hybrid.expect("graviola has X25519MLKEM768"));
    }
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(schemes)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = match offer.resumption {
        true => Resumption::store(Arc::new(ClientSessionMemoryCache::new(64))),
        false => Resumption::disabled(),
    };
    Ok(Arc::new(config))
}

/// The ring provider, for the upstream's own TLS listener.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Accepts any certificate and any signature.
#[derive(Debug)]
struct TrustAll(Vec<SignatureScheme>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
