//! Pure: sets of form names.

use std::cmp::Ordering;

use super::RightsError;

/// A set of form names.
///
/// ASCII letters match in either case, as in the backend. All other characters match only themselves: a
/// name that some collation would fold to an allowed one is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormSet {
    /// Sorted ignoring case; none begins with one of `prefixes`.
    names: Vec<Box<str>>,
    /// Sorted ignoring case; none begins with another, so only the last one that does not sort after a
    /// name can be a prefix of it.
    prefixes: Vec<Box<str>>,
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
            .prefixes
            .partition_point(|start| compare(start, form).is_le());
        named
            || after
                .checked_sub(1)
                .is_some_and(|at| has_prefix(form, &self.prefixes[at]))
    }

    /// The names in it, and the prefixes with a `*` after each.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let prefixes = self.prefixes.iter().map(|prefix| format!("{prefix}*"));
        self.names.iter().map(ToString::to_string).chain(prefixes)
    }

    pub(super) fn compile(entry: usize, forms: &[String]) -> Result<Self, RightsError> {
        if forms.is_empty() {
            return Err(RightsError::NoForms { entry });
        }
        let mut set = Self::default();
        for form in forms {
            let prefix = form.strip_suffix('*');
            let text = prefix.unwrap_or(form);
            if form.is_empty() || text.contains('*') {
                return Err(RightsError::MalformedForm {
                    entry,
                    form: form.clone(),
                });
            }
            match prefix {
                Some(prefix) => set.prefixes.push(prefix.into()),
                None => set.names.push(form.as_str().into()),
            }
        }
        set.order();
        Ok(set)
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.names.extend_from_slice(&other.names);
        self.prefixes.extend_from_slice(&other.prefixes);
        self.order();
    }

    /// Restores the invariants of the fields.
    fn order(&mut self) {
        self.prefixes.sort_by(|a, b| compare(a, b));
        self.prefixes
            .dedup_by(|later, earlier| has_prefix(later, earlier));
        self.names.sort_by(|a, b| compare(a, b));
        self.names
            .dedup_by(|later, earlier| compare(later, earlier).is_eq());
        let prefixes = &self.prefixes;
        self.names
            .retain(|name| !prefixes.iter().any(|prefix| has_prefix(name, prefix)));
    }
}

/// Compares names bytewise, ignoring ASCII case, eight bytes at a time.
fn compare(a: &str, b: &str) -> Ordering {
    let (words_a, _) = a.as_bytes().as_chunks::<8>();
    let (words_b, _) = b.as_bytes().as_chunks::<8>();
    for (word_a, word_b) in words_a.iter().zip(words_b) {
        let order = lower_word(*word_a).cmp(&lower_word(*word_b));
        if order.is_ne() {
            return order;
        }
    }
    let same = 8 * words_a.len().min(words_b.len());
    lower(&a.as_bytes()[same..]).cmp(lower(&b.as_bytes()[same..]))
}

fn lower(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    text.iter().map(u8::to_ascii_lowercase)
}

/// Eight bytes in lower case, as a number that sorts like them.
fn lower_word(word: [u8; 8]) -> u64 {
    let word = u64::from_be_bytes(word);
    // The addition carries into the highest bit of each byte at or beyond the letter.
    let seven = word & (0x7F * EACH);
    let from_a = seven + (0x80 - u64::from(b'A')) * EACH;
    let after_z = seven + (0x7F - u64::from(b'Z')) * EACH;
    let upper = from_a & !after_z & !word & (0x80 * EACH);
    word | upper >> 2
}

/// A one in each byte.
const EACH: u64 = u64::MAX / 255;

