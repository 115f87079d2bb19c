//! Password hashes: creating, validating and verifying them.

use std::fmt;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use super::Password;

/// A password hash that is safe to verify: argon2id with bounded cost.
///
/// The stored hash determines the cost of verifying it, so the cost is bounded here, once.
#[derive(Clone)]
pub struct PasswordHash {
    params: Params,
    salt: phc::Salt,
    tag: phc::Output,
}

impl PasswordHash {
    /// Parses a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<tag>`.
    ///
    /// # Errors
    /// If the string is malformed, of another algorithm or version, or too costly.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let stored = phc::PasswordHash::new(text).map_err(|_| PasswordHashError::Malformed)?;
        if stored.algorithm != argon2::ARGON2ID_IDENT {
            return Err(PasswordHashError::Algorithm(stored.algorithm.to_string()));
        }
        if stored.version != Some(Version::V0x13.into()) {
            return Err(PasswordHashError::Version);
        }
        let (Some(salt), Some(tag)) = (stored.salt, stored.hash) else {
            return Err(PasswordHashError::Malformed);
        };
        if tag.len() < MIN_TAG {
            return Err(PasswordHashError::ShortTag);
        }
        let params = Params::try_from(&stored).map_err(|_| PasswordHashError::Parameters)?;
        if !params.keyid().is_empty() || !params.data().is_empty() {
            return Err(PasswordHashError::Parameters);
        }
        for (name, value, cap) in [
            ("m", params.m_cost(), MAX_MEMORY_KIB),
            ("t", params.t_cost(), MAX_PASSES),
            ("p", params.p_cost(), MAX_LANES),
        ] {
            if value > cap {
                return Err(PasswordHashError::TooCostly { name, value, cap });
            }
        }
        Ok(Self { params, salt, tag })
    }

    /// Whether verifying costs as much as for an unknown user, so that timing reveals nothing.
    #[must_use]
    pub fn has_standard_cost(&self) -> bool {
        let (ours, standard) = (&self.params, standard_params());
        (ours.m_cost(), ours.t_cost(), ours.p_cost())
            == (standard.m_cost(), standard.t_cost(), standard.p_cost())
    }

    /// The work to verify it, in memory times passes, as a multiple of a standard hash, rounded up.
    pub(crate) fn relative_cost(&self) -> u32 {
        let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
        let times = work(&self.params).div_ceil(work(&standard_params()));
        u32::try_from(times).unwrap_or(u32::MAX)
    }

    /// Verifies a password using `memory`, which grows to what this hash needs. It is not wiped: its next use
    /// overwrites it, and recovering the password from it is no easier than from the stored hash.
    pub(crate) fn verify(
        &self,
        password: &Password,
        memory: &mut Vec<Block>,
    ) -> Result<bool, argon2::Error> {
        let needed = self.params.block_count();
        if memory.len() < needed {
            memory.resize(needed, Block::new());
        }
        let mut bytes = [0; phc::Output::MAX_LENGTH];
        let computed = &mut bytes[..self.tag.len()];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
            .hash_password_into_with_memory(
                password.expose(),
                &self.salt,
                computed,
                memory.as_mut_slice(),
            )?;
        // `Output` is compared in constant time.
        Ok(phc::Output::new(computed).is_ok_and(|computed| computed == self.tag))
    }

    /// The hash that passwords of unknown users are verified against. No password is known to match it, and
    /// the response does not depend on the result.
    pub(crate) fn decoy() -> Self {
        let salt = phc::Salt::new(&[0x5a; SALT_LENGTH]).expect("16 bytes are a salt");
        let tag = phc::Output::new(&[0xa5; TAG_LENGTH]).expect("32 bytes are a tag");
        let params = standard_params();
        Self { params, salt, tag }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash")
            .field("m", &self.params.m_cost())
            .field("t", &self.params.t_cost())
            .field("p", &self.params.p_cost())
            .finish_non_exhaustive()
    }
}

