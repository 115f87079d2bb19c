//! One configuration in place of another: what changes, and what cannot while the gateway runs.

use serde::Serialize;
use serde_json::Value;

use super::Config;
use super::checks::report;
use crate::settings::Problem;
use crate::settings::document::{Document, Step};
use crate::store::StoreKind;

impl Config {
    /// Takes over from `before` what cannot change while the gateway runs, and reports each such setting that is
    /// written differently.
    pub(super) fn keep_fixed(&mut self, before: &Self, document: &mut Document<'_>) {
        let mut kept = Kept { document };
        kept.one(
            "listen.workers",
            &mut self.listen.workers,
            &before.listen.workers,
        );
        let (login, old) = (&mut self.login, &before.login);
        kept.one(
            "login.hash_threads",
            &mut login.hash_threads,
            &old.hash_threads,
        );
        kept.one("login.hash_queue", &mut login.hash_queue, &old.hash_queue);
        let (tokens, old) = (&mut self.tokens, &before.tokens);
        kept.one("tokens.store", &mut tokens.store, &old.store);
        kept.one("tokens.idle", &mut tokens.idle, &old.idle);
        kept.one("tokens.durable", &mut tokens.durable, &old.durable);
        kept.one("tokens.shared", &mut tokens.shared, &old.shared);
        if tokens.store == StoreKind::Shared {
            // Those of all gateways.
            kept.one("tokens.capacity", &mut tokens.capacity, &old.capacity);
            kept.one("tokens.per_user", &mut tokens.per_user, &old.per_user);
            kept.one("tokens.on_limit", &mut tokens.on_limit, &old.on_limit);
        }
        kept.one("admin", &mut self.admin, &before.admin);
        kept.one("audit", &mut self.audit, &before.audit);
        kept.one("log.format", &mut self.log.format, &before.log.format);
        kept.one(
            "log.access_file",
            &mut self.log.access_file,
            &before.log.access_file,
        );
        kept.one("process", &mut self.process, &before.process);
    }

    /// The settings that differ in `next`, in its order, each as `KEY: OLD -> NEW`.
    pub(crate) fn changes(&self, next: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        compare(&mut changes, "", &value_of(self), &value_of(next));
        changes
    }
}

struct Kept<'a, 'd> {
    document: &'a mut Document<'d>,
}

impl Kept<'_, '_> {
    fn one<T: PartialEq + Clone + Serialize>(&mut self, key: &str, new: &mut T, old: &T) {
        if new == old {
            return;
        }
        let mut different = Vec::new();
        compare(&mut different, key, &value_of(old), &value_of(new));
        for change in different {
            let (key, _) = change.split_once(": ").unwrap_or((&change, ""));
            let path: Vec<_> = key.split('.').map(Step::Key).collect();
            let problem = Problem::warning(format!("`{key}` cannot change while syncgate runs"));
            let problem = problem.remedy("the old value stays in force until a restart");
            report(self.document, &path, problem);
        }
        *new = old.clone();
    }
}

fn value_of(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// Adds what differs below `key`.
fn compare(changes: &mut Vec<String>, key: &str, old: &Value, new: &Value) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            for name in new.keys().chain(gone) {
                let below = join(key, name);
                let [old, new] = [old, new].map(|it| it.get(name).unwrap_or(&Value::Null));
                compare(changes, &below, old, new);
            }
        }
        (Value::Array(old), Value::Array(new)) if are_named(old) && are_named(new) => {
            let find = |all: &[Value], name: &str| {
                let mut all = all.iter();
                all.find(|it| name_of(it) == Some(name)).cloned()
            };
            let gone = old.iter().filter_map(name_of);
            let gone = gone.filter(|name| find(new, name).is_none());
            for name in new.iter().filter_map(name_of).chain(gone) {
                let [old, new] = [old, new].map(|it| find(it, name).unwrap_or_default());
                compare(changes, &format!("{key}[{name}]"), &old, &new);
            }
            let order = |all: &[Value]| {
                let names = all.iter().filter_map(name_of);
                names.map(str::to_owned).collect::<Vec<_>>()
            };
            let (mut before, mut after) = (order(old), order(new));
            before.retain(|name| after.contains(name));
            after.retain(|name| before.contains(name));
            if before != after {
                changes.push(format!("{key}: in another order"));
            }
        }
        (Value::Null, new) => changes.push(format!("{key}: added {}", shown(new))),
        (_, Value::Null) => changes.push(format!("{key}: removed")),
        (old, new) => changes.push(format!("{key}: {} -> {}", shown(old), shown(new))),
    }
}

fn join(key: &str, name: &str) -> String {
    match key {
        "" => name.to_owned(),
        _ => format!("{key}.{name}"),
    }
}

/// Whether each element says what it is: the path of a route, the name or URL of a server.
fn are_named(elements: &[Value]) -> bool {
    elements.iter().all(|it| name_of(it).is_some())
}

fn name_of(element: &Value) -> Option<&str> {
    let keys = ["path", "name", "url", "address", "certificate"].iter();
    keys.filter_map(|key| element.get(key))
        .find_map(Value::as_str)
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// How many characters are shown of a value.
const MAX_SHOWN: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(text: &str) -> Config {
        match parse("config.toml", text) {
            Ok(loaded) => loaded.config,
            Err(problems) => panic!("{problems}"),
        }
    }

    #[test]
    fn changes_are_named_by_what_they_are_about() {
        let route = |path: &str, more: &str| format!("[[routes]]\npath = \"{path}\"\n{more}\n");
        let cases = [
            (String::new(), String::new(), vec![]),
            (
                "[limits]\nconnections = 100".to_owned(),
                "[limits]\nconnections = 200".to_owned(),
                vec!["limits.connections: 100 -> 200"],
            ),
            (
                route("/a", "") + &route("/b", ""),
                route("/b", "methods = [\"PUT\"]") + &route("/c", ""),
                vec![
                    "routes[/b].methods: [\"POST\"] -> [\"PUT\"]",
                    "routes[/c]: added",
                    "routes[/a]: removed",
                ],
            ),
            (
                route("/a", "") + &route("/b", ""),
                route("/b", "") + &route("/a", ""),
                vec!["routes: in another order"],
            ),
            (
                "[upstream]\nurl = \"http://a\"".to_owned(),
                "[upstream]\nurl = \"http://b\"".to_owned(),
                vec!["upstream.url: \"http://a\" -> \"http://b\""],
            ),
        ];
        for (old, new, expected) in cases {
            let changes = config(&old).changes(&config(&new));
            assert_eq!(changes.len(), expected.len(), "{changes:?}");
            for (change, expected) in changes.iter().zip(expected) {
                assert!(change.starts_with(expected), "{change}");
            }
        }
    }
}
