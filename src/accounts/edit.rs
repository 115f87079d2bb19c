//! Pure: edits to the text of an account file that preserve comments and order.

use thiserror::Error;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

/// Why the text could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EditError {
    /// The account exists already.
    #[error("there is a user `{0}` already")]
    NameTaken(String),
    /// The account does not exist.
    #[error("there is no user `{name}`{}", suggestion(.near.as_deref()))]
    NoSuchUser {
        /// The name asked for.
        name: String,
        /// The one that was probably meant.
        near: Option<String>,
    },
    /// Individual rights cannot be added or removed while `allow = "*"`.
    #[error(
        "the user may do everything (allow = \"*\"); remove that first: `syncgate user deny NAME --all`"
    )]
    EverythingAllowed,
    /// The right to remove does not exist.
    #[error("the user has no such right of its own on {0}")]
    NothingAllowed(String),
    /// The right to remove is not listed, since everything of its kind is allowed.
    #[error(
        "every one of the {0} is allowed there, so single ones cannot be taken; deny the route, \
         then allow the {0} that are wanted"
    )]
    Unlisted(&'static str),
    /// The right to remove is not listed by itself, but covered by a pattern.
    #[error("`{name}` is covered by `{pattern}`; deny that, then allow what is wanted of it")]
    Covered {
        /// The pattern in the entry.
        pattern: String,
        /// The name to remove.
        name: String,
    },
    /// The right to remove is part of an entry that would have to be split.
    #[error(
        "the entry for {0} covers other methods too; deny the route, then allow what is wanted"
    )]
    Split(String),
    /// The user does not have the role to remove.
    #[error("the user does not have the role `{0}`")]
    NotInRole(String),
    /// The file is TOML, but not laid out as `[users.NAME]` tables.
    #[error("the file is laid out in a way that cannot be edited here; edit it by hand")]
    Layout,
}

/// An account file being changed.
pub(super) struct Draft(DocumentMut);

impl Draft {
    /// Parses the text.
    pub(super) fn parse(text: &str) -> Result<Self, EditError> {
        text.parse().map(Self).map_err(|_| EditError::Layout)
    }

    /// The changed text.
    pub(super) fn into_text(self) -> String {
        self.0.to_string()
    }

    /// Adds an account at the end of the file.
    pub(super) fn add(
        &mut self,
        name: &str,
        phc: &str,
        allow: Option<Value>,
    ) -> Result<(), EditError> {
        let place = last_position(self.0.as_table()) + 1;
        let trailing = self.0.trailing().as_str().unwrap_or_default().to_owned();
        let users = self.users()?;
        if users.contains_key(name) {
            return Err(EditError::NameTaken(name.to_owned()));
        }
        let mut account = Table::new();
        account.insert("password", toml_edit::value(phc));
        if let Some(allow) = allow {
            account.insert("allow", Item::Value(allow));
        }
        account.set_position(Some(place));
        // A comment at the end of the file stays ahead of the new account.
        account.decor_mut().set_prefix(format!("{trailing}\n"));
        users.insert(name, Item::Table(account));
        self.0.set_trailing("");
        Ok(())
    }

    /// Removes an account and the comment right above it.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), EditError> {
        self.account(name)?;
        let Some(removed) = self.users()?.remove(name) else {
            return Err(EditError::Layout);
        };
        let Item::Table(table) = removed else {
            return Ok(());
        };
        let prefix = table
            .decor()
            .prefix()
            .and_then(|prefix| prefix.as_str())
            .unwrap_or_default();
        // Comments above a blank line are about more than this account.
        let kept = prefix.rfind("\n\n").map_or("", |end| &prefix[..end + 1]);
        self.prepend(last_position(&table), kept);
        Ok(())
    }

    /// Sets a key of an account; a comment after the value stays.
    pub(super) fn set(
        &mut self,
        name: &str,
        key: &str,
        value: impl Into<Value>,
    ) -> Result<(), EditError> {
        let account = self.account(name)?;
        let mut value = value.into();
        match account.get_mut(key) {
            Some(Item::Value(present)) => {
                *value.decor_mut() = present.decor().clone();
                *present = value;
            }
            Some(_) => return Err(EditError::Layout),
            None => {
                account.insert(key, Item::Value(value));
            }
        }
        Ok(())
    }

    /// Sets a key of an account that may hold a table or an array of tables.
    pub(super) fn replace(&mut self, name: &str, key: &str, value: Value) -> Result<(), EditError> {
        let account = self.account(name)?;
        match account.get_mut(key) {
            Some(Item::Value(present)) => {
                let same = present.to_string().trim() == value.to_string().trim();
                if !same {
                    let decor = present.decor().clone();
                    *present = value;
                    *present.decor_mut() = decor;
                }
            }
            Some(_) | None => {
                account.remove(key);
                account.insert(key, Item::Value(value));
            }
        }
        Ok(())
    }

    fn users(&mut self) -> Result<&mut dyn TableLike, EditError> {
        let users = self.0.entry("users").or_insert_with(|| {
            let mut users = Table::new();
            users.set_implicit(true);
            Item::Table(users)
        });
        users.as_table_like_mut().ok_or(EditError::Layout)
    }

    /// The table of an account.
    pub(super) fn account(&mut self, name: &str) -> Result<&mut dyn TableLike, EditError> {
        let users = self.users()?;
        if !users.contains_key(name) {
            let names: Vec<_> = users.iter().map(|(name, _)| name).collect();
            let near = crate::settings::suggest::nearest(name, &names).map(str::to_owned);
            return Err(EditError::NoSuchUser {
                name: name.to_owned(),
                near,
            });
        }
        let account = users.get_mut(name).and_then(Item::as_table_like_mut);
        account.ok_or(EditError::Layout)
    }

    /// Puts a comment before the first table after `position`.
    fn prepend(&mut self, position: isize, comment: &str) {
        if comment.is_empty() {
            return;
        }
        let mut next = None;
        visit(self.0.as_table(), &mut |table| {
            let place = table.position().filter(|&place| place > position);
            next = [next, place].into_iter().flatten().min();
        });
        let joined = |old: Option<&str>| format!("{comment}{}", old.unwrap_or_default());
        let Some(next) = next else {
            let trailing = joined(self.0.trailing().as_str());
            self.0.set_trailing(trailing);
            return;
        };
        visit_mut(self.0.as_table_mut(), &mut |table| {
            if table.position() == Some(next) {
                let prefix = joined(table.decor().prefix().and_then(|prefix| prefix.as_str()));
                table.decor_mut().set_prefix(prefix);
            }
        });
    }
}

