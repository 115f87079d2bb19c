//! Pure: the claims of a signed identity and their encoding as a compact JWS (RFC 7515) with a JWT
//! (RFC 7519) as its payload.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use serde::Serialize;

use super::key::SigningKey;

/// The claims about one request.
#[derive(Debug, Serialize)]
pub(super) struct Claims<'a> {
    /// The issuer.
    pub(super) iss: &'a str,
    /// The user.
    pub(super) sub: &'a str,
    /// The audience.
    pub(super) aud: &'a str,
    /// The route's path, as configured.
    pub(super) route: &'a str,
    /// The form in the body; absent if the body was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) form: Option<&'a str>,
    /// The request's id.
    pub(super) jti: &'a str,
    /// The time of issue, in seconds since 1970.
    pub(super) iat: i64,
    /// The expiry, in seconds since 1970.
    pub(super) exp: i64,
}

/// A key and the JWS header of what it signs.
#[derive(Debug)]
pub(super) struct Signer {
    key: SigningKey,
    /// Encoded, including the dot after it.
    header: String,
}

impl Signer {
    pub(super) fn new(key: SigningKey) -> Self {
        let public = key.public();
        let header = Header {
            alg: public.algorithm().name(),
            typ: "JWT",
            kid: public.id(),
        };
        let mut header = encode_json(String::new(), &header);
        header.push('.');
        Self { key, header }
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Encodes and signs the claims.
    pub(super) fn sign(
        &self,
        claims: &Claims<'_>,
        random: &SystemRandom,
    ) -> Result<String, Unspecified> {
        let mut text = String::with_capacity(TYPICAL);
        text.push_str(&self.header);
        let mut text = encode_json(text, claims);
        let signature = self.key.sign(text.as_bytes(), random)?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut text);
        Ok(text)
    }
}

fn encode_json(mut text: String, value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).expect("structs of strings and numbers always serialize");
    URL_SAFE_NO_PAD.encode_string(json, &mut text);
    text
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

/// The capacity that fits nearly every signed identity.
const TYPICAL: usize = 640;

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

    use super::super::key::Algorithm;
    use super::*;

    #[test]
    fn what_is_said_is_signed_as_the_header_says() {
        let random = SystemRandom::new();
        for algorithm in [Algorithm::Es256, Algorithm::Ed25519] {
            let pem = SigningKey::generate(algorithm, &random).unwrap();
            let signer = Signer::new(SigningKey::from_pem(pem.as_bytes(), &random).unwrap());
            let claims = Claims {
                iss: "gate",
                sub: "till-01",
                aud: "erp",
                route: "/api/SyncData",
                form: Some("set\"Kunde\u{e9}"),
                jti: "the-id",
                iat: 1000,
                exp: 1030,
            };
            let jws = signer.sign(&claims, &random).unwrap();
            let (signed, signature) = jws.rsplit_once('.').unwrap();
            let (header, payload) = signed.split_once('.').unwrap();
            let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
            let public = signer.key().public();
            let alg = match algorithm {
                Algorithm::Es256 => "ES256",
                Algorithm::Ed25519 => "EdDSA",
            };
            assert_eq!(
                String::from_utf8(decode(header)).unwrap(),
                format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"{}"}}"#, public.id())
            );
            assert_eq!(
                String::from_utf8(decode(payload)).unwrap(),
                r#"{"iss":"gate","sub":"till-01","aud":"erp","route":"/api/SyncData","form":"set\"Kundeé","jti":"the-id","iat":1000,"exp":1030}"#
            );
            let (set, form): (serde_json::Value, _) = (
                serde_json::from_slice(&super::super::key::key_set(std::slice::from_ref(public)))
                    .unwrap(),
                &ECDSA_P256_SHA256_FIXED,
            );
            let coordinate = |name: &str| decode(set["keys"][0][name].as_str().unwrap());
            let verified = match algorithm {
                Algorithm::Es256 => {
                    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
                    UnparsedPublicKey::new(form, point)
                        .verify(signed.as_bytes(), &decode(signature))
                }
                Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, coordinate("x"))
                    .verify(signed.as_bytes(), &decode(signature)),
            };
            assert!(verified.is_ok(), "{alg}");
        }
    }
}
