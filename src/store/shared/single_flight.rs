//! Concurrent look-ups of one token share one query: the first caller makes it, the others wait for its
//! result. However it ends, nobody is left waiting.

use std::cell::RefCell;
use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::session::{Absent, Session};
use crate::store::StoreError;
use crate::token::TokenDigest;

/// The result of a look-up.
pub(super) type LookUp = Result<Result<Session, Absent>, StoreError>;
/// A caller that waits for it.
pub(super) type Waiter = oneshot::Sender<LookUp>;

/// The look-ups in flight.
#[derive(Default)]
pub(super) struct SingleFlight(RefCell<HashMap<[u8; 32], Vec<Waiter>>>);

/// The caller that makes the query. If it is dropped without a result, the waiting callers learn that there
/// is none, and the next one asks again.
pub(super) struct Leader<'a> {
    flights: &'a SingleFlight,
    key: [u8; 32],
}

impl SingleFlight {
    /// Joins the look-up of a token. Whoever becomes the leader has to make the query.
    pub(super) fn join(&self, digest: TokenDigest, reply: Waiter) -> Option<Leader<'_>> {
        let key = digest.to_bytes();
        let mut flights = self.0.borrow_mut();
        let waiting = flights.entry(key).or_default();
        waiting.push(reply);
        (waiting.len() == 1).then(|| Leader { flights: self, key })
    }
}

impl Leader<'_> {
    /// Passes the result to all callers.
    pub(super) fn answer(self, answer: LookUp) {
        for reply in self.take_waiting() {
            // Whoever is gone needs no reply.
            let _ = reply.send(answer);
        }
    }

    fn take_waiting(&self) -> Vec<Waiter> {
        let waiting = self.flights.0.borrow_mut().remove(&self.key);
        waiting.unwrap_or_default()
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        drop(self.take_waiting());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::token::IssuedToken;

    fn some_digest() -> TokenDigest {
        let random = ring::rand::SystemRandom::new();
        IssuedToken::generate(&random).expect("a token").digest()
    }

    #[test]
    fn one_asks_and_all_who_wait_are_told() {
        let (flights, digest) = (SingleFlight::default(), some_digest());
        let (first, mut told_first) = oneshot::channel();
        let (second, mut told_second) = oneshot::channel();
        let lead = flights.join(digest, first).expect("nobody else asks");
        assert!(flights.join(digest, second).is_none());
        let (other, _) = oneshot::channel();
        assert!(flights.join(some_digest(), other).is_some());
        lead.answer(Ok(Err(Absent::Unknown)));
        for told in [&mut told_first, &mut told_second] {
            assert!(matches!(told.try_recv(), Ok(Ok(Err(Absent::Unknown)))));
        }
        assert!(flights.0.borrow().is_empty());
    }

    // A panic while the server was asked left the token to those who wait for an answer for ever.
    #[test]
    fn after_a_panic_the_next_one_asks_again() {
        let (flights, digest) = (SingleFlight::default(), some_digest());
        let (first, _) = oneshot::channel();
        let (second, mut told) = oneshot::channel();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _lead = flights.join(digest, first).expect("nobody else asks");
            assert!(flights.join(digest, second).is_none());
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        let closed = Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(told.try_recv().map(|_| ()), closed, "it need not wait on");
        let (next, _) = oneshot::channel();
        assert!(flights.join(digest, next).is_some());
    }
}
