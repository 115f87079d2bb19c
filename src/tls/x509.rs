//! Pure: the validity and the names of a certificate (RFC 5280). Does not check whether clients would trust
//! it.

use std::net::IpAddr;
use std::str;

use x509_cert::Certificate;
use x509_cert::der::asn1::Any;
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::der::{Decode as _, Encode as _, Tag, TagNumber, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::time::Time;

/// The properties of a certificate that the gateway needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The first second of its validity, since 1970.
    pub(super) not_before: i64,
    /// The last one.
    pub(super) not_after: i64,
    /// The DNS names it is for, as written.
    pub(super) names: Vec<String>,
    /// The addresses it is for.
    pub(super) addresses: Vec<IpAddr>,
}

impl Facts {
    /// Parses a certificate; `None` if it is invalid.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let validity = certificate.validity();
        let mut facts = Self {
            not_before: seconds(validity.not_before)?,
            not_after: seconds(validity.not_after)?,
            names: Vec::new(),
            addresses: Vec::new(),
        };
        let extensions = certificate.extensions().into_iter().flatten();
        let mut names = extensions.filter(|it| it.extn_id == SubjectAltName::OID);
        if let Some(extension) = names.next() {
            facts.take_names(extension.extn_value.as_bytes())?;
        }
        names.next().is_none().then_some(facts)
    }

    /// Does not use the library's type for names, which fails for all names if one cannot be parsed.
    fn take_names(&mut self, der: &[u8]) -> Option<()> {
        for name in Vec::<Any>::from_der(der).ok()? {
            // Other kinds of names are for other protocols.
            if name.tag() == DNS_NAME {
                let name = str::from_utf8(name.value()).ok();
                let name = name.filter(|name| name.is_ascii());
                self.names.extend(name.map(str::to_owned));
            } else if name.tag() == IP_ADDRESS {
                let four = <[u8; 4]>::try_from(name.value()).map(IpAddr::from);
                let sixteen = <[u8; 16]>::try_from(name.value()).map(IpAddr::from);
                self.addresses.extend(four.or(sixteen));
            }
        }
        Some(())
    }
}

/// The public key of a certificate, as its `SubjectPublicKeyInfo` is encoded. `None` if it is none.
pub(super) fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    let key = certificate.tbs_certificate().subject_public_key_info();
    key.to_der().ok()
}

/// Whether the one names the other as its issuer.
pub(super) fn is_issued_by(certificate: &[u8], issuer: &[u8]) -> bool {
    let parsed = [certificate, issuer].map(Certificate::from_der);
    let [Ok(certificate), Ok(issuer)] = parsed else {
        return false;
    };
    certificate.tbs_certificate().issuer() == issuer.tbs_certificate().subject()
}

fn seconds(time: Time) -> Option<i64> {
    i64::try_from(time.to_unix_duration().as_secs()).ok()
}

/// Of a `GeneralName` (RFC 5280 section 4.2.1.6).
const DNS_NAME: Tag = general_name(2);
const IP_ADDRESS: Tag = general_name(7);

const fn general_name(number: u32) -> Tag {
    Tag::ContextSpecific {
        constructed: false,
        number: TagNumber(number),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd,
    };

    use super::*;

    fn certificate(names: &[&str], years: (i32, i32)) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_before = date_time_ymd(years.0, 1, 1);
        parameters.not_after = date_time_ymd(years.1, 12, 31);
        sign(&parameters)
    }

    /// With these extensions for its names, as they are written.
    fn certificate_with(names: &[&[u8]]) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        parameters.custom_extensions = names
            .iter()
            .map(|names| CustomExtension::from_oid_content(&[2, 5, 29, 17], names.to_vec()))
            .collect();
        sign(&parameters)
    }

    fn sign(parameters: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn dates_and_names_are_read() {
        let names = ["Gate.example", "*.gate.example", "192.0.2.1", "2001:db8::1"];
        let facts = Facts::read(&certificate(&names, (1999, 2049))).unwrap();
        assert_eq!(facts.names, names[..2]);
        let addresses: Vec<IpAddr> = names[2..].iter().map(|it| it.parse().unwrap()).collect();
        assert_eq!(facts.addresses, addresses);
        assert_eq!(facts.not_before, 915_148_800);
        assert_eq!(facts.not_after, 2_524_521_600);
    }

    #[test]
    fn dates_of_four_digit_years_are_read_and_names_may_be_missing() {
        let facts = Facts::read(&certificate(&[], (1970, 9999))).unwrap();
        assert_eq!((facts.names.len(), facts.addresses.len()), (0, 0));
        assert_eq!(facts.not_before, 0);
        assert_eq!(facts.not_after, 253_402_214_400);
    }

    #[test]
    fn a_certificate_that_is_cut_or_continued_is_none() {
        let whole = certificate(&["gate.example"], (2020, 2030));
        assert!(Facts::read(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(Facts::read(&whole[..length]), None, "{length}");
        }
        assert_eq!(Facts::read(&[&whole[..], &[0]].concat()), None);
    }

    #[test]
    fn names_that_cannot_be_read_are_left_out() {
        let names = [
            &[0x30, 0][..],
            b"\x82\x05b\xc3\xbcro",
            b"\x82\x04gate",
            // An X.400 address and half an address of IPv4.
            &[0xa3, 2, 0x30, 0],
            &[0x87, 2, 192, 0],
            &[0x87, 4, 192, 0, 2, 1],
        ];
        let mut names = names.concat();
        names[1] = u8::try_from(names.len() - 2).unwrap();
        let facts = Facts::read(&certificate_with(&[&names])).unwrap();
        assert_eq!(facts.names, ["gate"]);
        assert_eq!(facts.addresses, [IpAddr::from([192, 0, 2, 1])]);
    }

    #[test]
    fn a_certificate_with_malformed_names_or_names_in_two_places_is_none() {
        let names = b"\x30\x06\x82\x04gate";
        assert!(Facts::read(&certificate_with(&[names])).is_some());
        assert_eq!(Facts::read(&certificate_with(&[names, names])), None);
        assert_eq!(Facts::read(&certificate_with(&[&names[..7]])), None);
        assert_eq!(Facts::read(&certificate_with(&[&names[2..]])), None);
    }
}