/// Whether a name begins with a prefix, ignoring ASCII case.
fn has_prefix(name: &str, prefix: &str) -> bool {
    let start = name.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::FormSet;
    use crate::policy::rights::RightsError;

    fn set(forms: &[&str]) -> Result<FormSet, RightsError> {
        let forms: Vec<String> = forms.iter().map(ToString::to_string).collect();
        FormSet::compile(7, &forms)
    }

    #[test]
    fn a_form_is_permitted_by_name_or_beginning_ignoring_ascii_case() {
        type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let cases: [Case<'_>; 8] = [
            (
                "name",
                &["Sales"],
                &["Sales", "SALES", "sales"],
                &["", "Sale", "SalesX", "Sales "],
            ),
            (
                "prefix",
                &["Sales*"],
                &["sales", "SALESx", "Sales*"],
                &["", "Sale", "xSales"],
            ),
            ("all", &["*"], &["", "x", "ü"], &[]),
            (
                "names",
                &["b", "a", "C"],
                &["A", "B", "c"],
                &["d", "", "ab"],
            ),
            (
                "nested prefixes",
                &["ab*", "a*", "abc*", "b", "ax"],
                &["a", "ab", "abd", "AX", "az", "b"],
                &["", "ba", "c"],
            ),
            (
                "near prefixes",
                &["aa*", "ac*"],
                &["aa", "aaz", "ACb"],
                &["ab", "a", "ad", "b"],
            ),
            // Other letters than those of ASCII match themselves only.
            (
                "beyond ASCII",
                &["Müller", "ſ"],
                &["Müller", "MüLLER"],
                &["MÜLLER", "s", "Muller"],
            ),
            ("sign for kelvin", &["k*"], &["K", "kx"], &["\u{212A}"]),
        ];
        for (name, forms, permitted, others) in cases {
            let set = set(forms).expect(name);
            for form in permitted {
                assert!(set.permits(form), "{name}: {form:?}");
            }
            for form in others {
                assert!(!set.permits(form), "{name}: {form:?}");
            }
        }
        assert!(!FormSet::default().permits(""), "the empty set");
    }

    #[test]
    fn a_set_says_the_same_as_its_entries_one_by_one() {
        // Every set of up to three of these, against every word.
        let words = ["", "a", "B", "ab", "Ab", "aB", "abc", "ba", "b", "ü"];
        let entries = ["*", "a*", "aB*", "b*", "a", "AB", "abc", "ü"];
        for first in entries {
            for second in entries {
                for third in entries {
                    let set = set(&[first, second, third]).expect("well formed");
                    let mut halves = self::set(&[first]).expect("well formed");
                    halves.merge(&self::set(&[third, second]).expect("well formed"));
                    assert_eq!(set, halves, "merged in another order");
                    for word in words {
                        let lower = word.to_ascii_lowercase();
                        let permits = |entry: &str| {
                            let entry = entry.to_ascii_lowercase();
                            match entry.strip_suffix('*') {
                                Some(prefix) => lower.starts_with(prefix),
                                None => lower == entry,
                            }
                        };
                        let wanted = [first, second, third].into_iter().any(permits);
                        let name = format!("{word:?} in {first} {second} {third}");
                        assert_eq!(set.permits(word), wanted, "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_ordered_as_byte_by_byte() {
        let words: Vec<String> = ('\0'..='\u{ff}')
            .flat_map(|c| {
                [
                    "x".to_owned(),
                    format!("{c}"),
                    format!("SalesIn{c}"),
                    format!("salesi{c}x{c}1"),
                ]
            })
            .chain(["SalesInvoice", "SALESINVOICES", "salesinv", "salesin"].map(str::to_owned))
            .collect();
        for a in &words {
            for b in &words {
                let wanted = a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase());
                assert_eq!(super::compare(a, b), wanted, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn entries_that_mean_nothing_are_refused() {
        let malformed = |form: &str| RightsError::MalformedForm {
            entry: 7,
            form: form.to_owned(),
        };
        let cases: [(&[&str], RightsError); 4] = [
            (&[], RightsError::NoForms { entry: 7 }),
            (&["a", ""], malformed("")),
            (&["a*b"], malformed("a*b")),
            (&["a**"], malformed("a**")),
        ];
        for (forms, wanted) in cases {
            assert_eq!(set(forms), Err(wanted), "{forms:?}");
        }
    }
}
