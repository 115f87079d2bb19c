//! Pure: an entry as a file has it: a byte for the layout, fixed fields (numbers big-endian) and the sealed answer.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::{Entry, State};
use crate::clock::UnixMillis;
use crate::replay::{Fingerprint, Owner};

impl Entry {
    /// The entry for a file, with the moment at which it is forgotten.
    #[must_use]
    pub fn to_bytes(&self, until: UnixMillis) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(&until.as_u64().to_be_bytes());
        bytes.extend_from_slice(&self.owner.0.to_be_bytes());
        match &self.fingerprint {
            Some(fingerprint) => {
                bytes.push(1);
                bytes.extend_from_slice(fingerprint.as_bytes());
            }
            None => bytes.push(0),
        }
        match &self.state {
            State::InFlight { .. } => bytes.push(IN_FLIGHT),
            State::Unknown => bytes.push(UNKNOWN),
            State::Answered { status, sealed } => {
                bytes.push(match sealed {
                    Some(_) => STORED,
                    None => ANSWERED,
                });
                bytes.extend_from_slice(&status.as_u16().to_be_bytes());
                bytes.extend_from_slice(sealed.as_deref().unwrap_or_default());
            }
        }
        bytes
    }

    /// What [`Entry::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<(Self, UnixMillis)> {
        let (&[LAYOUT], bytes) = bytes.split_first_chunk::<1>()? else {
            return None;
        };
        let (until, bytes) = bytes.split_first_chunk::<8>()?;
        let (owner, bytes) = bytes.split_first_chunk::<8>()?;
        let (fingerprint, bytes) = match bytes.split_first()? {
            (0, bytes) => (None, bytes),
            (1, bytes) => {
                let (fingerprint, bytes) = bytes.split_first_chunk::<32>()?;
                (Some(Fingerprint::from_bytes(*fingerprint)), bytes)
            }
            _ => return None,
        };
        let state = match bytes.split_first()? {
            (&IN_FLIGHT, []) => State::InFlight { lease: None },
            (&UNKNOWN, []) => State::Unknown,
            (&kind @ (ANSWERED | STORED), bytes) => {
                let (status, sealed) = bytes.split_first_chunk::<2>()?;
                let sealed = (kind == STORED).then(|| Bytes::copy_from_slice(sealed));
                State::Answered {
                    status: StatusCode::from_u16(u16::from_be_bytes(*status)).ok()?,
                    sealed,
                }
            }
            _ => return None,
        };
        let owner = Owner(u64::from_be_bytes(*owner));
        let until = UnixMillis::EPOCH.plus(Duration::from_millis(u64::from_be_bytes(*until)));
        let entry = Self {
            owner,
            fingerprint,
            state,
        };
        Some((entry, until))
    }
}

const LAYOUT: u8 = 1;
const IN_FLIGHT: u8 = 0;
const UNKNOWN: u8 = 1;
const ANSWERED: u8 = 2;
const STORED: u8 = 3;
