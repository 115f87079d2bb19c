//! Pure: what a store keeps outside the process, wholly or not at all.

use crate::clock::UnixSeconds;
use crate::session::{End, Session};
use crate::token::{TokenDigest, TokenId};

/// What becomes of tokens at one moment. Taken in the order of its fields.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The new one.
    pub(super) issued: Option<Issued>,
    /// The one whose place it takes, and until when both are good.
    pub(super) replaced: Option<(TokenId, UnixSeconds)>,
    /// One whose place nothing takes after all, and until when it is good.
    pub(super) restored: Option<(TokenId, UnixSeconds)>,
    /// Those that end earlier than they would have.
    pub(super) shortened: Vec<(TokenId, UnixSeconds)>,
    /// Those that are no more, and how they ended.
    pub(super) ended: Vec<(TokenId, End)>,
}

/// A new token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued {
    pub(super) digest: TokenDigest,
    pub(super) session: Session,
    /// The first of its lineage: itself, unless it takes the place of another.
    pub(super) first: TokenId,
}

impl Issued {
    /// One that a login led to.
    pub(super) fn first(digest: TokenDigest, session: Session) -> Self {
        Self {
            digest,
            session,
            first: digest.id(),
        }
    }
}

impl Change {
    /// That a token was issued, and nothing else.
    pub(super) fn issuing(digest: TokenDigest, session: Session) -> Self {
        Self {
            issued: Some(Issued::first(digest, session)),
            ..Self::default()
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            issued,
            replaced,
            restored,
            shortened,
            ended,
        } = self;
        issued.is_none()
            && replaced.is_none()
            && restored.is_none()
            && shortened.is_empty()
            && ended.is_empty()
    }
}
