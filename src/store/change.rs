//! Pure: a change that a store persists as a whole or not at all.

use crate::clock::UnixSeconds;
use crate::session::{End, Session};
use crate::token::{TokenDigest, TokenId};

/// A change of tokens at one moment. Applied in the order of its fields.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The new token.
    pub(super) issued: Option<Issued>,
    /// The token that it replaces, and until when both are good.
    pub(super) replaced: Option<(TokenId, UnixSeconds)>,
    /// A token that is not replaced after all, and until when it is good.
    pub(super) restored: Option<(TokenId, UnixSeconds)>,
    /// Tokens that end earlier than they would have.
    pub(super) shortened: Vec<(TokenId, UnixSeconds)>,
    /// Tokens that have ended, and how.
    pub(super) ended: Vec<(TokenId, End)>,
    /// Those of them that were evicted for the new one. Nothing more is to be done with these.
    pub(super) evicted: Vec<TokenId>,
}

/// A new token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued {
    pub(super) digest: TokenDigest,
    pub(super) session: Session,
    /// The first of its lineage: itself, unless it is a renewal.
    pub(super) first: TokenId,
}

impl Issued {
    /// A token from a login.
    pub(super) fn first(digest: TokenDigest, session: Session) -> Self {
        Self {
            digest,
            session,
            first: digest.id(),
        }
    }
}

impl Change {
    /// The issue of a token, and nothing else.
    pub(super) fn issuing(digest: TokenDigest, session: Session) -> Self {
        Self {
            issued: Some(Issued::first(digest, session)),
            ..Self::default()
        }
    }

    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            issued,
            replaced,
            restored,
            shortened,
            ended,
            evicted: _,
        } = self;
        issued.is_none()
            && replaced.is_none()
            && restored.is_none()
            && shortened.is_empty()
            && ended.is_empty()
    }
}
