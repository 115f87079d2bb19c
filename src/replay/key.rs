//! Pure: what a request is remembered by, whose the claim on it is, and what tells it from another with the same key.

/// What a request is remembered by: its user, and a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplayKey {
    user: [u8; 16],
    request: [u8; 32],
}

/// A number that one claim has and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Tells a request from others with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl ReplayKey {
    /// How long it is in bytes.
    pub const LENGTH: usize = 48;

    pub(super) fn new(user: [u8; 16], request: [u8; 32]) -> Self {
        Self { user, request }
    }

    /// What stands for its user.
    #[must_use]
    pub fn user(&self) -> [u8; 16] {
        self.user
    }

    /// What stands for the request.
    #[must_use]
    pub fn request(&self) -> [u8; 32] {
        self.request
    }

    /// Both.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(&self.user);
        bytes[16..].copy_from_slice(&self.request);
        bytes
    }

    /// What [`ReplayKey::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        let (mut user, mut request) = ([0; 16], [0; 32]);
        user.copy_from_slice(&bytes[..16]);
        request.copy_from_slice(&bytes[16..]);
        Self { user, request }
    }
}

impl Fingerprint {
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
