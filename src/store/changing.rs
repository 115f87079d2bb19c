//! Issuing, renewing and ending tokens, in whatever store.
//!
//! What a backing keeps, it keeps before it is reported as done. The map in memory is changed first:
//! a token that could not be kept is taken out of it again before anybody is told of it, and a
//! revocation holds in memory from the moment it was asked for.

use super::change::Change;
use super::live::LiveTokens;
use super::{Backing, Selection, StoreError, TokenStore};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::session::{End, Session};
use crate::token::{TokenDigest, TokenId};

impl TokenStore {
    /// Keeps the session of a token that is about to be told to its client. Once this has returned,
    /// the token is good; a call that is cancelled leaves none, or one that nobody knows.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::UserFull`] when as many tokens are kept as the
    /// configuration allows; [`StoreError::Unavailable`] when it cannot be kept.
    pub async fn issue(
        &self,
        digest: TokenDigest,
        session: Session,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        #[cfg(feature = "shared")]
        if let Backing::Shared(shared) = &self.backing {
            let change = Change {
                issued: Some((digest, session)),
                ..Change::default()
            };
            return shared.commit(change, now).await;
        }
        self.can_keep()?;
        let gone = self.live.issue(digest, session, now)?;
        self.keep_issued(Change {
            issued: Some((digest, session)),
            shortened: None,
            ended: gone.into_iter().map(|id| (id, End::Displaced)).collect(),
        })
        .await
    }

    /// Keeps the session of a token that is about to take the place of `old`, which is good until
    /// `until` at the longest, and not even so long where there is no room for both.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the old token has ended in the meantime;
    /// [`StoreError::Unavailable`] when the new one cannot be kept.
    pub async fn renew(
        &self,
        old: TokenId,
        digest: TokenDigest,
        session: Session,
        until: UnixSeconds,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        #[cfg(feature = "shared")]
        if let Backing::Shared(shared) = &self.backing {
            let change = Change {
                issued: Some((digest, session)),
                shortened: Some((old, until)),
                ..Change::default()
            };
            return shared.commit(change, now).await;
        }
        self.can_keep()?;
        let left = self.live.replace(old, digest, session, until, now)?;
        let (shortened, ended) = match left {
            Some(left) => (Some((old, left.expires())), Vec::new()),
            None => (None, vec![(old, End::Expired)]),
        };
        self.keep_issued(Change {
            issued: Some((digest, session)),
            shortened,
            ended,
        })
        .await
    }

    /// Ends the selected tokens and returns how many they were. Once this has returned, none of them
    /// is good; those issued in the meantime may be. A call that is cancelled may have ended some.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be kept: the tokens are ended in this process, and
    /// outside of it as soon as that is possible again.
    pub async fn end(
        &self,
        selection: &Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<usize, StoreError> {
        #[cfg(feature = "shared")]
        if let Backing::Shared(shared) = &self.backing {
            return shared.end(*selection, end, now).await;
        }
        let (mut count, mut kept) = (0, Ok(()));
        loop {
            let mut ended = self.live.selected(selection, BATCH);
            let found = ended.len();
            ended.retain(|id| self.live.end(*id, end, now).is_some());
            count += ended.len();
            let change = Change {
                ended: ended.into_iter().map(|id| (id, end)).collect(),
                ..Change::default()
            };
            kept = kept.and(self.keep(change).await);
            if found < BATCH {
                return kept.map(|()| count);
            }
        }
    }

    /// Refuses before anything is changed when it is known that nothing can be kept.
    pub(super) fn can_keep(&self) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory => Ok(()),
            #[cfg(feature = "durable")]
            Backing::Durable(journal) => journal.can_keep(),
            #[cfg(feature = "shared")]
            Backing::Shared(_) => Ok(()),
        }
    }

    /// Keeps a change with a new token in it, which is taken out of the map again unless it is kept.
    async fn keep_issued(&self, change: Change) -> Result<(), StoreError> {
        let unkept = change.issued.map(|(digest, _)| Unkept {
            live: &self.live,
            id: digest.id(),
        });
        self.keep(change).await?;
        // Kept: nothing is to be taken out.
        std::mem::forget(unkept);
        Ok(())
    }

    /// Returns once the change is kept, wholly. When it fails, what has ended is ended as soon as
    /// anything can be kept again, and what was issued never becomes good.
    async fn keep(&self, change: Change) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory => {
                drop(change);
                Ok(())
            }
            #[cfg(feature = "durable")]
            Backing::Durable(journal) => journal.commit(change).await,
            // A server has its changes before the map does.
            #[cfg(feature = "shared")]
            Backing::Shared(_) => {
                drop(change);
                Ok(())
            }
        }
    }
}

/// A token in the map that is not kept yet. Taken out when it is dropped, also when whoever waited
/// for it gave up.
struct Unkept<'a> {
    live: &'a LiveTokens,
    id: TokenId,
}

impl Drop for Unkept<'_> {
    fn drop(&mut self) {
        self.live.forget(self.id);
    }
}

/// Tokens that are ended at once.
const BATCH: usize = 65_536;
