//! Pure: the list that `syncgate user list` prints.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::accounts::Account;
use crate::policy::rights::{Allow, AllowEntry, Mode};

/// A table for people.
pub(super) fn text(accounts: &[&Arc<Account>]) -> String {
    let mut rows = vec![["USER", "STATE", "RIGHTS", "ROLES", "LIMITS"].map(str::to_owned)];
    rows.extend(accounts.iter().map(|account| row(account)));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len())
            .max()
            .unwrap_or_default()
    };
    let widths = [0, 1, 2, 3].map(width);
    let mut table = String::new();
    for [user, state, rights, roles, limits] in &rows {
        let [a, b, c, d] = widths;
        let line = format!("{user:a$}  {state:b$}  {rights:c$}  {roles:d$}  {limits}");
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}

/// An array of objects for programs.
pub(super) fn json(accounts: &[&Arc<Account>]) -> String {
    let list: Vec<_> = accounts.iter().map(|account| object(account)).collect();
    format!("{:#}\n", serde_json::Value::Array(list))
}

fn row(account: &Account) -> [String; 5] {
    let state = match (account.is_disabled(), account.mode()) {
        (true, _) => "disabled",
        (false, Mode::Enforce) => "enabled",
        (false, Mode::Report) => "enabled, rights reported only",
    };
    let rights = match account.allow() {
        Some(Allow::Everything) => "everything".to_owned(),
        Some(Allow::Entries(entries)) if !entries.is_empty() => {
            entries.iter().map(entry).collect::<Vec<_>>().join("; ")
        }
        Some(Allow::Entries(_)) | None => "nothing".to_owned(),
    };
    let roles = account.roles().join(", ");
    [
        account.name().to_string(),
        state.to_owned(),
        rights,
        roles,
        account.admission().to_string(),
    ]
}

fn entry(entry: &AllowEntry) -> String {
    let mut text = entry.route.clone();
    for method in entry.methods.iter().flatten() {
        let _ = write!(text, " {method}");
    }
    match entry.forms.as_deref() {
        Some(forms) => text + " (" + &forms.join(", ") + ")",
        None => text,
    }
}

fn object(account: &Account) -> serde_json::Value {
    let allow = match account.allow() {
        Some(Allow::Everything) => serde_json::json!("*"),
        Some(Allow::Entries(entries)) => entries
            .iter()
            .map(|entry| {
                let methods = entry.methods.as_ref();
                let methods = methods.map(|list| list.iter().map(|m| m.as_str()).collect::<Vec<_>>());
                serde_json::json!({ "route": entry.route, "methods": methods, "forms": entry.forms })
            })
            .collect(),
        None => serde_json::json!([]),
    };
    let mode = match account.mode() {
        Mode::Enforce => "enforce",
        Mode::Report => "report",
    };
    serde_json::json!({
        "name": &**account.name(),
        "disabled": account.is_disabled(),
        "allow": allow,
        "roles": account.roles(),
        "mode": mode,
        "limits": account.admission(),
    })
}
