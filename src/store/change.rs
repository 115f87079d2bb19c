//! Pure: what a store keeps outside the process, wholly or not at all.

use crate::clock::UnixSeconds;
use crate::session::{End, Session};
use crate::token::{TokenDigest, TokenId};

/// What becomes of tokens at one moment.
#[derive(Debug, Default)]
#[cfg_attr(
    not(any(feature = "durable", feature = "shared")),
    expect(dead_code, reason = "memory alone keeps no changes")
)]
pub(super) struct Change {
    /// The new one.
    pub(super) issued: Option<(TokenDigest, Session)>,
    /// One that ends earlier than it would have.
    pub(super) shortened: Option<(TokenId, UnixSeconds)>,
    /// Those that are no more, and how they ended.
    pub(super) ended: Vec<(TokenId, End)>,
}
