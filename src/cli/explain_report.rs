//! Pure: what `syncgate explain` prints.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::Method;
use serde_json::{Value, json};

use crate::access::token_fault::TokenFault;
use crate::accounts::{Account, Accounts, Provenance};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::error_chain::chain;
use crate::gateway::refusal::Refusal;
use crate::login::LoginFault;
use crate::policy::rights::{AllowEntry, Decision, MissingRight, Mode};
use crate::route::Route;
use crate::settings::suggest;

/// What the gateway would do.
#[derive(Debug)]
pub(super) enum Prediction {
    /// Send the request on; `reported` is what it would be refused for were the rights enforced.
    Forwarded { reported: Option<Refusal> },
    /// Issue a token to whoever has the password.
    LogsIn,
    /// Give another token for the one that comes with the request.
    Renews,
    /// End the token that comes with the request.
    Revokes,
    /// Refuse it.
    Refused(Refusal),
}

impl Prediction {
    pub(super) fn passes(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    /// What is missing, be it enforced or only reported.
    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Forwarded { reported } => reported.as_ref(),
            Self::LogsIn | Self::Renews | Self::Revokes => None,
            Self::Refused(refusal) => Some(refusal),
        }
    }
}

/// A request, what becomes of it, and all that the reason can be told from.
pub(super) struct Explanation<'a> {
    pub(super) user: &'a str,
    pub(super) account: Option<&'a Account>,
    pub(super) accounts: &'a Accounts,
    pub(super) provenance: &'a [Provenance],
    pub(super) config: &'a Config,
    pub(super) method: &'a Method,
    /// With its query.
    pub(super) path: &'a str,
    pub(super) route: Option<&'a Route>,
    /// The form that was read from the body, where a right depends on it.
    pub(super) form: Option<&'a str>,
    pub(super) from: IpAddr,
    pub(super) at: UnixMillis,
    pub(super) prediction: &'a Prediction,
}

