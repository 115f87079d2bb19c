//! Pure: what the gateway has to know of a certificate (RFC 5280): when it is valid, and for whom.
//! Whether clients may trust it is not asked here.

use std::net::IpAddr;
use std::str;

use jiff::civil::DateTime;

use super::der::{
    BIT_STRING, BOOLEAN, Elements, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING,
    SEQUENCE, UTC_TIME, context, context_constructed,
};

/// What a certificate says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The first second it is valid, since 1970.
    pub(super) not_before: i64,
    /// The last one.
    pub(super) not_after: i64,
    /// The names it is for, as they stand there.
    pub(super) names: Vec<String>,
    /// The addresses it is for.
    pub(super) addresses: Vec<IpAddr>,
}

impl Facts {
    /// Reads a certificate. `None` if it is none, or longer than 64 KiB.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let mut whole = Elements::new(der);
        let mut certificate = Elements::new(whole.expect(SEQUENCE)?);
        let mut fields = Elements::new(certificate.expect(SEQUENCE)?);
        let _algorithm = certificate.expect(SEQUENCE)?;
        let _signature = certificate.expect(BIT_STRING)?;
        if !certificate.is_empty() || !whole.is_empty() {
            return None;
        }
        let _version = fields.next_if(context_constructed(0));
        let _serial = fields.expect(INTEGER)?;
        let _algorithm = fields.expect(SEQUENCE)?;
        let _issuer = fields.expect(SEQUENCE)?;
        let mut validity = Elements::new(fields.expect(SEQUENCE)?);
        let mut facts = Self {
            not_before: time(&mut validity)?,
            not_after: time(&mut validity)?,
            names: Vec::new(),
            addresses: Vec::new(),
        };
        let _subject = fields.expect(SEQUENCE)?;
        let _key = fields.expect(SEQUENCE)?;
        let _issuer_id = fields.next_if(context(1));
        let _subject_id = fields.next_if(context(2));
        if let Some(extensions) = fields.next_if(context_constructed(3)) {
            let extensions = Elements::new(extensions).expect(SEQUENCE)?;
            if let Some(names) = alternative_names(extensions)? {
                facts.take_names(names)?;
            }
        }
        (fields.is_empty() && validity.is_empty()).then_some(facts)
    }

    fn take_names(&mut self, mut names: Elements<'_>) -> Option<()> {
        while !names.is_empty() {
            let (tag, name) = names.next()?;
            // Names of other kinds are for other protocols.
            if tag == DNS_NAME {
                let name = str::from_utf8(name).ok().filter(|name| name.is_ascii());
                self.names.extend(name.map(str::to_owned));
            } else if tag == IP_ADDRESS {
                let four = <[u8; 4]>::try_from(name).map(IpAddr::from);
                let sixteen = <[u8; 16]>::try_from(name).map(IpAddr::from);
                self.addresses.extend(four.or(sixteen));
            }
        }
        Some(())
    }
}

/// The names in the extension for them, if it is there; `None` if the extensions are malformed.
fn alternative_names(extensions: &[u8]) -> Option<Option<Elements<'_>>> {
    let mut extensions = Elements::new(extensions);
    let mut found = None;
    while !extensions.is_empty() {
        let mut extension = Elements::new(extensions.expect(SEQUENCE)?);
        let id = extension.expect(OBJECT_IDENTIFIER)?;
        let _critical = extension.next_if(BOOLEAN);
        let value = extension.expect(OCTET_STRING)?;
        if id == SUBJECT_ALTERNATIVE_NAME {
            let names = Elements::new(Elements::new(value).expect(SEQUENCE)?);
            if found.replace(names).is_some() {
                return None;
            }
        }
    }
    Some(found)
}

/// The next element as a time (RFC 5280 section 4.1.2.5), in seconds since 1970.
fn time(elements: &mut Elements<'_>) -> Option<i64> {
    let (tag, text) = elements.next()?;
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = if tag == UTC_TIME {
        let (year, rest) = digits.split_first_chunk::<2>()?;
        let year = number(year)?;
        (if year < 50 { 2000 } else { 1900 } + year, rest)
    } else if tag == GENERALIZED_TIME {
        let (year, rest) = digits.split_first_chunk::<4>()?;
        (number(year)?, rest)
    } else {
        return None;
    };
    let rest = <&[u8; 10]>::try_from(rest).ok()?;
    let mut fields = [0_i8; 5];
    for (field, digits) in fields.iter_mut().zip(rest.chunks(2)) {
        *field = i8::try_from(number(digits)?).ok()?;
    }
    let [month, day, hour, minute, second] = fields;
    let moment = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    // Not as a timestamp: those end a day before the last date of a certificate, that of never.
    Some(moment.duration_since(EPOCH).as_secs())
}

fn number(digits: &[u8]) -> Option<i16> {
    digits.iter().try_fold(0_i16, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(number * 10 + i16::try_from(digit).ok()?)
    })
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// Of a `GeneralName`.
const DNS_NAME: u8 = context(2);
const IP_ADDRESS: u8 = context(7);

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

    use super::super::der::element;
    use super::*;

    fn certificate(names: &[&str], years: (i32, i32)) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_before = date_time_ymd(years.0, 1, 1);
        parameters.not_after = date_time_ymd(years.1, 12, 31);
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
        let facts = Facts::read(&certificate(&[], (1951, 9999))).unwrap();
        assert_eq!((facts.names.len(), facts.addresses.len()), (0, 0));
        assert_eq!(facts.not_before, -599_616_000);
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
    fn times() {
        let cases: [(u8, &str, Option<i64>); 9] = [
            (UTC_TIME, "700101000001Z", Some(1)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "20230229000000Z", None),
            (GENERALIZED_TIME, "2023010100000Z", None),
            (GENERALIZED_TIME, "20230101000000", None),
            (UTC_TIME, "20230101000000Z", None),
            (OCTET_STRING, "700101000001Z", None),
        ];
        for (tag, text, expected) in cases {
            let element = element(tag, &[text.as_bytes()]);
            assert_eq!(time(&mut Elements::new(&element)), expected, "{text}");
        }
    }
}
