//! Pure: changes to the `allow` and `roles` of one account that keep comments and order.

use toml_edit::{Array, InlineTable, Item, Table, TableLike, Value};

use super::edit::EditError;

/// A right to allow or deny, with the fields of an `allow` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The path of the route.
    pub route: String,
    /// The methods; empty means all.
    pub methods: Vec<String>,
    /// The forms, exact or with a trailing `*`; empty means all.
    pub forms: Vec<String>,
}

/// Adds a right. An entry with the same route and methods absorbs the forms.
pub(super) fn allow(account: &mut dyn TableLike, grant: &Grant) -> Result<(), EditError> {
    let allow = account
        .entry("allow")
        .or_insert_with(|| Item::Value(Array::new().into()));
    if is_everything(allow) {
        return Err(EditError::EverythingAllowed);
    }
    for entry in entries(allow)? {
        if !is_route(entry, &grant.route) || !same(&names(entry, "methods")?, &grant.methods) {
            continue;
        }
        let present = names(entry, "forms")?;
        if grant.forms.is_empty() {
            remove_list(entry, "forms");
        } else if !present.is_empty() {
            let new: Vec<_> = grant
                .forms
                .iter()
                .filter(|form| !has(&present, form))
                .collect();
            extend(array(entry, "forms")?, new);
        }
        return Ok(());
    }
    push(allow, grant)
}

/// Removes a right. The named methods or forms are removed from the entries that list them. An entry
/// left with an empty list is removed, since an empty list would mean everything.
pub(super) fn deny(account: &mut dyn TableLike, grant: &Grant) -> Result<(), EditError> {
    let no_such = || EditError::NothingAllowed(grant.route.clone());
    let allow = account.get_mut("allow").ok_or_else(no_such)?;
    if is_everything(allow) {
        return Err(EditError::EverythingAllowed);
    }
    let mut changed = false;
    let mut kept = Vec::new();
    for entry in entries(allow)? {
        let (keep, touched) = match is_route(entry, &grant.route) {
            true => deny_in_entry(entry, grant)?,
            false => (true, false),
        };
        kept.push(keep);
        changed |= touched;
    }
    if !changed {
        return Err(no_such());
    }
    let mut kept = kept.into_iter();
    let mut next = || kept.next().unwrap_or(true);
    match allow {
        Item::Value(Value::Array(array)) => retain(array, |_| next()),
        Item::ArrayOfTables(tables) => tables.retain(|_| next()),
        Item::Value(_) | Item::Table(_) | Item::None => return Err(EditError::Layout),
    }
    // An empty array of tables is not written at all.
    if allow
        .as_array_of_tables()
        .is_some_and(|tables| tables.is_empty())
    {
        account.remove("allow");
        account.insert("allow", Item::Value(nothing()));
    }
    Ok(())
}

/// Whether the entry stays, and whether anything was removed from it.
fn deny_in_entry(entry: &mut dyn TableLike, grant: &Grant) -> Result<(bool, bool), EditError> {
    match (grant.methods.is_empty(), grant.forms.is_empty()) {
        (true, true) => Ok((false, true)),
        (false, true) => remove_names(entry, "methods", &grant.methods),
        (true, false) => remove_names(entry, "forms", &grant.forms),
        (false, false) if same(&names(entry, "methods")?, &grant.methods) => {
            remove_names(entry, "forms", &grant.forms)
        }
        // Removing a form from some of the methods would mean splitting the entry.
        (false, false) => Err(EditError::Split(grant.route.clone())),
    }
}

fn remove_names(
    entry: &mut dyn TableLike,
    key: &'static str,
    taken: &[String],
) -> Result<(bool, bool), EditError> {
    let present = names(entry, key)?;
    if present.is_empty() {
        return Err(EditError::Unlisted(key));
    }
    let covers = |pattern: &String| {
        let start = pattern.strip_suffix('*');
        let start = start.filter(|_| !has(taken, pattern))?;
        let starts = |name: &&String| {
            name.get(..start.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(start))
        };
        taken.iter().find(starts)
    };
    if let Some((pattern, name)) = present.iter().find_map(|p| Some((p, covers(p)?))) {
        return Err(EditError::Covered {
            pattern: pattern.clone(),
            name: name.clone(),
        });
    }
    let left = present.iter().filter(|name| !has(taken, name)).count();
    if left > 0 {
        retain(array(entry, key)?, |name| {
            name.as_str().is_none_or(|name| !has(taken, name))
        });
    }
    Ok((left > 0, left < present.len()))
}

