//! Pure: what a session remembers its account by.

/// Stands for an account's name: equal names have equal ids for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(u32);

impl AccountId {
    /// The id of that number: for stores that keep it, and for tests.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// The same number in bytes, to be part of what is authenticated.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    pub(crate) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("an account file is too small for 2^32 names"))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
