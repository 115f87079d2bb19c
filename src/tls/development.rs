//! A self-signed certificate for development, which only clients configured to trust it accept.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use pem_rfc7468::LineEnding;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use zeroize::Zeroizing;

use crate::new_file::{create_directory, write_new};

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate.
    pub certificate: PathBuf,
    /// PEM: its private key, readable only by the file's owner.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Where [`write_certificate`] puts the files.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        }
    }
}

/// Writes `server.pem` and `server.key` into `directory`, which is created if missing. The certificate is for
/// `localhost`, 127.0.0.1, ::1 and `names`, and valid from `now` for one year.
///
/// # Errors
/// If one of the files exists already, or cannot be written; neither is left behind then.
pub fn write_certificate(
    directory: &Path,
    names: &[&str],
    now: Timestamp,
) -> io::Result<CertificateFiles> {
    let written = CertificateFiles::in_directory(directory);
    for path in [&written.certificate, &written.key] {
        if path.try_exists()? {
            let message = format!("{} already exists", path.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, message));
        }
    }
    if let Some(name) = names.iter().find(|name| !name.is_ascii()) {
        let message = format!("{name:?} cannot be in a certificate: write it in ASCII (xn--)");
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    let (certificate, key) = make(names, now).map_err(io::Error::other)?;
    create_directory(directory, 0o755)?;
    write_new(&written.key, 0o600, &key)?;
    if let Err(error) = write_new(&written.certificate, 0o644, &certificate) {
        // A key without its certificate would make the next attempt fail.
        let _ = fs::remove_file(&written.key);
        return Err(error);
    }
    Ok(written)
}

/// The certificate and its key, both in PEM.
fn make(names: &[&str], now: Timestamp) -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let own = ["localhost", "127.0.0.1", "::1"];
    let others = names.iter().filter(|name| !own.contains(name));
    let all: Vec<String> = own
        .iter()
        .chain(others)
        .copied()
        .map(str::to_owned)
        .collect();
    let mut parameters = CertificateParams::new(all)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "syncgate development certificate");
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Whole days in UTC, in rcgen's type.
    let midnight = |day: Date| {
        let (month, day_of_month) = (day.month().unsigned_abs(), day.day().unsigned_abs());
        date_time_ymd(day.year().into(), month, day_of_month)
    };
    let today = TimeZone::UTC.to_datetime(now).date();
    parameters.not_before = midnight(today);
    parameters.not_after = midnight(today.saturating_add(1.year()));
    let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    let certificate = parameters.self_signed(&*key)?;
    Ok((
        to_pem("CERTIFICATE", certificate.der()),
        Zeroizing::new(to_pem("PRIVATE KEY", key.serialized_der())),
    ))
}

fn to_pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, der)
        .expect("a short text under a valid label")
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

        let CertificateFiles { certificate, key } = written;
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
