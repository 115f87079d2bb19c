//! Pure: a TOML document that knows the spans of its values and reports all problems at once.
//!
//! A deserializer stops at the first error. So a section is deserialized repeatedly, each time without the
//! value that was invalid, until the rest of it is valid.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::explain::explain;
use super::report::{Problem, Problems};
use super::suggest;
pub(crate) use super::toml_text::TomlText;

/// A parsed file, the problems found so far, and the keys removed because of them.
pub(crate) struct Document<'s> {
    source: &'s TomlText,
    table: DeTable<'s>,
    problems: Problems,
    removed: Vec<RemovedKey>,
}

/// A step of a path to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// The value of this key.
    Key(&'a str),
    /// The element at this index.
    Element(usize),
}

struct RemovedKey {
    section: String,
    table: Range<usize>,
    key: String,
}

impl<'s> Document<'s> {
    /// Parses as much as can be parsed.
    pub(crate) fn new(source: &'s TomlText) -> Self {
        let (table, _) = DeTable::parse_recoverable(source.readable());
        let problems = source.problems().clone();
        Self {
            source,
            table: table.into_inner(),
            problems,
            removed: Vec::new(),
        }
    }

    /// Reports all sections that are not in `known`. `section_of` gives the section of a misplaced key.
    pub(crate) fn refuse_other_sections(
        &mut self,
        known: &[&str],
        section_of: impl Fn(&str) -> Option<String>,
    ) {
        let mut problems = Vec::new();
        for (key, value) in &self.table {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let sections = format!("the sections are {}", known.join(", "));
            let remedy = match (section_of(name), suggest::nearest(name, known)) {
                (Some(section), _) => format!("it belongs under [{section}]"),
                (None, Some(near)) => format!("did you mean `{near}`? {sections}"),
                (None, None) => sections,
            };
            let message = match value.get_ref() {
                DeValue::Table(_) | DeValue::Array(_) => format!("unknown section `{name}`"),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => format!("`{name}` is outside of any section"),
            };
            problems.push(Problem::error(message).at(Some(key.span())).remedy(remedy));
        }
        problems
            .into_iter()
            .for_each(|problem| self.report(problem));
    }

    /// Reads the section `[name]`; `None` if there is none. Invalid values are reported and left out.
    pub(crate) fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.table.get(name)?;
        // serde would deserialize a list into a struct, field by field.
        if !value.get_ref().is_table() {
            let problem = Problem::error(format!("`{name}` is a single section"))
                .at(Some(value.span()))
                .remedy(format!("write [{name}] and its keys below it"));
            return self.discard(name, problem);
        }
        self.read(name)
    }

    /// Reads all sections `[[name]]`; `None` if there are none.
    pub(crate) fn sections<T: DeserializeOwned>(&mut self, name: &str) -> Option<Vec<T>> {
        let value = self.table.get(name)?;
        if !value.get_ref().is_array() {
            let problem = Problem::error(format!("there can be several `{name}`"))
                .at(Some(value.span()))
                .remedy(format!("write [[{name}]], with two brackets, above each"));
            return self.discard(name, problem);
        }
        self.read(name)
    }

    /// Reads all sections `[name.NAME]` by their own names; `None` when the file has none.
    pub(crate) fn named_sections<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Option<BTreeMap<String, T>> {
        let value = self.table.get(name)?;
        let is_table = |value: &Spanned<DeValue<'_>>| value.get_ref().is_table();
        let problem = match value.get_ref() {
            DeValue::Table(below) => below.iter().find(|(_, it)| !is_table(it)).map(|(key, _)| {
                let key = (key.get_ref(), key.span());
                Problem::error(format!(
                    "`{}` does not stand in a section `{name}.NAME`",
                    key.0
                ))
                .at(Some(key.1))
            }),
            DeValue::Array(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                let problem = Problem::error(format!("there can be several `{name}`, by name"));
                Some(problem.at(Some(value.span())))
            }
        };
        match problem {
            Some(problem) => {
                let remedy =
                    format!("write [{name}.NAME], with a name of your own, above its keys");
                self.discard(name, problem.remedy(remedy))
            }
            None => self.read(name),
        }
    }

    fn discard<T>(&mut self, name: &str, problem: Problem) -> Option<T> {
        self.table.remove(name);
        self.report(problem);
        None
    }

    fn read<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        loop {
            let value = self.table.get(name)?;
            let error = match T::deserialize(value.clone().into_deserializer()) {
                Ok(section) => return Some(section),
                Err(error) => error,
            };
            let span = error.span().unwrap_or_default();
            let explained = explain(error.message(), name);
            let known = explained.missing.is_some_and(|key| {
                self.removed
                    .iter()
                    .any(|gone| gone.key == key && gone.table == span)
            });
            if !known {
                self.report(explained.problem.at(error.span()));
            }
            self.remove(name, &span, explained.intended);
        }
    }

    /// The span of the value at `path`.
    pub(crate) fn span(&self, path: &[Step<'_>]) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let Step::Key(key) = first else { return None };
        let mut value = self.table.get(*key)?;
        for step in rest {
            value = match (step, value.get_ref()) {
                (Step::Key(key), DeValue::Table(table)) => table.get(*key)?,
                (Step::Element(index), DeValue::Array(array)) => array.get(*index)?,
                (Step::Key(_) | Step::Element(_), _) => return None,
            };
        }
        Some(value.span())
    }

    /// Whether something invalid was left out of this key's value, which then differs from what is written.
    pub(crate) fn is_damaged(&self, section: &str, key: &str) -> bool {
        self.removed
            .iter()
            .any(|gone| gone.section == section && gone.key == key)
    }

    /// Reports a problem, unless its line has been reported already for not being TOML.
    pub(crate) fn report(&mut self, problem: Problem) {
        let start = problem.span.as_ref().map(|span| span.start);
        if !start.is_some_and(|start| self.source.is_broken_at(start)) {
            self.problems.push(problem);
        }
    }

    /// All problems found.
    pub(crate) fn into_problems(self) -> Problems {
        self.problems
    }

    /// Removes what is at `span` in the section, or the whole section. `intended` is the correct name of a
    /// misspelt key there.
    fn remove(&mut self, section: &str, span: &Range<usize>, intended: Option<&str>) {
        let Some(value) = self.table.get_mut(section) else {
            return;
        };
        let path = path_to(value, span);
        let mut above = &*value;
        for step in path.iter().rev() {
            if let (OwnedStep::Key(key), DeValue::Table(_)) = (step, above.get_ref()) {
                for key in [Some(key.as_str()), intended].into_iter().flatten() {
                    self.removed.push(RemovedKey {
                        section: section.to_owned(),
                        table: above.span(),
                        key: key.to_owned(),
                    });
                }
            }
            above = step.below(above);
        }
        if remove_at(value, path) == Remaining::Nothing {
            self.table.remove(section);
        }
    }
}