impl Explanation<'_> {
    /// Where the request is forwarded to, in words.
    fn upstream(&self) -> String {
        let index = self.route.map_or(0, Route::index);
        let name = self.config.routes.get(index).map(|it| it.upstream.as_str());
        let mut upstreams = self.config.upstreams();
        let found = upstreams.find(|(upstream, _)| Some(*upstream) == name);
        found.map_or(String::new(), |(_, section)| section.to_string())
    }

    /// For people: the answer, then one fact a line.
    pub(super) fn text(&self) -> String {
        let (user, request) = (self.user, format!("{} {}", self.method, self.path));
        let mut text = match self.prediction {
            Prediction::Forwarded { reported } => {
                let upstream = self.upstream();
                let only = reported.as_ref().map_or(String::new(), |refusal| {
                    format!(
                        ", but only because the rights of `{user}` are reported and not enforced; \
                         it would be {}",
                        answered(refusal)
                    )
                });
                format!("allowed: {request} of `{user}` is forwarded to {upstream}{only}\n")
            }
            Prediction::LogsIn => format!(
                "allowed: {request} is for everybody who has a password; `{user}` gets a token for \
                 the right one\n"
            ),
            Prediction::Renews => {
                format!("allowed: {request} gives `{user}` another token for a live one\n")
            }
            Prediction::Revokes => {
                format!("allowed: {request} is for everybody who has a token, and ends it\n")
            }
            Prediction::Refused(refusal) => format!("denied: {}\n", answered(refusal)),
        };
        let mut fact = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:9}{value}");
        };
        if let Some(refusal) = self.prediction.refusal() {
            fact(
                "because",
                format!("{} ({})", chain(refusal), refusal.code()),
            );
        }
        if let Some(form) = self.form {
            fact("form", form.escape_debug().to_string());
        }
        for (number, source) in self.deciding().iter().enumerate() {
            fact(
                if number == 0 { "by" } else { "also by" },
                self.place(source),
            );
        }
        for source in self.near() {
            fact("near", self.place(source));
        }
        if let Some(hint) = self.hint() {
            fact("hint", hint);
        }
        fact(
            "assumed",
            format!("from {} at {}", self.from, self.at.timestamp()),
        );
        text
    }

    /// For programs: one object.
    pub(super) fn json(&self) -> String {
        let list = |provenance: Vec<&Provenance>| -> Vec<Value> {
            provenance
                .iter()
                .map(|source| self.object(source))
                .collect()
        };
        let refused = match self.prediction {
            Prediction::Refused(refusal) => Some(refusal),
            Prediction::Forwarded { .. }
            | Prediction::LogsIn
            | Prediction::Renews
            | Prediction::Revokes => None,
        };
        let reported = match self.prediction {
            Prediction::Forwarded { reported } => reported.as_ref(),
            Prediction::Refused(_)
            | Prediction::LogsIn
            | Prediction::Renews
            | Prediction::Revokes => None,
        };
        let mode = self.account.map(|account| match account.mode() {
            Mode::Enforce => "enforce",
            Mode::Report => "report",
        });
        let object = json!({
            "allowed": self.prediction.passes(),
            "user": self.user,
            "mode": mode,
            "method": self.method.as_str(),
            "path": self.path,
            "route": self.route.map(|route| &**route.name()),
            "form": self.form,
            "from": self.from,
            "at": self.at.timestamp().to_string(),
            "answer": refused.map(answer),
            "would_refuse": reported.map(answer),
            "decided_by": list(self.deciding()),
            "near": list(self.near()),
            "hint": self.hint(),
        });
        format!("{object:#}\n")
    }

    /// The entries that give the right, each for itself: rights add up, so one is enough.
    fn deciding(&self) -> Vec<&Provenance> {
        let gives = |source: &&Provenance| {
            let (rights, method) = (source.rights(), self.method);
            self.route.is_some_and(|route| match self.form {
                None => rights.decide(route.index(), method) == Decision::Allowed,
                Some(form) => rights.decide_with_form(route.index(), method, form).is_ok(),
            })
        };
        match self.prediction {
            Prediction::Forwarded { reported: None } => {
                self.provenance.iter().filter(gives).collect()
            }
            Prediction::Forwarded { .. }
            | Prediction::Refused(_)
            | Prediction::LogsIn
            | Prediction::Renews
            | Prediction::Revokes => Vec::new(),
        }
    }

    /// The entries for the route that do not give the right, where a right is missing.
    fn near(&self) -> Vec<&Provenance> {
        let Some(Refusal::Forbidden(_) | Refusal::FormRefused(_)) = self.prediction.refusal()
        else {
            return Vec::new();
        };
        let names_route = |source: &&Provenance| {
            self.route.is_some_and(|route| {
                let decision = source.rights().decide(route.index(), self.method);
                decision != Decision::Denied(MissingRight::Route)
            })
        };
        self.provenance.iter().filter(names_route).collect()
    }

    /// What to do about a refusal that the operator can do something about.
    fn hint(&self) -> Option<String> {
        let refusal = self.prediction.refusal()?;
        let user = self.user;
        if let Refusal::Forbidden(missing) = refusal {
            return Some(self.grant(*missing));
        }
        if let Refusal::TokenRefused(TokenFault::UserDisabled)
        | Refusal::LoginFailed(LoginFault::DisabledUser) = refusal
        {
            return Some(format!("syncgate user enable {user}"));
        }
        if let Refusal::TokenRefused(TokenFault::UserGone)
        | Refusal::LoginFailed(LoginFault::UnknownUser) = refusal
        {
            let table = self.accounts.table();
            let names: Vec<_> = table.accounts().map(|account| &**account.name()).collect();
            return Some(match suggest::nearest(user, &names) {
                Some(near) => format!("there is no such user; did you mean `{near}`?"),
                None => "there is no such user; `syncgate user list` shows all".to_owned(),
            });
        }
        if let Refusal::NotAdmitted(_) | Refusal::LoginFailed(LoginFault::NotAdmitted(_)) = refusal
        {
            let limits = self.account.map(|account| account.admission().to_string());
            return limits.map(|limits| format!("the user's limits are: {limits}"));
        }
        if let Refusal::NotFound = refusal {
            let routes = self.config.routes.iter().map(|route| route.path.as_str());
            let routes: Vec<_> = routes.collect();
            return Some(format!("the routes are {}", routes.join(", ")));
        }
        if let Refusal::MethodNotAllowed { allow } = refusal {
            return Some(format!("the path takes {allow}"));
        }
        let unread = matches!(refusal, Refusal::FormRefused(_)) && self.form.is_none();
        unread.then(|| "the right depends on the form: see --form and --body".to_owned())
    }

    /// The command that gives what is missing.
    fn grant(&self, missing: MissingRight) -> String {
        let route = self.route.map_or("", |route| &**route.name());
        let mut command = format!("syncgate user allow {} {route}", self.user);
        match (missing, self.form) {
            (MissingRight::Route, _) => {}
            (MissingRight::Method, _) => {
                let _ = write!(command, " --methods {}", self.method);
            }
            // Of a form that a shell or a list could read otherwise, the place is shown.
            (MissingRight::Form, Some(form)) if form.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                let _ = write!(command, " --forms {form}");
            }
            (MissingRight::Form, _) => command.push_str(" --forms FORM"),
        }
        command
    }

    /// `users.toml:12, role tills: { ... }`.
    fn place(&self, source: &Provenance) -> String {
        let mut place = self.config.accounts.file.display().to_string();
        if let Some(line) = source.line() {
            let _ = write!(place, ":{line}");
        }
        match source.role() {
            Some(role) => {
                let _ = write!(place, ", role `{role}`");
            }
            None => {
                let _ = write!(place, ", user `{}`", self.user);
            }
        }
        let entry = source.entry().map_or("\"*\"".to_owned(), entry);
        format!("{place}: {entry}")
    }

    fn object(&self, source: &Provenance) -> Value {
        let allow = source.entry().map_or(json!("*"), |entry| {
            let methods = entry.methods.as_ref();
            let methods = methods.map(|list| list.iter().map(Method::as_str).collect::<Vec<_>>());
            json!({ "route": entry.route, "methods": methods, "forms": entry.forms })
        });
        json!({
            "file": self.config.accounts.file.display().to_string(),
            "line": source.line(),
            "role": source.role(),
            "allow": allow,
        })
    }
}

/// The status and text of an answer.
fn answered(refusal: &Refusal) -> String {
    format!("{} {}", refusal.status().as_u16(), refusal.client_text())
}

fn answer(refusal: &Refusal) -> Value {
    let missing = if let Refusal::Forbidden(missing) = refusal {
        Some(match missing {
            MissingRight::Route => "route",
            MissingRight::Method => "method",
            MissingRight::Form => "form",
        })
    } else {
        None
    };
    json!({
        "status": refusal.status().as_u16(),
        "messages": refusal.client_text(),
        "reason": refusal.code(),
        "details": refusal.details(),
        "missing": missing,
    })
}

/// The entry as the account file would have it.
fn entry(entry: &AllowEntry) -> String {
    let list = |names: Vec<&str>| {
        let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
        quoted.join(", ")
    };
    let mut text = format!("{{ route = {:?}", entry.route);
    if let Some(methods) = &entry.methods {
        let methods = methods.iter().map(Method::as_str).collect();
        let _ = write!(text, ", methods = [{}]", list(methods));
    }
    if let Some(forms) = &entry.forms {
        let forms = forms.iter().map(String::as_str).collect();
        let _ = write!(text, ", forms = [{}]", list(forms));
    }
    text + " }"
}