/// The position in the text of the last table in `table`, itself included.
fn last_position(table: &Table) -> isize {
    let mut last = 0;
    visit(table, &mut |table| {
        last = last.max(table.position().unwrap_or_default())
    });
    last
}

/// Visits `table` and every table in it that has its own header.
fn visit(table: &Table, f: &mut impl FnMut(&Table)) {
    f(table);
    for (_, item) in table {
        match item {
            Item::Table(table) => visit(table, f),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| visit(table, f)),
            Item::Value(_) | Item::None => {}
        }
    }
}

fn visit_mut(table: &mut Table, f: &mut impl FnMut(&mut Table)) {
    f(table);
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(table) => visit_mut(table, f),
            Item::ArrayOfTables(tables) => {
                tables.iter_mut().for_each(|table| visit_mut(table, f));
            }
            Item::Value(_) | Item::None => {}
        }
    }
}

fn suggestion(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# The accounts.

# --- tills ---

# At the entrance.
[users.till-01]
password = \"one\" # set in May
disabled = false   # open

# In the yard.
[users.till-02]
password = 'two'
[[users.till-02.allow]] # the yard only
route = \"/a\"

# --- roles ---

[roles.tills]
allow = []
# The end.
";

    fn edited<E>(
        text: &str,
        change: impl FnOnce(&mut Draft) -> Result<(), E>,
    ) -> Result<String, E> {
        let mut draft = Draft::parse(text).expect("TOML");
        change(&mut draft)?;
        Ok(draft.into_text())
    }

    #[test]
    fn no_change_changes_nothing() {
        assert_eq!(
            edited(FILE, |_| Ok::<_, EditError>(())).expect("unchanged"),
            FILE
        );
    }

    #[test]
    fn sets_values_and_keeps_comments() {
        let text = edited(FILE, |draft| {
            draft.set("till-01", "password", "new")?;
            draft.set("till-01", "disabled", true)?;
            draft.set("till-02", "disabled", true)
        })
        .expect("edited");
        let expected = FILE
            .replace("\"one\" # set", "\"new\" # set")
            .replace("disabled = false   # open", "disabled = true   # open")
            .replace("password = 'two'\n", "password = 'two'\ndisabled = true\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn adds_at_the_end_whatever_is_there() {
        let added = "\n[users.new]\npassword = \"x\"\nallow = \"*\"\n";
        for text in [
            FILE,
            "",
            "# only a comment\n",
            "[users]\n",
            "users.a.password = \"x\"\n",
        ] {
            let result = edited(text, |draft| draft.add("new", "x", Some("*".into())));
            assert_eq!(result.expect(text), format!("{text}{added}"), "{text}");
        }
        let error = edited(FILE, |draft| draft.add("till-01", "x", None)).expect_err("taken");
        assert_eq!(error, EditError::NameTaken("till-01".into()));
        let text = edited("[users]\na = { password = \"y\" }\n", |draft| {
            draft.add("b", "x", None)
        });
        let parsed: toml::Table = text.expect("edited").parse().expect("TOML");
        assert_eq!(parsed["users"]["b"]["password"].as_str(), Some("x"));
    }

    #[test]
    fn removes_an_account_with_its_comment_but_not_the_headings() {
        let text = edited(FILE, |draft| draft.remove("till-01")).expect("removed");
        let start = FILE.find("# At the").expect("there");
        let end = FILE.find("\n# In the yard").expect("there");
        assert_eq!(text, format!("{}{}", &FILE[..start - 1], &FILE[end..]));

        let text = edited(FILE, |draft| draft.remove("till-02")).expect("removed");
        assert!(
            !text.contains("yard") && text.contains("# --- roles ---"),
            "{text}"
        );

        let text = edited(
            "# Head.\n\n[users.a]\npassword = \"x\"\n# End.\n",
            |draft| draft.remove("a"),
        );
        assert_eq!(text.expect("removed"), "# Head.\n# End.\n");

        let text = edited(
            "[users]\na = { password = \"x\" }\nb.password = \"y\"\n",
            |draft| {
                draft.remove("a")?;
                draft.remove("b")
            },
        );
        assert_eq!(text.expect("removed"), "[users]\n");
    }

    #[test]
    fn an_unknown_user_is_named_with_the_likely_one() {
        for change in [Draft::remove, |draft: &mut Draft, name: &str| {
            draft.set(name, "x", 1)
        }] {
            let error = edited(FILE, |draft| change(draft, "till-1")).expect_err("unknown");
            let message = error.to_string();
            assert!(
                message.starts_with("there is no user `till-1`; did you mean `till-0"),
                "{message}"
            );
        }
        let error = edited("", |draft| draft.remove("x")).expect_err("unknown");
        assert_eq!(error.to_string(), "there is no user `x`");
    }
}
