//! Pure: which routes, methods and forms a user may reach, compiled into a table when the accounts
//! are read. No entry means no right; nothing here is ever stored with a token.

use std::cmp::Ordering;

use http::Method;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// `allow` in the account file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// `"*"`: everything that is routed, with the body unread.
    Everything,
    /// What is listed, and nothing else.
    Entries(Vec<AllowEntry>),
}

/// One entry of a list of rights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowEntry {
    /// The path of a configured route, ignoring ASCII case.
    pub route: String,
    /// The methods; every method of the route when absent.
    #[serde(default, deserialize_with = "methods")]
    pub methods: Option<Vec<Method>>,
    /// The forms: whole names, or beginnings of names followed by `*`. When absent the body is not
    /// read.
    #[serde(default)]
    pub forms: Option<Vec<String>>,
}

/// What becomes of a request without the right to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is logged and passes.
    Report,
}

/// An entry that cannot be compiled; `entry` is its place in the list, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// No route has this path.
    #[error("no route has the path `{route}`")]
    UnknownRoute {
        /// The entry.
        entry: usize,
        /// The path it names.
        route: String,
    },
    /// `methods` is there but empty.
    #[error("`methods` is empty: name a method, or leave it out to allow every method")]
    NoMethods {
        /// The entry.
        entry: usize,
    },
    /// `forms` is there but empty.
    #[error("`forms` is empty: name a form, or leave it out to allow every form")]
    NoForms {
        /// The entry.
        entry: usize,
    },
    /// A form is empty or has a `*` before its end.
    #[error("the form `{form}` is neither a name nor a beginning followed by one `*`")]
    MalformedForm {
        /// The entry.
        entry: usize,
        /// The form as written.
        form: String,
    },
}

impl RightsError {
    /// The place of the entry in its list, from 0.
    #[must_use]
    pub fn entry(&self) -> usize {
        match self {
            Self::UnknownRoute { entry, .. }
            | Self::NoMethods { entry }
            | Self::NoForms { entry }
            | Self::MalformedForm { entry, .. } => *entry,
        }
    }
}

/// The compiled rights of one user. The default is no right at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    everything: bool,
    /// By the index of the route.
    routes: Vec<RouteRights>,
}

/// The verdict on a request whose body has not been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Whatever the body.
    Allowed,
    /// If the form in the body is one of these.
    AllowedForForms(&'a FormSet),
    /// Whatever the body.
    Denied(MissingRight),
}

/// What a user has no right to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MissingRight {
    /// The route, with any method.
    #[error("no right to this route")]
    Route,
    /// The method, on a route that others are allowed on.
    #[error("no right to this method on this route")]
    Method,
    /// The form, with a method that others are allowed with.
    #[error("no right to this form on this route")]
    Form,
}

/// A set of form names.
///
/// ASCII letters match in either case, as the backend matches them. Every other character matches
/// itself only: a name that some collation would fold to an allowed one is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormSet {
    /// Sorted ignoring case; none begins with one of `beginnings`.
    names: Vec<Box<str>>,
    /// Sorted ignoring case; none begins with another, so only the last one that is not after a
    /// name can be its beginning.
    beginnings: Vec<Box<str>>,
}

/// The rights on one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct RouteRights {
    /// The methods that entries name; each has what entries for every method grant, too.
    methods: Vec<(Method, Grant)>,
    /// Every other method.
    others: Option<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Grant {
    AnyBody,
    Forms(FormSet),
}

impl Rights {
    /// Compiles a list; `routes` are the configured paths in the order of their indices.
    ///
    /// # Errors
    /// The first entry that means nothing.
    pub fn compile(allow: &Allow, routes: &[impl AsRef<str>]) -> Result<Self, RightsError> {
        let entries = match allow {
            Allow::Everything => {
                return Ok(Self {
                    everything: true,
                    routes: Vec::new(),
                });
            }
            Allow::Entries(entries) => entries,
        };
        let mut rights = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            rights.add(index, entry, routes)?;
        }
        Ok(rights)
    }

    /// What either allows: a user's own rights together with those of a role.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.everything |= other.everything;
        for (index, theirs) in other.routes.iter().enumerate() {
            let ours = self.route_mut(index);
            for (method, grant) in &theirs.methods {
                ours.grant(method, grant);
            }
            if let Some(grant) = &theirs.others {
                ours.grant_all(grant);
            }
        }
        self
    }

    /// Judges a request by what is known before its body. Does not allocate.
    #[must_use]
    pub fn decide(&self, route: usize, method: &Method) -> Decision<'_> {
        if self.everything {
            return Decision::Allowed;
        }
        let Some(rights) = self.routes.get(route).filter(|rights| !rights.is_empty()) else {
            return Decision::Denied(MissingRight::Route);
        };
        let named = rights.methods.iter().find(|(named, _)| named == method);
        match named.map(|(_, grant)| grant).or(rights.others.as_ref()) {
            Some(Grant::AnyBody) => Decision::Allowed,
            Some(Grant::Forms(forms)) => Decision::AllowedForForms(forms),
            None => Decision::Denied(MissingRight::Method),
        }
    }

    fn add(
        &mut self,
        index: usize,
        entry: &AllowEntry,
        routes: &[impl AsRef<str>],
    ) -> Result<(), RightsError> {
        let same = |path: &str| path.eq_ignore_ascii_case(&entry.route);
        let Some(route) = routes.iter().position(|path| same(path.as_ref())) else {
            let route = entry.route.clone();
            return Err(RightsError::UnknownRoute {
                entry: index,
                route,
            });
        };
        let grant = match &entry.forms {
            None => Grant::AnyBody,
            Some(forms) => Grant::Forms(FormSet::compile(index, forms)?),
        };
        let rights = self.route_mut(route);
        match &entry.methods {
            None => rights.grant_all(&grant),
            Some(methods) if methods.is_empty() => {
                return Err(RightsError::NoMethods { entry: index });
            }
            Some(methods) => methods
                .iter()
                .for_each(|method| rights.grant(method, &grant)),
        }
        Ok(())
    }

    fn route_mut(&mut self, index: usize) -> &mut RouteRights {
        if self.routes.len() <= index {
            self.routes.resize_with(index + 1, RouteRights::default);
        }
        &mut self.routes[index]
    }
}

