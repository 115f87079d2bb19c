//! Pure: the id of an account in sessions.

/// Identifies an account by its name: equal names have equal ids for the lifetime of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(u32);

impl AccountId {
    /// The id with this number: for stores and tests.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as bytes, to be authenticated along with other data.
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
