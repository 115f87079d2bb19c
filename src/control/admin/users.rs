//! Users: how much each did since the process started, and what one of them may do. Goes through every account;
//! runs on the admin thread alone.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::parameters::{Parameters, limit};
use crate::accounts::Account;
use crate::clock::UnixMillis;
use crate::gateway::Shared;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::metrics::{Metrics, UserMetrics};
use crate::policy::rights::{Decision, Mode};

/// Which users, and in which order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UsersQuery {
    /// Only those with this in their name or in that of a role, ignoring case.
    search: String,
    sort: Sort,
    limit: usize,
}

/// What users are sorted by: by name from A on, by anything else from the most down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Name,
    Last,
    Requests,
    Bytes,
    Errors,
    Reported,
    FailedLogins,
    Tokens,
}

impl UsersQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let unknown = "the parameters here are search, sort and limit";
        let mut given = Parameters::parse(query, &["search", "sort", "limit"], unknown)?;
        let sort = match given.take("sort").as_deref() {
            None | Some("name") => Sort::Name,
            Some("last") => Sort::Last,
            Some("requests") => Sort::Requests,
            Some("bytes") => Sort::Bytes,
            Some("errors") => Sort::Errors,
            Some("reported") => Sort::Reported,
            Some("failed_logins") => Sort::FailedLogins,
            Some("tokens") => Sort::Tokens,
            Some(_) => {
                return Err(
                    "sort is name, last, requests, bytes, errors, reported, failed_logins or tokens",
                );
            }
        };
        Ok(Self {
            search: given.take("search").unwrap_or_default().to_lowercase(),
            sort,
            limit: limit(given.take("limit"))?,
        })
    }

    fn matches(&self, account: &Account) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.search);
        self.search.is_empty()
            || has(account.name())
            || account.roles().iter().any(|role| has(role))
    }
}

/// The first users of those that a query is about.
pub(super) fn list(shared: &Shared, query: &UsersQuery) -> Reply {
    let table = shared.accounts.table();
    let used = Used::by_name(&shared.metrics);
    let matching = table.accounts().filter(|account| query.matches(account));
    let mut users: Vec<_> = matching
        .map(|account| {
            let used = used.get(account.name()).copied().unwrap_or_default();
            (account, used, shared.tokens.held_by(account.id()))
        })
        .collect();
    let total = users.len();
    let rank = |(_, used, tokens): &(&Arc<Account>, Used, Option<usize>)| match query.sort {
        Sort::Name => (0, 0),
        Sort::Last => (used.last, 0),
        Sort::Requests => (used.requests, 0),
        Sort::Bytes => (used.bytes_in.saturating_add(used.bytes_out), 0),
        Sort::Errors => (used.error_share(), used.errors),
        Sort::Reported => (used.reported, 0),
        Sort::FailedLogins => (used.failed_logins, 0),
        Sort::Tokens => (tokens.unwrap_or_default() as u64, 0),
    };
    let order = |a: &_, b: &_| -> Ordering {
        let by_rank = Reverse(rank(a)).cmp(&Reverse(rank(b)));
        by_rank.then_with(|| a.0.name().cmp(b.0.name()))
    };
    users.sort_unstable_by(order);
    users.truncate(query.limit);
    let shown = users.iter();
    Reply::document(&List {
        accounts: table.len(),
        total,
        users: shown
            .map(|(account, used, tokens)| Shown::of(account, *used, *tokens))
            .collect(),
    })
}

/// The account that a query names.
///
/// # Errors
/// When it names none, or one that does not exist.
pub(super) fn named(shared: &Shared, query: &str) -> Result<Arc<Account>, Refusal> {
    let unknown = "the parameter here is name";
    let given = Parameters::parse(query, &["name"], unknown);
    let name = given.map_err(Refusal::AdminMalformed)?.take("name");
    let name = name.ok_or(Refusal::AdminMalformed(unknown))?;
    shared.accounts.find(&name).ok_or(Refusal::NotFound)
}

