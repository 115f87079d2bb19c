//! A certificate for trying things out: signed by itself, so that only clients which are told to
//! trust it do.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::new_file::{make_directory, write_new};

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
    let (certificate, key) = make(names, now).map_err(io::Error::other)?;
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
fn make(names: &[&str], now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let mut all = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    for name in names {
        if !all.iter().any(|known| known == name) {
            all.push((*name).to_owned());
        }
    }
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "syncgate development certificate");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Whole days in UTC; the type of the moments is rcgen's own.
    let midnight = |day: Date| {
        let (month, day_of_month) = (day.month().unsigned_abs(), day.day().unsigned_abs());
        rcgen::date_time_ymd(day.year().into(), month, day_of_month)
    };
    let today = TimeZone::UTC.to_datetime(now).date();
    params.not_before = midnight(today);
    params.not_after = midnight(today.saturating_add(1.year()));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