/// Adds a role to the account.
pub(super) fn add_role(account: &mut dyn TableLike, role: &str) -> Result<(), EditError> {
    account
        .entry("roles")
        .or_insert_with(|| Item::Value(Array::new().into()));
    if names(account, "roles")?
        .iter()
        .all(|present| present != role)
    {
        extend(array(account, "roles")?, [role]);
    }
    Ok(())
}

/// Removes a role from the account.
pub(super) fn remove_role(account: &mut dyn TableLike, role: &str) -> Result<(), EditError> {
    if names(account, "roles")?
        .iter()
        .all(|present| present != role)
    {
        return Err(EditError::NotInRole(role.to_owned()));
    }
    retain(array(account, "roles")?, |present| {
        present.as_str() != Some(role)
    });
    Ok(())
}

/// The value of `allow` for no rights: written out, to show that it is intended.
pub(super) fn nothing() -> Value {
    Array::new().into()
}

/// The value of `allow` for every right.
pub(super) fn everything() -> Value {
    "*".into()
}

fn is_everything(allow: &Item) -> bool {
    allow.as_str() == Some("*")
}

fn entries(allow: &mut Item) -> Result<Vec<&mut dyn TableLike>, EditError> {
    match allow {
        Item::Value(Value::Array(array)) => array
            .iter_mut()
            .map(|value| {
                value
                    .as_inline_table_mut()
                    .map(|table| table as &mut dyn TableLike)
            })
            .collect::<Option<_>>()
            .ok_or(EditError::Layout),
        Item::ArrayOfTables(tables) => Ok(tables
            .iter_mut()
            .map(|table| table as &mut dyn TableLike)
            .collect()),
        Item::Value(_) | Item::Table(_) | Item::None => Err(EditError::Layout),
    }
}

fn push(allow: &mut Item, grant: &Grant) -> Result<(), EditError> {
    let lists = [("methods", &grant.methods), ("forms", &grant.forms)];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let lists = lists.map(|(key, list)| (key, list.iter().collect::<Array>()));
    match allow {
        Item::Value(Value::Array(array)) => {
            let mut entry = InlineTable::new();
            entry.insert("route", (&*grant.route).into());
            lists.for_each(|(key, list)| drop(entry.insert(key, list.into())));
            append(array, entry.into());
            Ok(())
        }
        Item::ArrayOfTables(tables) => {
            let mut entry = Table::new();
            entry.insert("route", toml_edit::value(&*grant.route));
            lists.for_each(|(key, list)| drop(entry.insert(key, toml_edit::value(list))));
            // After the last one, which has a position even if it was only just added.
            entry.set_position(tables.iter().filter_map(Table::position).max());
            tables.push(entry);
            Ok(())
        }
        Item::Value(_) | Item::Table(_) | Item::None => Err(EditError::Layout),
    }
}