/// One user, with the rights as they are decided.
pub(super) fn show(shared: &Shared, account: &Account) -> Reply {
    let used = Used::by_name(&shared.metrics);
    let used = used.get(account.name()).copied().unwrap_or_default();
    let routes = shared.routes.forwarded().map(|route| Decided {
        route: route.name().to_string(),
        methods: (route.methods().iter())
            .map(|method| DecidedMethod::of(method, account.rights().decide(route.index(), method)))
            .collect(),
    });
    Reply::document(&One {
        user: Shown::of(account, used, shared.tokens.held_by(account.id())),
        limits: account.admission().to_string(),
        rights: routes.collect(),
    })
}

/// What a user did, in all workers.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    requests: u64,
    errors: u64,
    reported: u64,
    failed_logins: u64,
    bytes_in: u64,
    bytes_out: u64,
    last: u64,
}

impl Used {
    fn by_name(metrics: &Metrics) -> HashMap<Arc<str>, Self> {
        let mut all = HashMap::<_, Self>::new();
        for (name, counts) in metrics
            .workers()
            .iter()
            .flat_map(|worker| worker.users.all())
        {
            all.entry(name).or_default().add(&counts);
        }
        all
    }

    fn add(&mut self, counts: &UserMetrics) {
        self.requests += counts.requests.get();
        self.errors += counts.errors.get();
        self.reported += counts.reported.get();
        self.failed_logins += counts.failed_logins.get();
        self.bytes_in += counts.bytes_in.get();
        self.bytes_out += counts.bytes_out.get();
        self.last = self.last.max(counts.last.get());
    }

    /// In millionths.
    fn error_share(&self) -> u64 {
        let share = self.errors.saturating_mul(1_000_000);
        share.checked_div(self.requests).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct List {
    accounts: usize,
    /// How many the query is about.
    total: usize,
    users: Vec<Shown>,
}

#[derive(Serialize)]
struct One {
    user: Shown,
    limits: String,
    rights: Vec<Decided>,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    disabled: bool,
    mode: &'static str,
    roles: Vec<String>,
    tokens: Option<usize>,
    requests: u64,
    errors: u64,
    reported: u64,
    failed_logins: u64,
    bytes_in: u64,
    bytes_out: u64,
    last: Option<String>,
}

impl Shown {
    fn of(account: &Account, used: Used, tokens: Option<usize>) -> Self {
        let last = (used.last > 0).then(|| UnixMillis::new(used.last));
        Self {
            name: account.name().to_string(),
            disabled: account.is_disabled(),
            mode: match account.mode() {
                Mode::Enforce => "enforce",
                Mode::Report => "report",
            },
            roles: account.roles().to_vec(),
            tokens,
            requests: used.requests,
            errors: used.errors,
            reported: used.reported,
            failed_logins: used.failed_logins,
            bytes_in: used.bytes_in,
            bytes_out: used.bytes_out,
            last: last.map(|moment| moment.seconds().timestamp().to_string()),
        }
    }
}

#[derive(Serialize)]
struct Decided {
    route: String,
    methods: Vec<DecidedMethod>,
}

#[derive(Serialize)]
struct DecidedMethod {
    method: String,
    allowed: bool,
    /// If only some are.
    forms: Option<Vec<String>>,
}

impl DecidedMethod {
    fn of(method: &http::Method, decision: Decision<'_>) -> Self {
        let (allowed, forms) = match decision {
            Decision::Allowed => (true, None),
            Decision::AllowedForForms(forms) => (true, Some(forms.names().collect())),
            Decision::Denied(_) => (false, None),
        };
        Self {
            method: method.to_string(),
            allowed,
            forms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = |search: &str, sort, limit| UsersQuery {
            search: search.to_owned(),
            sort,
            limit,
        };
        for (text, expected) in [
            ("", Some(query("", Sort::Name, 100))),
            (
                "search=TILL&sort=errors&limit=1000",
                Some(query("till", Sort::Errors, 1000)),
            ),
            ("sort=x", None),
            ("limit=1001", None),
            ("search=a&search=b", None),
            ("user=a", None),
        ] {
            assert_eq!(UsersQuery::parse(text).ok(), expected, "{text}");
        }
    }
}
