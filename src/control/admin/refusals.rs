//! Pure: the latest requests that were refused, with their ids.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::parameters::{Parameters, limit};
use crate::gateway::reply::Reply;
use crate::metrics::{Metrics, RefusedRequest};

/// Which refusals.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefusalsQuery {
    user: Option<String>,
    route: Option<String>,
    reason: Option<String>,
    id: Option<String>,
    limit: usize,
}

impl RefusalsQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let unknown = "the parameters here are user, route, reason, id and limit";
        let known = ["user", "route", "reason", "id", "limit"];
        let mut given = Parameters::parse(query, &known, unknown)?;
        Ok(Self {
            user: given.take("user"),
            route: given.take("route"),
            reason: given.take("reason"),
            id: given.take("id"),
            limit: limit(given.take("limit"))?,
        })
    }

    fn matches(&self, request: &RefusedRequest) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|name| found == Some(name))
        };
        is(&self.user, request.user.as_deref())
            && is(&self.route, request.route.as_deref())
            && is(&self.reason, Some(request.reason))
            && is(&self.id, Some(&request.id))
    }
}

/// The latest of those that a query is about, and how many of all that are kept have which reason.
pub(super) fn list(metrics: &Metrics, query: &RefusalsQuery) -> Reply {
    let (mut found, mut reasons) = (Vec::new(), BTreeMap::new());
    for worker in metrics.workers() {
        worker.refused.each(|request| {
            *reasons.entry(request.reason).or_default() += 1;
            if query.matches(request) {
                found.push(request.clone());
            }
        });
    }
    found.sort_by_key(|request| Reverse(request.at));
    found.truncate(query.limit);
    Reply::document(&List {
        refusals: found.iter().map(Shown::of).collect(),
        reasons,
    })
}

#[derive(Serialize)]
struct List<'a> {
    refusals: Vec<Shown<'a>>,
    reasons: BTreeMap<&'a str, usize>,
}

#[derive(Serialize)]
struct Shown<'a> {
    at: String,
    id: &'a str,
    user: Option<&'a str>,
    route: Option<&'a str>,
    method: &'static str,
    status: Option<u16>,
    reason: &'static str,
    enforced: bool,
    source: String,
}

impl<'a> Shown<'a> {
    fn of(request: &'a RefusedRequest) -> Self {
        Self {
            at: request.at.timestamp().to_string(),
            id: &request.id,
            user: request.user.as_deref(),
            route: request.route.as_deref(),
            method: request.method.name(),
            status: request.status,
            reason: request.reason,
            enforced: request.enforced,
            source: request.source.to_string(),
        }
    }
}
