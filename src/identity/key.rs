//! Pure: the keys that sign identities and their public halves, encoded as PEM (RFC 7468) in files and as
//! JWK (RFC 7517) for those who verify.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pem_rfc7468::LineEnding;
use ring::digest::{SHA256, digest};
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, Signature, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// How identities are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4), which every platform can verify.
    Es256,
    /// Ed25519 (RFC 8037): signing needs no random numbers, and here takes half as long again.
    Ed25519,
}

impl Algorithm {
    /// The `alg` of a JWS or a JWK.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Ed25519 => "EdDSA",
        }
    }

    /// The prefix of the point in a SubjectPublicKeyInfo (RFC 5480, RFC 8410), and the length of the
    /// point.
    fn spki(self) -> (&'static [u8], usize) {
        match self {
            Self::Es256 => (&SPKI_P256, 65),
            Self::Ed25519 => (&SPKI_ED25519, 32),
        }
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Invalid PEM or base64.
    #[error("it is not PEM")]
    NotPem,
    /// No PKCS#8 private key in the PEM file.
    #[error("it holds no private key in PKCS#8 (BEGIN PRIVATE KEY)")]
    NoPrivateKey,
    /// No key in the PEM file.
    #[error("it holds no key (BEGIN PUBLIC KEY)")]
    NoKey,
    /// More than one key where one has to sign.
    #[error("it holds more than one key, and only one can sign")]
    SeveralKeys,
    /// RSA, another curve, or damaged.
    #[error("its key is neither Ed25519 nor ECDSA on P-256")]
    Unsupported,
}

/// A private key. It is never printed: `Debug` shows the id of its public half.
pub struct SigningKey {
    pair: RingKeyPair,
    public: PublicKey,
}

enum RingKeyPair {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads the only key in a PEM file.
    ///
    /// # Errors
    /// If there is no key, more than one, or one of another kind.
    pub fn from_pem(pem: &[u8], random: &SystemRandom) -> Result<Self, KeyError> {
        let mut keys = pem_keys(pem)?.into_iter();
        match (keys.next(), keys.next()) {
            (Some(PemKey::Private(der)), None) => Self::from_pkcs8(&der, random),
            (Some(_), Some(_)) => Err(KeyError::SeveralKeys),
            (Some(PemKey::Public(_)) | None, _) => Err(KeyError::NoPrivateKey),
        }
    }

    fn from_pkcs8(der: &[u8], random: &SystemRandom) -> Result<Self, KeyError> {
        // Some tools write Ed25519 keys without the public half.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public = PublicKey::new(Algorithm::Ed25519, pair.public_key().as_ref());
            let pair = RingKeyPair::Ed25519(pair);
            return Ok(Self { pair, public });
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, random)
            .map_err(|_| KeyError::Unsupported)?;
        let public = PublicKey::new(Algorithm::Es256, pair.public_key().as_ref());
        let pair = RingKeyPair::Es256(pair);
        Ok(Self { pair, public })
    }

    /// Generates a key, as PEM for a file that only its owner may read.
    ///
    /// # Errors
    /// If the operating system's random number generator fails.
    pub fn generate(
        algorithm: Algorithm,
        random: &SystemRandom,
    ) -> Result<Zeroizing<String>, Unspecified> {
        let document = match algorithm {
            Algorithm::Es256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random)?
            }
            Algorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8(random)?,
        };
        Ok(Zeroizing::new(to_pem("PRIVATE KEY", document.as_ref())))
    }

    /// The key that verifies its signatures.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs in the format of RFC 7518: for ECDSA, the concatenation of both numbers.
    pub(super) fn sign(
        &self,
        message: &[u8],
        random: &SystemRandom,
    ) -> Result<Signature, Unspecified> {
        match &self.pair {
            RingKeyPair::Es256(pair) => pair.sign(random, message),
            RingKeyPair::Ed25519(pair) => Ok(pair.sign(message)),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(redacted, {})", self.public.id)
    }
}

/// The public half of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    point: Vec<u8>,
    id: String,
}

