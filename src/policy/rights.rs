//! Pure: which routes, methods and forms a user may use, compiled into a table when the accounts are
//! loaded. Whatever no entry allows is denied. Nothing here is stored with a token.

mod forms;
mod source;

use http::Method;

pub use forms::FormSet;
pub use source::{Allow, AllowEntry, Mode};

/// An entry that cannot be compiled; `entry` is its index in the list.
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
    /// `methods` is present but empty.
    #[error("`methods` is empty: name a method, or leave it out to allow every method")]
    NoMethods {
        /// The entry.
        entry: usize,
    },
    /// `forms` is present but empty.
    #[error("`forms` is empty: name a form, or leave it out to allow every form")]
    NoForms {
        /// The entry.
        entry: usize,
    },
    /// A form is empty or has a `*` before its end.
    #[error("the form `{form}` is neither a name nor a prefix followed by one `*`")]
    MalformedForm {
        /// The entry.
        entry: usize,
        /// The form as written.
        form: String,
    },
}

impl RightsError {
    /// The index of the entry in its list.
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

/// The compiled rights of a user. The default is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    everything: bool,
    /// Indexed by route.
    routes: Vec<RouteRights>,
}

/// The decision on a request before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Allowed with any body.
    Allowed,
    /// Allowed if the body's form is one of these.
    AllowedForForms(&'a FormSet),
    /// Denied with any body.
    Denied(MissingRight),
}

/// The right that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MissingRight {
    /// To the route, with any method.
    #[error("no right to this route")]
    Route,
    /// To the method; others are allowed on the route.
    #[error("no right to this method on this route")]
    Method,
    /// To the form; others are allowed with the method.
    #[error("no right to this form on this route")]
    Form,
}

/// The rights on one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct RouteRights {
    /// The methods that entries name, each merged with the entries for all methods.
    methods: Vec<(Method, AllowedForms)>,
    /// All other methods.
    others: Option<AllowedForms>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AllowedForms {
    Any,
    Listed(FormSet),
}

impl Rights {
    /// Compiles a list of rights; `routes` are the configured paths, by index.
    ///
    /// # Errors
    /// The first entry that has no meaning.
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

