//! Pure: the keys that sign identities, their public halves, and how both are written: PEM
//! (RFC 7468) in files, JSON (RFC 7517) for whoever verifies.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, Signature,
};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::pem::to_pem;

/// How identities are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4): what every platform can verify.
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

    /// What stands before the point in a SubjectPublicKeyInfo (RFC 5480, RFC 8410), and how long
    /// the point is.
    fn spki(self) -> (&'static [u8], usize) {
        match self {
            Self::Es256 => (&SPKI_P256, 65),
            Self::Ed25519 => (&SPKI_ED25519, 32),
        }
    }
}

/// Why something is no key that can be used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The PEM frame or its base64 is wrong.
    #[error("it is not PEM")]
    NotPem,
    /// A PEM file without a private key of the right form.
    #[error("it holds no private key in PKCS#8 (BEGIN PRIVATE KEY)")]
    NoPrivateKey,
    /// A PEM file without any key.
    #[error("it holds no key (BEGIN PUBLIC KEY)")]
    NoKey,
    /// Two keys where one is to sign.
    #[error("it holds more than one key, and only one can sign")]
    SeveralKeys,
    /// RSA, another curve, or damaged.
    #[error("its key is neither Ed25519 nor ECDSA on P-256")]
    Unsupported,
}

/// A private key. It is never shown: `Debug` gives the name of its public half.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads the only key of a PEM file.
    ///
    /// # Errors
    /// When there is none, or several, or one of another kind.
    pub fn from_pem(pem: &[u8], random: &SystemRandom) -> Result<Self, KeyError> {
        let mut keys = sections(pem)?.into_iter();
        match (keys.next(), keys.next()) {
            (Some(Section::Private(der)), None) => Self::from_pkcs8(&der, random),
            (Some(_), Some(_)) => Err(KeyError::SeveralKeys),
            (Some(Section::Public(_)) | None, _) => Err(KeyError::NoPrivateKey),
        }
    }

    fn from_pkcs8(der: &[u8], random: &SystemRandom) -> Result<Self, KeyError> {
        // Also without the public half, as other tools write Ed25519 keys.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public = PublicKey::new(Algorithm::Ed25519, pair.public_key().as_ref());
            let pair = Pair::Ed25519(pair);
            return Ok(Self { pair, public });
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, random)
            .map_err(|_| KeyError::Unsupported)?;
        let public = PublicKey::new(Algorithm::Es256, pair.public_key().as_ref());
        let pair = Pair::Es256(pair);
        Ok(Self { pair, public })
    }

    /// Makes a key, as the PEM text of a file that only its owner may read.
    ///
    /// # Errors
    /// When the operating system's random number generator fails.
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

    /// What verifies its signatures.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature in the form of RFC 7518: for ECDSA, the two numbers one after the other.
    pub(super) fn sign(
        &self,
        message: &[u8],
        random: &SystemRandom,
    ) -> Result<Signature, Unspecified> {
        match &self.pair {
            Pair::Es256(pair) => pair.sign(random, message),
            Pair::Ed25519(pair) => Ok(pair.sign(message)),
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
        // RFC 7638 section 3: the required members alone, by name, without a blank.
        let Jwk { crv, kty, x, y, .. } = key.jwk();
        let y = y.map_or(String::new(), |y| format!(r#","y":"{y}""#));
        let members = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"{y}}}"#);
        key.id = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        key
    }

    /// Reads all keys of a PEM file; of private ones, their public halves. Says also whether a
    /// private one was among them.
    ///
    /// # Errors
    /// When there is none, or one of another kind.
    pub fn all_from_pem(pem: &[u8], random: &SystemRandom) -> Result<(Vec<Self>, Holds), KeyError> {
        let mut holds = Holds::PublicKeys;
        let keys = sections(pem)?.into_iter().map(|section| match section {
            Section::Public(der) => Self::from_spki(&der),
            Section::Private(der) => {
                holds = Holds::PrivateKeys;
                SigningKey::from_pkcs8(&der, random).map(|key| key.public)
            }
        });
        let keys: Vec<Self> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(KeyError::NoKey);
        }
        Ok((keys, holds))
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

    /// As the PEM text of a file that anybody may read.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let (prefix, _) = self.algorithm.spki();
        to_pem("PUBLIC KEY", &[prefix, &self.point].concat())
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name: the thumbprint of RFC 7638.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
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

/// Whether a file may be read by everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Public keys alone.
    PublicKeys,
    /// At least one private key.
    PrivateKeys,
}

/// The key set of RFC 7517, in JSON.
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

enum Section {
    Public(Vec<u8>),
    Private(Zeroizing<Vec<u8>>),
}

/// The keys of a PEM file; whatever else it holds is passed over.
fn sections(pem: &[u8]) -> Result<Vec<Section>, KeyError> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| KeyError::NotPem)?;
        let der = Zeroizing::new(der);
        if kind == SectionKind::PrivateKey {
            keys.push(Section::Private(der));
        } else if kind == SectionKind::PublicKey {
            keys.push(Section::Public(der.to_vec()));
        }
    }
    Ok(keys)
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
            let (read, holds) = PublicKey::all_from_pem(pem.as_bytes(), &random).unwrap();
            assert_eq!(read, [key.public().clone()]);
            assert_eq!(holds, Holds::PublicKeys);
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
        let (keys, holds) = PublicKey::all_from_pem(several.as_bytes(), &random).unwrap();
        assert_eq!((keys.len(), holds), (3, Holds::PrivateKeys));
        for (pem, expected) in [("", KeyError::NoKey), (&other, KeyError::Unsupported)] {
            let error = PublicKey::all_from_pem(pem.as_bytes(), &random).err();
            assert_eq!(error, Some(expected));
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