/// Why a password hash cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PasswordHashError {
    /// Not a PHC string with salt and tag.
    #[error("not a password hash; make one with `syncgate hash`")]
    Malformed,
    /// An algorithm other than argon2id.
    #[error(
        "password hashes of `{0}` cannot be used, only argon2id; make one with `syncgate hash`"
    )]
    Algorithm(String),
    /// A version other than 19 (0x13), or none.
    #[error("the hash must say `v=19`, the current version of argon2id")]
    Version,
    /// Parameters that are unknown, out of range or inconsistent.
    #[error(
        "the parameters of the hash are not those of argon2id: m, t and p, m at least 8 times p"
    )]
    Parameters,
    /// A tag too short to be safe.
    #[error("the hash is shorter than {MIN_TAG} bytes")]
    ShortTag,
    /// One login would take too much memory or time.
    #[error("the hash costs too much to verify: {name}={value}, at most {name}={cap} is allowed")]
    TooCostly {
        /// The name of the parameter.
        name: &'static str,
        /// Its value in the hash.
        value: u32,
        /// The maximum.
        cap: u32,
    },
}

/// The operating system provided no random bytes or no memory.
#[derive(Debug, Error)]
#[error("the password could not be hashed: the system provided no random numbers or no memory")]
pub struct HashingFailed;

/// Hashes a password for storage, as a PHC string with a new salt.
///
/// # Errors
/// If the system provides no random numbers or no memory.
pub fn hash_password(password: &Password) -> Result<String, HashingFailed> {
    let mut salt = [0; SALT_LENGTH];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| HashingFailed)?;
    let mut tag = [0; TAG_LENGTH];
    let params = standard_params();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into(password.expose(), &salt, &mut tag)
        .map_err(|_| HashingFailed)?;
    let stored = phc::PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: phc::ParamsString::try_from(&params).map_err(|_| HashingFailed)?,
        salt: Some(phc::Salt::new(&salt).map_err(|_| HashingFailed)?),
        hash: Some(phc::Output::new(&tag).map_err(|_| HashingFailed)?),
    };
    Ok(stored.to_string())
}

/// OWASP's first recommendation for argon2id: 19 MiB, 2 passes, 1 lane.
fn standard_params() -> Params {
    Params::new(19_456, 2, 1, Some(TAG_LENGTH)).expect("the standard parameters are in range")
}

const SALT_LENGTH: usize = 16;
const TAG_LENGTH: usize = 32;
const MIN_TAG: usize = 16;
const MAX_MEMORY_KIB: u32 = 65_536;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test suite of the reference implementation.
    const REFERENCE: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                             $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn refuses_hashes_that_are_weak_foreign_or_costly() {
        use PasswordHashError as E;
        let costly = |name, value, cap| E::TooCostly { name, value, cap };
        let tail = "c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let cases = [
            ("", E::Malformed),
            ("secret", E::Malformed),
            ("$argon2id$v=19$m=19456,t=2,p=1", E::Malformed),
            (
                "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
                E::Malformed,
            ),
            (
                &format!("$argon2i$v=19$m=19456,t=2,p=1${tail}"),
                E::Algorithm("argon2i".into()),
            ),
            (
                &format!("$argon2id$v=16$m=19456,t=2,p=1${tail}"),
                E::Version,
            ),
            (&format!("$argon2id$m=19456,t=2,p=1${tail}"), E::Version),
            (&format!("$argon2id$v=19$m=7,t=2,p=1${tail}"), E::Parameters),
            (
                &format!("$argon2id$v=19$m=19456,t=0,p=1${tail}"),
                E::Parameters,
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=2,p=1,x=1${tail}"),
                E::Parameters,
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=2,p=1,keyid=YQ${tail}"),
                E::Parameters,
            ),
            (
                "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6M",
                E::ShortTag,
            ),
            (
                &format!("$argon2id$v=19$m=65537,t=2,p=1${tail}"),
                costly("m", 65_537, 65_536),
            ),
            (
                &format!("$argon2id$v=19$m=4294967295,t=2,p=1${tail}"),
                costly("m", u32::MAX, 65_536),
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=11,p=1${tail}"),
                costly("t", 11, 10),
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=2,p=5${tail}"),
                costly("p", 5, 4),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(PasswordHash::parse(text).map(drop), Err(expected), "{text}");
        }
        assert!(PasswordHash::parse(&format!("$argon2id$v=19$m=65536,t=10,p=4${tail}")).is_ok());
    }

    #[test]
    fn debug_shows_the_cost_and_not_the_hash() {
        let shown = format!(
            "{:?}",
            PasswordHash::parse(REFERENCE).expect("a usable hash")
        );
        assert!(shown.contains("65536") && !shown.contains("CTFh") && !shown.contains("c29t"));
    }
}