    /// Everything that either allows: a user's own rights combined with those of a role.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.everything |= other.everything;
        for (index, theirs) in other.routes.iter().enumerate() {
            let ours = self.route_mut(index);
            for (method, forms) in &theirs.methods {
                ours.add(method, forms);
            }
            if let Some(forms) = &theirs.others {
                ours.add_for_all(forms);
            }
        }
        self
    }

    /// Decides a request before its body is read. Does not allocate.
    #[must_use]
    pub fn decide(&self, route: usize, method: &Method) -> Decision<'_> {
        if self.everything {
            return Decision::Allowed;
        }
        let Some(rights) = self.routes.get(route).filter(|rights| !rights.is_empty()) else {
            return Decision::Denied(MissingRight::Route);
        };
        let named = rights.methods.iter().find(|(named, _)| named == method);
        match named.map(|(_, forms)| forms).or(rights.others.as_ref()) {
            Some(AllowedForms::Any) => Decision::Allowed,
            Some(AllowedForms::Listed(forms)) => Decision::AllowedForForms(forms),
            None => Decision::Denied(MissingRight::Method),
        }
    }

    /// Decides a request with its form. Does not allocate.
    ///
    /// # Errors
    /// The right that is missing.
    pub fn decide_with_form(
        &self,
        route: usize,
        method: &Method,
        form: &str,
    ) -> Result<(), MissingRight> {
        match self.decide(route, method) {
            Decision::Allowed => Ok(()),
            Decision::AllowedForForms(forms) if forms.permits(form) => Ok(()),
            Decision::AllowedForForms(_) => Err(MissingRight::Form),
            Decision::Denied(missing) => Err(missing),
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
        let forms = match &entry.forms {
            None => AllowedForms::Any,
            Some(forms) => AllowedForms::Listed(FormSet::compile(index, forms)?),
        };
        let rights = self.route_mut(route);
        match &entry.methods {
            None => rights.add_for_all(&forms),
            Some(methods) if methods.is_empty() => {
                return Err(RightsError::NoMethods { entry: index });
            }
            Some(methods) => methods.iter().for_each(|method| rights.add(method, &forms)),
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

    fn add(&mut self, method: &Method, forms: &AllowedForms) {
        match self.methods.iter_mut().find(|(named, _)| named == method) {
            Some((_, allowed)) => allowed.merge(forms),
            None => {
                let mut allowed = forms.clone();
                if let Some(others) = &self.others {
                    allowed.merge(others);
                }
                self.methods.push((method.clone(), allowed));
            }
        }
    }

    fn add_for_all(&mut self, forms: &AllowedForms) {
        for (_, allowed) in &mut self.methods {
            allowed.merge(forms);
        }
        match &mut self.others {
            Some(allowed) => allowed.merge(forms),
            others @ None => *others = Some(forms.clone()),
        }
    }
}

impl AllowedForms {
    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Any, _) => {}
            (Self::Listed(_), Self::Any) => *self = Self::Any,
            (Self::Listed(forms), Self::Listed(more)) => forms.merge(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Allow, AllowEntry, Decision, MissingRight, Rights, RightsError};

    const ROUTES: [&str; 3] = ["/api/SyncData", "/api/SyncVoucher", "/api/GetData"];
    const FORMS: [&str; 3] = ["A", "B", "AB"];

    fn entry(route: &str, methods: &[Method], forms: &[&str]) -> AllowEntry {
        AllowEntry {
            route: route.to_owned(),
            methods: (!methods.is_empty()).then(|| methods.to_vec()),
            forms: (!forms.is_empty()).then(|| forms.iter().map(ToString::to_string).collect()),
        }
    }

    fn rights(entries: &[AllowEntry]) -> Rights {
        Rights::compile(&Allow::Entries(entries.to_vec()), &ROUTES).expect("valid entries")
    }

    /// The decision in short: `all`, `route`, `method`, or which of the forms A, B and AB are allowed.
    fn verdict(rights: &Rights, route: usize, method: &Method) -> String {
        match rights.decide(route, method) {
            Decision::Allowed => "all".to_owned(),
            Decision::Denied(MissingRight::Route) => "route".to_owned(),
            Decision::Denied(MissingRight::Method) => "method".to_owned(),
            Decision::Denied(MissingRight::Form) => "form".to_owned(),
            Decision::AllowedForForms(forms) => {
                let passes: Vec<&str> = FORMS
                    .into_iter()
                    .filter(|form| forms.permits(form))
                    .collect();
                passes.join(" ")
            }
        }
    }

    /// The decision with each of the forms must agree with the one without.
    fn assert_fits(rights: &Rights, route: usize, method: &Method, verdict: &str) {
        for form in FORMS {
            let wanted = match verdict {
                "all" => Ok(()),
                "route" => Err(MissingRight::Route),
                "method" => Err(MissingRight::Method),
                forms if forms.split(' ').any(|listed| listed == form) => Ok(()),
                _ => Err(MissingRight::Form),
            };
            assert_eq!(
                rights.decide_with_form(route, method, form),
                wanted,
                "{form}"
            );
        }
    }

    #[test]
    fn entries_add_up_in_any_order() {
        let (get, post) = (Method::GET, Method::POST);
        let a = entry("/api/syncdata", std::slice::from_ref(&post), &["A"]);
        let b = entry("/api/SyncData", std::slice::from_ref(&post), &["B"]);
        let beginning = entry("/api/SyncData", &[], &["A*"]);
        let whole = entry("/api/SyncData", std::slice::from_ref(&get), &[]);
        let open = entry("/api/SyncData", &[], &[]);
        let other = entry("/api/GetData", &[get.clone(), post.clone()], &[]);
        // What POST, GET and PUT on the first route give, then POST on the others.
        let cases: [(&str, Vec<&AllowEntry>, [&str; 5]); 9] = [
            (
                "nothing",
                vec![],
                ["route", "route", "route", "route", "route"],
            ),
            (
                "one form",
                vec![&a],
                ["A", "method", "method", "route", "route"],
            ),
            (
                "two forms",
                vec![&a, &b],
                ["A B", "method", "method", "route", "route"],
            ),
            (
                "any method",
                vec![&beginning],
                ["A AB", "A AB", "A AB", "route", "route"],
            ),
            (
                "both",
                vec![&b, &beginning],
                ["A B AB", "A AB", "A AB", "route", "route"],
            ),
            (
                "whole",
                vec![&a, &whole],
                ["A", "all", "method", "route", "route"],
            ),
            (
                "whole for one method",
                vec![&whole, &beginning, &b],
                ["A B AB", "all", "A AB", "route", "route"],
            ),
            (
                "open",
                vec![&a, &open, &beginning],
                ["all", "all", "all", "route", "route"],
            ),
            (
                "another route",
                vec![&a, &other],
                ["A", "method", "method", "route", "all"],
            ),
        ];
        for (name, entries, wanted) in cases {
            let entries: Vec<AllowEntry> = entries.into_iter().cloned().collect();
            let reversed: Vec<AllowEntry> = entries.iter().rev().cloned().collect();
            let one_by_one = entries.iter().fold(Rights::default(), |all, entry| {
                all.union(&rights(std::slice::from_ref(entry)))
            });
            let alone = rights(&entries).union(&Rights::default());
            for rights in [rights(&entries), rights(&reversed), one_by_one, alone] {
                let verdicts = [
                    verdict(&rights, 0, &post),
                    verdict(&rights, 0, &get),
                    verdict(&rights, 0, &Method::PUT),
                    verdict(&rights, 1, &post),
                    verdict(&rights, 2, &post),
                ];
                assert_eq!(verdicts, wanted, "{name}");
                let asked = [
                    (0, &post),
                    (0, &get),
                    (0, &Method::PUT),
                    (1, &post),
                    (2, &post),
                ];
                for ((route, method), verdict) in asked.into_iter().zip(wanted) {
                    assert_fits(&rights, route, method, verdict);
                }
                assert_eq!(verdict(&rights, 3, &post), "route", "{name}: no such route");
            }
        }
    }

    #[test]
    fn everything_is_allowed_only_when_written() {
        let everything = Rights::compile(&Allow::Everything, &ROUTES).expect("no entries");
        let some = rights(&[entry("/api/GetData", &[], &["A"])]);
        for route in 0..4 {
            assert_eq!(everything.decide(route, &Method::DELETE), Decision::Allowed);
            for union in [
                everything.clone().union(&some),
                some.clone().union(&everything),
            ] {
                assert_eq!(union.decide(route, &Method::DELETE), Decision::Allowed);
            }
        }
        assert_eq!(verdict(&Rights::default(), 0, &Method::POST), "route");
    }

    /// The last entry of a list.
    fn allow_alone(allow: &Allow) -> Vec<AllowEntry> {
        match allow {
            Allow::Everything => Vec::new(),
            Allow::Entries(entries) => entries.last().cloned().into_iter().collect(),
        }
    }

    #[test]
    fn an_entry_without_a_meaning_is_named() {
        let good = entry("/api/GetData", &[], &[]);
        let mut no_methods = good.clone();
        no_methods.methods = Some(vec![]);
        let unknown = entry("/api/GetDate", &[], &[]);
        let form = entry("/api/GetData", &[], &["*a"]);
        let cases = [
            (
                unknown,
                RightsError::UnknownRoute {
                    entry: 1,
                    route: "/api/GetDate".to_owned(),
                },
                "no route has the path `/api/GetDate`",
            ),
            (
                no_methods,
                RightsError::NoMethods { entry: 1 },
                "`methods` is empty",
            ),
            (
                form,
                RightsError::MalformedForm {
                    entry: 1,
                    form: "*a".to_owned(),
                },
                "the form `*a` is neither",
            ),
        ];
        for (wrong, wanted, text) in cases {
            let allow = Allow::Entries(vec![good.clone(), wrong]);
            let error = Rights::compile(&allow, &ROUTES).expect_err(text);
            assert_eq!(error, wanted);
            assert_eq!(error.entry(), 1, "{text}");
            let first = Allow::Entries(allow_alone(&allow));
            let error = Rights::compile(&first, &ROUTES).expect_err(text);
            assert_eq!(error.entry(), 0, "{text}");
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