impl PublicKey {
    fn new(algorithm: Algorithm, point: &[u8]) -> Self {
        let mut key = Self {
            algorithm,
            point: point.to_owned(),
            id: String::new(),
        };
        // RFC 7638 section 3: only the required members, sorted by name, without white space.
        let Jwk { crv, kty, x, y, .. } = key.jwk();
        let y = y.map_or(String::new(), |y| format!(r#","y":"{y}""#));
        let members = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"{y}}}"#);
        key.id = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        key
    }

    /// Reads the public halves of all keys in a PEM file, and returns whether any of them was private.
    ///
    /// # Errors
    /// If there is no key, or one of another kind.
    pub fn all_from_pem(
        pem: &[u8],
        random: &SystemRandom,
    ) -> Result<(Vec<Self>, Sensitivity), KeyError> {
        let mut sensitivity = Sensitivity::Public;
        let keys = pem_keys(pem)?.into_iter().map(|section| match section {
            PemKey::Public(der) => Self::from_spki(&der),
            PemKey::Private(der) => {
                sensitivity = Sensitivity::Private;
                SigningKey::from_pkcs8(&der, random).map(|key| key.public)
            }
        });
        let keys: Vec<Self> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(KeyError::NoKey);
        }
        Ok((keys, sensitivity))
    }

    fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let fits = |algorithm: Algorithm| {
            let (prefix, length) = algorithm.spki();
            let point = der.strip_prefix(prefix)?;
            (point.len() == length).then(|| Self::new(algorithm, point))
        };
        let key = fits(Algorithm::Es256).or_else(|| fits(Algorithm::Ed25519));
        key.ok_or(KeyError::Unsupported)
    }

    /// The key as PEM, for a file that anybody may read.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let (prefix, _) = self.algorithm.spki();
        to_pem("PUBLIC KEY", &[prefix, &self.point].concat())
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key id: the thumbprint of RFC 7638.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether its private half made this signature of the message, in the format of RFC 7518.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Ed25519 => &ED25519,
        };
        let key = UnparsedPublicKey::new(algorithm, &self.point);
        key.verify(message, signature).is_ok()
    }

    fn jwk(&self) -> Jwk<'_> {
        let (kty, crv, x, y) = match self.algorithm {
            Algorithm::Es256 => {
                // An uncompressed point: 4, x, y.
                let (x, y) = self.point[1..].split_at(32);
                ("EC", "P-256", x, Some(URL_SAFE_NO_PAD.encode(y)))
            }
            Algorithm::Ed25519 => ("OKP", "Ed25519", &*self.point, None),
        };
        Jwk {
            kty,
            crv,
            x: URL_SAFE_NO_PAD.encode(x),
            y,
            usage: "sig",
            alg: self.algorithm.name(),
            kid: &self.id,
        }
    }
}

/// Whether everybody may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensitivity {
    /// It contains public keys only.
    Public,
    /// It contains a private key.
    Private,
}

/// A JWK set (RFC 7517), as JSON.
#[must_use]
pub fn key_set(keys: &[PublicKey]) -> Vec<u8> {
    let set = JwkSet {
        keys: keys.iter().map(PublicKey::jwk).collect(),
    };
    serde_json::to_vec(&set).expect("structs of strings always serialize")
}

#[derive(Serialize)]
struct JwkSet<'a> {
    keys: Vec<Jwk<'a>>,
}

#[derive(Serialize)]
struct Jwk<'a> {
    kty: &'static str,
    crv: &'static str,
    x: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: &'a str,
}

enum PemKey {
    Public(Vec<u8>),
    Private(Zeroizing<Vec<u8>>),
}

/// The keys in a PEM file; anything else in it is ignored.
fn pem_keys(pem: &[u8]) -> Result<Vec<PemKey>, KeyError> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| KeyError::NotPem)?;
        let der = Zeroizing::new(der);
        if kind == SectionKind::PrivateKey {
            keys.push(PemKey::Private(der));
        } else if kind == SectionKind::PublicKey {
            keys.push(PemKey::Public(der.to_vec()));
        }
    }
    Ok(keys)
}

