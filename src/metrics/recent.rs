//! The latest refusals of one worker, with the ids of their requests.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::labels::MethodLabel;
use crate::clock::UnixMillis;

/// A request that was refused, or would have been. Holds nothing that a client wrote but its method.
#[derive(Debug, Clone)]
pub struct RefusedRequest {
    /// When it began.
    pub at: UnixMillis,
    /// Its id.
    pub id: Box<str>,
    /// Whose it was.
    pub user: Option<Arc<str>>,
    /// Its route, if it has one.
    pub route: Option<Arc<str>>,
    /// Its method.
    pub method: MethodLabel,
    /// The status of its response, unless the client was gone.
    pub status: Option<u16>,
    /// Why.
    pub reason: &'static str,
    /// Whether it was refused, and not only reported.
    pub enforced: bool,
    /// Where it came from.
    pub source: IpAddr,
}

/// The latest refusals, those of users apart, so that strangers cannot crowd them out.
#[derive(Debug, Default)]
pub struct RecentRefusals {
    users: Mutex<VecDeque<RefusedRequest>>,
    strangers: Mutex<VecDeque<RefusedRequest>>,
}

impl RecentRefusals {
    /// Adds one; the oldest of its kind makes room for it.
    pub fn add(&self, request: RefusedRequest) {
        let kept = match request.user {
            Some(_) => &self.users,
            None => &self.strangers,
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back(request);
    }

    /// Shows each to `seen`, in no order.
    pub fn each(&self, mut seen: impl FnMut(&RefusedRequest)) {
        for kept in [&self.users, &self.strangers] {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().for_each(&mut seen);
        }
    }
}

/// How many of a kind a worker keeps: some 100 KiB.
const MOST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_crowd_out_users() {
        let recent = RecentRefusals::default();
        let refused = |number: usize, user: Option<&str>| RefusedRequest {
            at: UnixMillis::EPOCH,
            id: number.to_string().into(),
            user: user.map(Arc::from),
            route: None,
            method: MethodLabel::Post,
            status: Some(401),
            reason: "token_unknown",
            enforced: true,
            source: [192, 0, 2, 1].into(),
        };
        recent.add(refused(0, Some("till-01")));
        for number in 1..=MOST + 10 {
            recent.add(refused(number, None));
        }
        let mut ids = Vec::new();
        recent.each(|it| ids.push(it.id.parse::<usize>().unwrap()));
        let expected: Vec<_> = [0].into_iter().chain(11..=MOST + 10).collect();
        assert_eq!(ids, expected);
    }
}
