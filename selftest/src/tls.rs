//! Pure: the checks of TLS, a line each, and greetings that no library of today sends any more.

use super::check::Check;
use super::check::Probe::{PlainOnTls, Tls};
use super::check::TlsProbe::{NoEarlyData, NoOtherProtocol, Refuses, Speaks13, SpeaksHttp10};

/// All of them, in the order in which they are tried.
#[rustfmt::skip]
pub(super) fn checks() -> Vec<Check> {
    let rows = [
        ("TLS 1.3", Tls(Speaks13)),
        ("SSL 3.0", Tls(Refuses(0x0300, MODERN))),
        ("TLS 1.0", Tls(Refuses(0x0301, MODERN))),
        ("TLS 1.1", Tls(Refuses(0x0302, MODERN))),
        ("no encryption", Tls(Refuses(0x0303, &[0x0001, 0x0002, 0x003b, 0xc006, 0xc010]))),
        ("no authentication", Tls(Refuses(0x0303, &[0x0018, 0x0034, 0x006c, 0xc018, 0xc019]))),
        ("export ciphers", Tls(Refuses(0x0303, &[0x0003, 0x0006, 0x0008, 0x0014]))),
        ("RC4", Tls(Refuses(0x0303, &[0x0004, 0x0005, 0xc007, 0xc011]))),
        ("triple DES", Tls(Refuses(0x0303, &[0x000a, 0x0016, 0xc008, 0xc012]))),
        ("CBC ciphers", Tls(Refuses(0x0303, &[0x002f, 0x0035, 0x003c, 0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc027]))),
        ("RSA key exchange", Tls(Refuses(0x0303, &[0x009c, 0x009d]))),
        ("finite-field Diffie-Hellman", Tls(Refuses(0x0303, &[0x009e, 0x009f, 0xccaa]))),
        ("early data", Tls(NoEarlyData)),
        ("HTTP/1.0 alone in ALPN", Tls(SpeaksHttp10)),
        ("a protocol that is not HTTP", Tls(NoOtherProtocol)),
        ("HTTP without TLS", PlainOnTls),
    ];
    rows.into_iter().map(|(name, probe)| Check { area: "tls", name, probe }).collect()
}

/// Forward-secret and authenticated, for ECDSA and for RSA keys.
const MODERN: &[u16] = &[0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9];

/// A client's greeting (RFC 5246, section 7.4.1.2) of this version with these cipher suites.
pub(super) fn hello(version: u16, suites: &[u16], host: &str) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, content: &[u8]| {
        extensions.extend_from_slice(&kind.to_be_bytes());
        extensions.extend_from_slice(&counted(2, content));
    };
    if host.parse::<std::net::IpAddr>().is_err() {
        let name = [&[0][..], &counted(2, host.as_bytes())].concat();
        extension(0, &counted(2, &name));
    }
    // X25519, P-256, P-384; uncompressed points; signatures new and old; extended master secret.
    extension(10, &counted(2, &[0, 29, 0, 23, 0, 24]));
    extension(11, &counted(1, &[0]));
    extension(
        13,
        &counted(2, &[4, 3, 8, 4, 5, 3, 8, 5, 4, 1, 5, 1, 2, 3, 2, 1]),
    );
    extension(23, &[]);
    let suites: Vec<u8> = suites
        .iter()
        .flat_map(|suite| suite.to_be_bytes())
        .collect();
    let body = [
        &version.to_be_bytes()[..],
        &[0x5a; 32],
        &counted(1, &[]),
        &counted(2, &suites),
        &counted(1, &[0]),
        &counted(2, &extensions),
    ]
    .concat();
    let handshake = [&[1][..], &counted(3, &body)].concat();
    let record = version.min(0x0301).to_be_bytes();
    [&[22][..], &record, &counted(2, &handshake)].concat()
}

/// The content behind its length in so many bytes.
fn counted(width: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - width..], content].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::ring::default_provider;
    use rustls::{Error, ServerConfig, ServerConnection};

    use super::*;

    /// What a server of today makes of a greeting.
    fn answer(version: u16, suites: &[u16]) -> Result<(), Error> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["gate.example".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        let hello = hello(version, suites, "gate.example");
        server.read_tls(&mut &hello[..]).unwrap();
        server.process_new_packets().map(drop)
    }

    /// What refuses the bad ones is thus what is bad in them, not their form.
    #[test]
    fn a_greeting_with_nothing_wrong_is_accepted() {
        assert_eq!(answer(0x0303, MODERN), Ok(()));
        for check in checks() {
            if let Tls(Refuses(version, suites)) = check.probe {
                let refused = answer(version, suites).unwrap_err();
                assert!(
                    matches!(refused, Error::PeerIncompatible(_)),
                    "{}: {refused}",
                    check.name
                );
            }
        }
    }
}