/// `der` may be a private key: the result is the only copy of it.
fn to_pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, der)
        .expect("a short text under a valid label")
}

const SPKI_ED25519: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: Algorithm) -> SigningKey {
        let random = SystemRandom::new();
        let pem = SigningKey::generate(algorithm, &random).unwrap();
        SigningKey::from_pem(pem.as_bytes(), &random).unwrap()
    }

    /// The public keys and thumbprints of RFC 8037 appendix A.3 and of the P-256 key of RFC 7515
    /// appendix A.3, the latter's thumbprint computed with another implementation.
    #[test]
    fn names_are_the_thumbprints_of_rfc_7638() {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let ed25519 = decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let public = PublicKey::new(Algorithm::Ed25519, &ed25519);
        assert_eq!(public.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let p256 = [
            vec![4],
            decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"),
            decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"),
        ];
        let public = PublicKey::new(Algorithm::Es256, &p256.concat());
        assert_eq!(public.id(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
        let expected = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","use":"sig","alg":"ES256","kid":"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"}]}"#;
        let set = key_set(&[public]);
        assert_eq!(String::from_utf8(set).unwrap(), expected);
    }

    #[test]
    fn a_public_key_is_read_back_from_its_pem() {
        let random = SystemRandom::new();
        for algorithm in [Algorithm::Es256, Algorithm::Ed25519] {
            let key = key(algorithm);
            let pem = key.public().to_pem();
            let (read, sensitivity) = PublicKey::all_from_pem(pem.as_bytes(), &random).unwrap();
            assert_eq!(read, [key.public().clone()]);
            assert_eq!(sensitivity, Sensitivity::Public);
            assert_eq!(key.public().algorithm(), algorithm);
        }
    }

    #[test]
    fn files_that_hold_no_usable_key_are_refused_by_what_is_wrong() {
        let random = SystemRandom::new();
        let private = SigningKey::generate(Algorithm::Es256, &random).unwrap();
        let public = key(Algorithm::Ed25519).public().to_pem();
        let other = to_pem("PRIVATE KEY", b"no key");
        let cases = [
            ("empty", String::new(), KeyError::NoPrivateKey),
            ("public", public.clone(), KeyError::NoPrivateKey),
            (
                "two",
                format!("{}{public}", *private),
                KeyError::SeveralKeys,
            ),
            ("damaged", other.clone(), KeyError::Unsupported),
            ("cut off", private[..80].to_owned(), KeyError::NotPem),
        ];
        for (name, pem, expected) in cases {
            let error = SigningKey::from_pem(pem.as_bytes(), &random).err();
            assert_eq!(error, Some(expected), "{name}");
        }
        let several = format!("{}{public}{public}", *private);
        let (keys, sensitivity) = PublicKey::all_from_pem(several.as_bytes(), &random).unwrap();
        assert_eq!((keys.len(), sensitivity), (3, Sensitivity::Private));
        for (pem, expected) in [("", KeyError::NoKey), (&other, KeyError::Unsupported)] {
            let error = PublicKey::all_from_pem(pem.as_bytes(), &random).err();
            assert_eq!(error, Some(expected));
        }
    }

    #[test]
    fn a_signature_is_of_one_message_and_one_key() {
        let random = SystemRandom::new();
        for algorithm in [Algorithm::Es256, Algorithm::Ed25519] {
            let (key, other) = (key(algorithm), key(algorithm));
            let signature = key.sign(b"a message", &random).unwrap();
            let signature = signature.as_ref();
            assert!(key.public().verifies(b"a message", signature));
            assert!(!key.public().verifies(b"another", signature));
            assert!(!other.public().verifies(b"a message", signature));
            assert!(!key.public().verifies(b"a message", &signature[1..]));
        }
    }

    #[test]
    fn debug_output_shows_no_private_key() {
        let key = key(Algorithm::Ed25519);
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey(redacted, {})", key.public().id())
        );
    }
}
