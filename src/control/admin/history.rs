//! What the gateway did in the last hour or day, as a whole or by one name.

use jiff::Timestamp;

use crate::clock::UnixSeconds;
use crate::control::history::{History, Span};
use crate::gateway::reply::Reply;

/// Which part of the history.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HistoryQuery {
    span: Span,
    /// Only what ended after this moment.
    after: Option<UnixSeconds>,
    of: Option<Of>,
}

#[derive(Debug, PartialEq, Eq)]
enum Of {
    Route(String),
    Server(String),
}

impl HistoryQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let (mut span, mut after, mut of) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let again = match (&*key, &*value) {
                ("span", "hour") => span.replace(Span::Hour).is_some(),
                ("span", "day") => span.replace(Span::Day).is_some(),
                ("span", _) => return Err("span is hour or day"),
                ("after", text) => after.replace(moment(text)?).is_some(),
                ("route", name) => of.replace(Of::Route(name.to_owned())).is_some(),
                ("server", name) => of.replace(Of::Server(name.to_owned())).is_some(),
                _ => {
                    return Err("the parameters here are span, after, and one of route and server");
                }
            };
            if again {
                return Err("a parameter occurs twice, or both route and server do");
            }
        }
        let span = span.unwrap_or_default();
        Ok(Self { span, after, of })
    }

    /// That part of it.
    pub(super) fn answer(&self, history: &History) -> Reply {
        let after = self.after.unwrap_or(UnixSeconds::new(0));
        match &self.of {
            None => Reply::document(&history.show(self.span, after)),
            Some(Of::Route(name)) => Reply::document(&history.show_route(self.span, after, name)),
            Some(Of::Server(name)) => Reply::document(&history.show_server(self.span, after, name)),
        }
    }
}

fn moment(text: &str) -> Result<UnixSeconds, &'static str> {
    let seconds = text.parse::<Timestamp>().map(Timestamp::as_second).ok();
    let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
    seconds
        .map(UnixSeconds::new)
        .ok_or("after is a time as in 2026-01-31T18:00:00Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let route = Some(Of::Route("/api/a b".to_owned()));
        let all = HistoryQuery {
            span: Span::Day,
            after: Some(UnixSeconds::new(7)),
            of: route,
        };
        for (query, expected) in [
            ("", Some(HistoryQuery::default())),
            ("span=hour", Some(HistoryQuery::default())),
            (
                "span=day&after=1970-01-01T00:00:07Z&route=%2Fapi%2Fa+b",
                Some(all),
            ),
            ("span=week", None),
            ("span=day&span=day", None),
            ("after=7", None),
            ("after=1969-12-31T23:59:59Z", None),
            ("route=a&server=b", None),
            ("server=a&server=a", None),
            ("Span=day", None),
        ] {
            assert_eq!(HistoryQuery::parse(query).ok(), expected, "{query}");
        }
    }
}
