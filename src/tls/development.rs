//! A certificate for trying things out: signed by itself, so that only clients which are told to
//! trust it do.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use ring::digest::{SHA256, digest};
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::der::{
    BIT_STRING, BOOLEAN, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, UTC_TIME,
    UTF8_STRING, context, context_constructed, element,
};
use crate::new_file::{make_directory, write_new};
use crate::pem::to_pem;

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// PEM: the certificate.
    pub certificate: PathBuf,
    /// PEM: its private key, for nobody but the file's owner to read.
    pub key: PathBuf,
}

impl Written {
    /// Where [`write_certificate`] puts the files.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        }
    }
}

/// Writes `server.pem` and `server.key` into `directory`, which is made if it is not there. The
/// certificate is for `localhost`, 127.0.0.1, ::1 and for `names`, from `now` on for one year.
///
/// # Errors
/// When one of the files is there already, and when one cannot be written; neither is left behind
/// then.
pub fn write_certificate(directory: &Path, names: &[&str], now: Timestamp) -> io::Result<Written> {
    let written = Written::in_directory(directory);
    for path in [&written.certificate, &written.key] {
        if path.try_exists()? {
            let message = format!("{} is there already", path.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, message));
        }
    }
    if let Some(name) = names.iter().find(|name| !name.is_ascii()) {
        let message = format!("{name:?} cannot stand in a certificate: write it in ASCII (xn--)");
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    let (certificate, key) = make(names, now)
        .map_err(|Unspecified| io::Error::other("no key could be made for the certificate"))?;
    make_directory(directory, 0o755)?;
    write_new(&written.key, 0o600, &key)?;
    if let Err(error) = write_new(&written.certificate, 0o644, &certificate) {
        // A key without its certificate would be in the way of the next attempt.
        let _ = fs::remove_file(&written.key);
        return Err(error);
    }
    Ok(written)
}

/// The certificate and its key, both in PEM.
fn make(names: &[&str], now: Timestamp) -> Result<(String, Zeroizing<String>), Unspecified> {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random)?;
    let key =
        EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| Unspecified)?;
    let body = to_be_signed(&key, names, TimeZone::UTC.to_datetime(now).date());
    let signature = key.sign(&random, &body)?;
    let certificate = element(
        SEQUENCE,
        &[&body, &ecdsa_with_sha256(), &bit_string(signature.as_ref())],
    );
    Ok((
        to_pem("CERTIFICATE", &certificate),
        Zeroizing::new(to_pem("PRIVATE KEY", pkcs8.as_ref())),
    ))
}

/// What is signed of a certificate (RFC 5280 section 4.1): valid for a year of whole days in UTC.
fn to_be_signed(key: &EcdsaKeyPair, names: &[&str], today: Date) -> Vec<u8> {
    let id_and_curve = [
        object(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]),
        object(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
    ];
    let id_and_curve = element(SEQUENCE, &[&id_and_curve[0], &id_and_curve[1]]);
    let point = bit_string(key.public_key().as_ref());
    let public_key = element(SEQUENCE, &[&id_and_curve, &point]);
    let digest = digest(&SHA256, &public_key);
    let (key_id, serial) = (&digest.as_ref()[..20], &digest.as_ref()[20..]);

    let version = element(context_constructed(0), &[&element(INTEGER, &[&[2]])]);
    // A leading byte that makes the number positive, and none of its bytes superfluous.
    let serial = element(INTEGER, &[&[0x40], serial]);
    let common_name = element(UTF8_STRING, &[b"syncgate development certificate"]);
    let name = element(SEQUENCE, &[&object(&[0x55, 0x04, 0x03]), &common_name]);
    let name = element(SEQUENCE, &[&element(SET, &[&name])]);
    let validity = [today, today.saturating_add(1.year())].map(midnight);
    let validity = element(SEQUENCE, &[&validity[0], &validity[1]]);
    let extensions = extensions(names, key_id);
    let extensions = element(context_constructed(3), &[&extensions]);
    let algorithm = ecdsa_with_sha256();
    element(
        SEQUENCE,
        &[
            &version,
            &serial,
            &algorithm,
            &name,
            &validity,
            &name,
            &public_key,
            &extensions,
        ],
    )
}