impl RouteRights {
    fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.others.is_none()
    }

    fn grant(&mut self, method: &Method, grant: &Grant) {
        match self.methods.iter_mut().find(|(named, _)| named == method) {
            Some((_, granted)) => granted.merge(grant),
            None => {
                let mut granted = grant.clone();
                if let Some(others) = &self.others {
                    granted.merge(others);
                }
                self.methods.push((method.clone(), granted));
            }
        }
    }

    fn grant_all(&mut self, grant: &Grant) {
        for (_, granted) in &mut self.methods {
            granted.merge(grant);
        }
        match &mut self.others {
            Some(granted) => granted.merge(grant),
            others @ None => *others = Some(grant.clone()),
        }
    }
}

impl Grant {
    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::AnyBody, _) => {}
            (Self::Forms(_), Self::AnyBody) => *self = Self::AnyBody,
            (Self::Forms(forms), Self::Forms(more)) => forms.merge(more),
        }
    }
}

impl FormSet {
    /// Whether a form is in the set. Does not allocate.
    #[must_use]
    pub fn permits(&self, form: &str) -> bool {
        let named = self
            .names
            .binary_search_by(|name| compare(name, form))
            .is_ok();
        let after = self
            .beginnings
            .partition_point(|start| compare(start, form).is_le());
        named
            || after
                .checked_sub(1)
                .is_some_and(|at| begins(form, &self.beginnings[at]))
    }

    fn compile(entry: usize, forms: &[String]) -> Result<Self, RightsError> {
        if forms.is_empty() {
            return Err(RightsError::NoForms { entry });
        }
        let mut set = Self::default();
        for form in forms {
            let beginning = form.strip_suffix('*');
            let text = beginning.unwrap_or(form);
            if form.is_empty() || text.contains('*') {
                return Err(RightsError::MalformedForm {
                    entry,
                    form: form.clone(),
                });
            }
            match beginning {
                Some(beginning) => set.beginnings.push(beginning.into()),
                None => set.names.push(form.as_str().into()),
            }
        }
        set.order();
        Ok(set)
    }

    fn merge(&mut self, other: &Self) {
        self.names.extend_from_slice(&other.names);
        self.beginnings.extend_from_slice(&other.beginnings);
        self.order();
    }

    /// Restores what the fields promise.
    fn order(&mut self) {
        self.beginnings.sort_by(|a, b| compare(a, b));
        self.beginnings
            .dedup_by(|later, earlier| begins(later, earlier));
        self.names.sort_by(|a, b| compare(a, b));
        self.names
            .dedup_by(|later, earlier| compare(later, earlier).is_eq());
        let beginnings = &self.beginnings;
        self.names
            .retain(|name| !beginnings.iter().any(|beginning| begins(name, beginning)));
    }
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllowVisitor)
    }
}

struct AllowVisitor;

impl<'de> Visitor<'de> for AllowVisitor {
    type Value = Allow;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("\"*\" or a list of { route, methods, forms }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Allow, E> {
        if text == "*" {
            Ok(Allow::Everything)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Allow, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Allow::Entries(entries))
    }
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Method>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let parse = |name: String| match Method::from_bytes(name.as_bytes()) {
        // Methods differ by case: `post` would be a right to nothing.
        Ok(method) if !name.contains(|c: char| c.is_ascii_lowercase()) => Ok(method),
        Ok(_) | Err(_) => Err(de::Error::invalid_value(
            de::Unexpected::Str(&name),
            &"a method in capital letters, such as \"POST\"",
        )),
    };
    names
        .into_iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Orders names ignoring ASCII case.
fn compare(a: &str, b: &str) -> Ordering {
    lower(a).cmp(lower(b))
}

fn lower(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.bytes().map(|byte| byte.to_ascii_lowercase())
}

/// Whether a name begins so, ignoring ASCII case.
fn begins(name: &str, beginning: &str) -> bool {
    let start = name.as_bytes().get(..beginning.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(beginning.as_bytes()))
}