/// Removes elements; the new first element takes over the prefix of the old one.
fn retain(list: &mut Array, keep: impl FnMut(&Value) -> bool) {
    let prefix_of = |value: &Value| {
        value
            .decor()
            .prefix()
            .and_then(|prefix| prefix.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let before = list.iter().next().map(prefix_of).unwrap_or_default();
    list.retain(keep);
    if let Some(first) = list.get_mut(0)
        && prefix_of(first).trim().is_empty()
        && before.trim().is_empty()
    {
        first.decor_mut().set_prefix(before);
    }
}

/// Removes a list from an entry; the new last value takes over its suffix.
fn remove_list(entry: &mut dyn TableLike, key: &str) {
    let after = |item: &Item| {
        let suffix = item.as_value().and_then(|value| value.decor().suffix());
        suffix
            .and_then(|suffix| suffix.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let Some(removed) = entry.remove(key) else {
        return;
    };
    if let Some((_, Item::Value(last))) = entry.iter_mut().last()
        && after(&Item::Value(last.clone())).is_empty()
    {
        last.decor_mut().set_suffix(after(&removed));
    }
}

fn is_route(entry: &dyn TableLike, route: &str) -> bool {
    let present = entry.get("route").and_then(Item::as_str);
    present.is_some_and(|present| present.eq_ignore_ascii_case(route))
}

/// The names in a list of the entry; empty when there is no such list.
fn names(entry: &dyn TableLike, key: &str) -> Result<Vec<String>, EditError> {
    let Some(list) = entry.get(key) else {
        return Ok(Vec::new());
    };
    let list = list.as_array().ok_or(EditError::Layout)?;
    let names = list.iter().map(|name| name.as_str().map(str::to_owned));
    names.collect::<Option<_>>().ok_or(EditError::Layout)
}

fn array<'a>(entry: &'a mut dyn TableLike, key: &str) -> Result<&'a mut Array, EditError> {
    entry
        .get_mut(key)
        .and_then(Item::as_array_mut)
        .ok_or(EditError::Layout)
}

fn extend<S: AsRef<str>>(list: &mut Array, names: impl IntoIterator<Item = S>) {
    names
        .into_iter()
        .for_each(|name| append(list, name.as_ref().into()));
}

/// Appends in the style of the previous element: on its own line if that one is.
fn append(list: &mut Array, mut value: Value) {
    let before = list.iter().last().and_then(|last| last.decor().prefix());
    let before = before
        .and_then(|prefix| prefix.as_str())
        .unwrap_or_default();
    let prefix = match (before.rfind('\n'), list.is_empty()) {
        (Some(line), _) => before[line..].to_owned(),
        (None, true) => String::new(),
        (None, false) => " ".to_owned(),
    };
    value.decor_mut().set_prefix(prefix);
    list.push_formatted(value);
}

/// Compares methods and forms ignoring ASCII case, as the gateway does.
fn has(list: &[String], name: &str) -> bool {
    list.iter()
        .any(|present| present.eq_ignore_ascii_case(name))
}

fn same(one: &[String], other: &[String]) -> bool {
    one.iter().all(|name| has(other, name)) && other.iter().all(|name| has(one, name))
}

#[cfg(test)]
mod tests {
    use toml_edit::DocumentMut;

    use super::*;

    fn grant(route: &str, methods: &[&str], forms: &[&str]) -> Grant {
        let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        Grant {
            route: route.to_owned(),
            methods: owned(methods),
            forms: owned(forms),
        }
    }

    type Change = fn(&mut dyn TableLike, &Grant) -> Result<(), EditError>;

    fn changed(text: &str, change: Change, grant: &Grant) -> Result<String, EditError> {
        let mut document: DocumentMut = text.parse().expect("TOML");
        change(document.as_table_mut(), grant)?;
        Ok(document.to_string())
    }

    #[test]
    fn gives() {
        let cases: &[(&str, Grant, &str)] = &[
            ("", grant("/a", &[], &[]), "allow = [{ route = \"/a\" }]\n"),
            (
                "allow = [{ route = \"/a\" }]\n",
                grant("/b", &["GET"], &["setX"]),
                "allow = [{ route = \"/a\" }, { route = \"/b\", methods = [\"GET\"], \
                 forms = [\"setX\"] }]\n",
            ),
            (
                "allow = [{ route = \"/a\", forms = [\"x\"] }] # why\n",
                grant("/A", &[], &["X", "y*"]),
                "allow = [{ route = \"/a\", forms = [\"x\", \"y*\"] }] # why\n",
            ),
            (
                "allow = [{ route = \"/a\", forms = [\"x\"] }]\n",
                grant("/a", &[], &[]),
                "allow = [{ route = \"/a\" }]\n",
            ),
            (
                "allow = [{ route = \"/a\" }]\n",
                grant("/a", &[], &["x"]),
                "allow = [{ route = \"/a\" }]\n",
            ),
            (
                "allow = [{ route = \"/a\", methods = [\"GET\"] }]\n",
                grant("/a", &["POST"], &[]),
                "allow = [{ route = \"/a\", methods = [\"GET\"] }, { route = \"/a\", \
                 methods = [\"POST\"] }]\n",
            ),
            (
                "allow = [\n  # first\n  { route = \"/a\" }, # one\n]\n",
                grant("/b", &[], &[]),
                "allow = [\n  # first\n  { route = \"/a\" },\n  { route = \"/b\" }, # one\n]\n",
            ),
            (
                "[[allow]] # one\nroute = \"/a\"\n\n[other]\n",
                grant("/b", &[], &["x"]),
                "[[allow]] # one\nroute = \"/a\"\n\n[[allow]]\nroute = \"/b\"\n\
                 forms = [\"x\"]\n\n[other]\n",
            ),
        ];
        for (text, grant, expected) in cases {
            assert_eq!(
                changed(text, allow, grant).as_deref(),
                Ok(*expected),
                "{text}"
            );
        }
        let error = changed("allow = \"*\"", allow, &grant("/a", &[], &[]));
        assert_eq!(error, Err(EditError::EverythingAllowed));
    }

    #[test]
    fn takes() {
        let two = "allow = [{ route = \"/a\", forms = [\"x\", \"y\"] }, { route = \"/b\" }]\n";
        let cases: &[(&str, Grant, Result<&str, EditError>)] = &[
            (
                two,
                grant("/A", &[], &[]),
                Ok("allow = [{ route = \"/b\" }]\n"),
            ),
            (
                two,
                grant("/a", &[], &["X"]),
                Ok("allow = [{ route = \"/a\", forms = [\"y\"] }, { route = \"/b\" }]\n"),
            ),
            (
                two,
                grant("/a", &[], &["x", "y"]),
                Ok("allow = [{ route = \"/b\" }]\n"),
            ),
            (
                two,
                grant("/c", &[], &[]),
                Err(EditError::NothingAllowed("/c".into())),
            ),
            (
                two,
                grant("/a", &[], &["z"]),
                Err(EditError::NothingAllowed("/a".into())),
            ),
            (
                two,
                grant("/b", &[], &["x"]),
                Err(EditError::Unlisted("forms")),
            ),
            (
                two,
                grant("/b", &["GET"], &[]),
                Err(EditError::Unlisted("methods")),
            ),
            (
                two,
                grant("/a", &["GET"], &["x"]),
                Err(EditError::Split("/a".into())),
            ),
            (
                "",
                grant("/a", &[], &[]),
                Err(EditError::NothingAllowed("/a".into())),
            ),
            (
                "allow = \"*\"",
                grant("/a", &[], &[]),
                Err(EditError::EverythingAllowed),
            ),
            (
                "[[allow]]\nroute = \"/a\"\nmethods = [\"GET\", \"POST\"]\n",
                grant("/a", &["get"], &[]),
                Ok("[[allow]]\nroute = \"/a\"\nmethods = [\"POST\"]\n"),
            ),
            (
                "[[allow]]\nroute = \"/a\"\n",
                grant("/a", &[], &[]),
                Ok("allow = []\n"),
            ),
        ];
        for (text, grant, expected) in cases {
            let expected = expected.clone().map(str::to_owned);
            assert_eq!(changed(text, deny, grant), expected, "{text} {grant:?}");
        }
    }

    #[test]
    fn roles_are_added_and_removed() {
        let mut document = DocumentMut::new();
        let account = document.as_table_mut();
        add_role(account, "tills").expect("added");
        add_role(account, "tills").expect("added before");
        add_role(account, "shops").expect("added");
        assert_eq!(document.to_string(), "roles = [\"tills\", \"shops\"]\n");
        remove_role(document.as_table_mut(), "shops").expect("removed");
        assert_eq!(document.to_string(), "roles = [\"tills\"]\n");
        let error = remove_role(document.as_table_mut(), "shops").expect_err("removed before");
        assert_eq!(error, EditError::NotInRole("shops".into()));
    }
}