/// A step of a path found by [`path_to`].
enum OwnedStep {
    Key(String),
    Element(usize),
}

impl OwnedStep {
    fn below<'a, 't>(&self, value: &'a Spanned<DeValue<'t>>) -> &'a Spanned<DeValue<'t>> {
        let below = match self {
            Self::Key(key) => value.get_ref().get(key.as_str()),
            Self::Element(index) => value.get_ref().get(*index),
        };
        below.unwrap_or(value)
    }
}

/// The path to the innermost key or value at `span`, last step first; empty if there is none below
/// `value`.
fn path_to(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Vec<OwnedStep> {
    let covers = |value: &Spanned<DeValue<'_>>| {
        let place = value.span();
        place.start <= span.start && span.end <= place.end
    };
    let step = |below: &Spanned<DeValue<'_>>, named: bool, step: OwnedStep| {
        let mut path = path_to(below, span);
        let found = named || !path.is_empty() || covers(below);
        found.then(|| {
            path.push(step);
            path
        })
    };
    let path = match value.get_ref() {
        DeValue::Table(table) => table.iter().find_map(|(key, below)| {
            step(
                below,
                key.span() == *span,
                OwnedStep::Key(key.get_ref().to_string()),
            )
        }),
        DeValue::Array(array) => array
            .iter()
            .enumerate()
            .find_map(|(index, below)| step(below, false, OwnedStep::Element(index))),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    };
    path.unwrap_or_default()
}

#[derive(PartialEq, Eq)]
enum Remaining {
    Something,
    Nothing,
}

/// Removes the value at `path`, and arrays that become empty by it, which would be reported as another
/// problem.
fn remove_at(value: &mut Spanned<DeValue<'_>>, mut path: Vec<OwnedStep>) -> Remaining {
    match (path.pop(), value.get_mut()) {
        (Some(OwnedStep::Key(key)), DeValue::Table(table)) => {
            let left = table
                .get_mut(key.as_str())
                .map(|below| remove_at(below, path));
            if left == Some(Remaining::Nothing) {
                table.remove(key.as_str());
            }
            Remaining::Something
        }
        (Some(OwnedStep::Element(index)), DeValue::Array(array)) => {
            let left = array.get_mut(index).map(|below| remove_at(below, path));
            if left == Some(Remaining::Nothing) {
                let rest = std::mem::replace(array, DeArray::new())
                    .into_iter()
                    .enumerate();
                *array = rest
                    .filter(|&(i, _)| i != index)
                    .map(|(_, kept)| kept)
                    .collect();
            }
            if array.is_empty() {
                Remaining::Nothing
            } else {
                Remaining::Something
            }
        }
        (Some(OwnedStep::Key(_) | OwnedStep::Element(_)) | None, _) => Remaining::Nothing,
    }
}