/// For a server that is no certificate authority (RFC 5280 section 4.2.1).
fn extensions(names: &[&str], key_id: &[u8]) -> Vec<u8> {
    let own_key = element(OCTET_STRING, &[key_id]);
    let authority_key = element(SEQUENCE, &[&element(context(0), &[key_id])]);
    let digital_signature = element(BIT_STRING, &[&[7, 0b1000_0000]]);
    let server_authentication = object(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]);
    let server_authentication = element(SEQUENCE, &[&server_authentication]);
    let all = [
        extension(0x23, false, &authority_key),
        extension(0x11, false, &alternative_names(names)),
        extension(0x0f, true, &digital_signature),
        extension(0x25, false, &server_authentication),
        extension(0x0e, false, &own_key),
        extension(0x13, true, &element(SEQUENCE, &[])),
    ];
    element(SEQUENCE, &[&all.concat()])
}

fn extension(id: u8, is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = match is_critical {
        true => element(BOOLEAN, &[&[0xff]]),
        false => Vec::new(),
    };
    let id = object(&[0x55, 0x1d, id]);
    element(
        SEQUENCE,
        &[&id, &critical, &element(OCTET_STRING, &[value])],
    )
}

/// This machine's own names, and `names`.
fn alternative_names(names: &[&str]) -> Vec<u8> {
    let own = ["localhost", "127.0.0.1", "::1"];
    let others = names.iter().filter(|name| !own.contains(name));
    let mut all = Vec::new();
    for name in own.iter().chain(others) {
        all.extend(match name.parse() {
            Ok(IpAddr::V4(address)) => element(context(7), &[&address.octets()]),
            Ok(IpAddr::V6(address)) => element(context(7), &[&address.octets()]),
            Err(_) => element(context(2), &[name.as_bytes()]),
        });
    }
    element(SEQUENCE, &[&all])
}

/// The beginning of a day in this form ends with the year 2049 (RFC 5280 section 4.1.2.5.1).
fn midnight(day: Date) -> Vec<u8> {
    let text = day.strftime("%y%m%d000000Z").to_string();
    element(UTC_TIME, &[text.as_bytes()])
}

fn ecdsa_with_sha256() -> Vec<u8> {
    let id = object(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);
    element(SEQUENCE, &[&id])
}

fn object(identifier: &[u8]) -> Vec<u8> {
    element(OBJECT_IDENTIFIER, &[identifier])
}

/// Whole bytes.
fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;
    use crate::clock::Clock;
    use crate::tls::{CertificateSection, TlsSection};
    use crate::tls::{Certificates, TlsError};

    fn start() -> Timestamp {
        "2026-02-28T13:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_server_takes_it_for_a_year() {
        let directory = tempfile::tempdir().unwrap();
        let written =
            write_certificate(&directory.path().join("certs"), &["erp.example"], start()).unwrap();
        let mode = fs::metadata(&written.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let Written { certificate, key } = written;
        let section = TlsSection {
            certificates: vec![CertificateSection { certificate, key }],
            ..TlsSection::default()
        };
        let at = |moment: &str| Clock::manual(moment.parse().unwrap());
        for moment in ["2026-02-28T13:00:00Z", "2027-02-27T23:59:59Z"] {
            Certificates::open(&section, &at(moment)).unwrap();
        }
        for moment in ["2026-02-27T23:59:59Z", "2027-02-28T00:00:01Z"] {
            let error = Certificates::open(&section, &at(moment)).unwrap_err();
            assert!(matches!(error, TlsError::OutOfDate { .. }), "{error}");
        }
    }

    /// As strictly as clients check it; the time is that of the certificate.
    #[test]
    fn clients_that_trust_it_take_it_for_each_of_its_names_and_for_no_other() {
        let (certificate, _) = make(&["erp.example", "192.0.2.7"], start()).unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = crate::tls::provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        let now = UnixTime::since_unix_epoch(
            start().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs(),
        );
        let cases = [
            ("localhost", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("erp.example", true),
            ("192.0.2.7", true),
            ("other.example", false),
            ("192.0.2.8", false),
        ];
        for (name, expected) in cases {
            let server = ServerName::try_from(name).unwrap();
            let verdict = verifier.verify_server_cert(&certificate, &[], &server, &[], now);
            assert_eq!(verdict.is_ok(), expected, "{name}: {verdict:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_stand_there_is_refused_and_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_certificate(directory.path(), &["b\u{fc}ro.example"], start());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("server.key");
        fs::write(&key, "precious").unwrap();
        let error = write_certificate(directory.path(), &[], start()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&key).unwrap(), "precious");
        assert!(!directory.path().join("server.pem").exists());
    }
}
