//! Pure: a check, its expectation and its verdict. The tables of checks are in files of their own; a new
//! check is a new line there.

use serde::Serialize;

use super::answer::{Answer, ConnectionState};
use super::frames::{Frames, Outcome};

/// One check.
pub(super) struct Check {
    /// The group it belongs to.
    pub(super) area: &'static str,
    /// What is sent, in a few words.
    pub(super) name: &'static str,
    pub(super) probe: Probe,
}

/// How a check is run.
pub(super) enum Probe {
    /// HTTP/1.1 bytes over TLS; [`super::fill`] lists the placeholders in them.
    Http1(&'static str, Expect),
    /// HTTP/2 frames.
    Http2(fn(&mut Frames), Http2Expect),
    /// TLS versions, cipher suites and extensions.
    Tls(TlsProbe),
    /// Plain HTTP on the HTTPS port.
    PlainOnTls,
    /// Bytes to the plain HTTP port, if one is given.
    PlainPort(&'static str, PlainExpect),
    /// A connection that never sends a ClientHello.
    SilentHandshake,
    /// A failed login as the user, and one as an unknown user.
    UnknownUser,
    /// A response field, and the prefix its value must have.
    Header(&'static str, &'static str),
}

/// The expected outcome of HTTP/1 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// One answer of syncgate's own with one of these, and the end of the connection.
    Refused(&'static [u16]),
    /// One answer of syncgate's own with one of these.
    Answered(&'static [u16]),
    /// These in order; the connection may close before the last.
    InOrder(&'static [u16]),
    /// [`Expect::Refused`], once a timeout of the gateway expires.
    RefusedLate(&'static [u16]),
    /// The connection closes without an answer, once a timeout of the gateway expires.
    EndsLate,
}

/// The expected outcome of HTTP/2 frames.
#[derive(Clone, Copy, Debug)]
pub(super) enum Http2Expect {
    /// A stream error, a connection error, or a 4xx answer.
    Refused,
    /// A connection error.
    Ends,
    /// An answer with this status.
    Answered(u16),
    /// Whatever happens to the connection, the next one is served.
    Survived,
    /// An answer on any stream saying that there are too many at once.
    Bounded,
    /// The connection closes, once a timeout of the gateway expires.
    EndsLate,
    /// A stream error or a closed connection in the middle of an answer, once a timeout of the gateway
    /// expires.
    AbortedLate,
}

/// What the plain port must do.
#[derive(Clone, Copy, Debug)]
pub(super) enum PlainExpect {
    /// Redirect to https on the same host.
    Redirected,
    /// Refuse with this status.
    Refused(u16),
}

/// A TLS check.
#[derive(Clone, Copy, Debug)]
pub(super) enum TlsProbe {
    /// A ClientHello of this version with these cipher suites must be refused.
    Refuses(u16, &'static [u16]),
    /// TLS 1.3 must be supported.
    Speaks13,
    /// A resumed connection must not be offered early data.
    NoEarlyData,
    /// ALPN `http/1.0` alone, as old clients offer it, must be accepted.
    SpeaksHttp10,
    /// An ALPN protocol other than HTTP must be refused.
    NoOtherProtocol,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mark {
    /// The instance did what it must.
    Pass,
    /// It did not.
    Fail,
    /// It could not be run.
    Skipped,
}

/// The verdict on a check: the mark, and the actual outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) mark: Mark,
    pub(super) got: String,
}

impl Verdict {
    pub(super) fn new(passes: bool, got: impl Into<String>) -> Self {
        let mark = if passes { Mark::Pass } else { Mark::Fail };
        let got = got.into();
        Self { mark, got }
    }

    /// A rate limit answered first.
    pub(super) fn limited() -> Self {
        Self::skipped(LIMITED)
    }

    pub(super) fn is_limited(&self) -> bool {
        self.mark == Mark::Skipped && self.got == LIMITED
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        let got = why.into();
        Self {
            mark: Mark::Skipped,
            got,
        }
    }
}

impl Expect {
    /// How many answers to wait for; `None` when only the end of the connection decides.
    pub(super) fn enough(self) -> Option<usize> {
        match self {
            Self::Answered(_) => Some(1),
            Self::Refused(_) | Self::InOrder(_) | Self::RefusedLate(_) | Self::EndsLate => None,
        }
    }

    pub(super) fn evaluate(self, answers: &[Answer], end: ConnectionState) -> Verdict {
        let got = in_words(answers, end);
        if answers.iter().any(|answer| answer.status == TOO_MANY) {
            return Verdict::limited();
        }
        if let Some(what) = answers.iter().find_map(Answer::missing) {
            return Verdict::new(false, format!("{got}, without {what}"));
        }
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let passes = match self {
            Self::Answered(these) => statuses.first().is_some_and(|it| these.contains(it)),
            Self::Refused(these) | Self::RefusedLate(these) => {
                matches!(statuses[..], [one] if these.contains(&one))
                    && end == ConnectionState::Closed
            }
            Self::EndsLate => statuses.is_empty() && end == ConnectionState::Closed,
            Self::InOrder(these) => {
                !statuses.is_empty()
                    && these.starts_with(&statuses)
                    && end == ConnectionState::Closed
            }
        };
        Verdict::new(passes, got)
    }

    pub(super) fn in_words(self) -> String {
        let any = |these: &[u16]| listed(these, " or ");
        match self {
            Self::Refused(these) => format!("{}, once, then closed", any(these)),
            Self::RefusedLate(these) => format!("{}, in time, then closed", any(these)),
            Self::EndsLate => "closed, in time, without an answer".to_owned(),
            Self::Answered(these) => any(these),
            Self::InOrder(these) => format!("{} or less, then closed", listed(these, ", then ")),
        }
    }
}

impl Http2Expect {
    pub(super) fn evaluate(self, outcome: Outcome) -> Verdict {
        if outcome == Outcome::Answered(TOO_MANY) {
            return Verdict::limited();
        }
        let passes = match (self, outcome) {
            // 401 would say that only the token is missing.
            (Self::Refused, Outcome::Answered(status)) => {
                (400..500).contains(&status) && status != 401
            }
            (Self::Refused, Outcome::Reset(code) | Outcome::GoAway(code))
            | (Self::Ends, Outcome::GoAway(code)) => code != 0,
            (Self::Refused | Self::Ends | Self::EndsLate | Self::AbortedLate, Outcome::Closed)
            | (Self::EndsLate | Self::AbortedLate, Outcome::GoAway(_)) => true,
            (Self::AbortedLate, Outcome::Reset(code)) => code != 0,
            (Self::Answered(expected), Outcome::Answered(status)) => status == expected,
            (Self::Survived, Outcome::Silent) => false,
            (Self::Survived, _) => true,
            (
                Self::Refused
                | Self::Ends
                | Self::Answered(_)
                | Self::Bounded
                | Self::EndsLate
                | Self::AbortedLate,
                _,
            ) => false,
        };
        Verdict::new(passes, outcome.in_words())
    }

    pub(super) fn in_words(self) -> String {
        match self {
            Self::Refused => "an error, or 4xx other than 401".to_owned(),
            Self::Ends => "an error of the connection".to_owned(),
            Self::Answered(status) => status.to_string(),
            Self::Survived => "an end, and service goes on".to_owned(),
            Self::Bounded => "429 for some of them".to_owned(),
            Self::EndsLate => "closed, in time".to_owned(),
            Self::AbortedLate => "a stream error or the end, in time".to_owned(),
        }
    }
}

/// The status of an answer that only says that there were too many requests.
pub(super) const TOO_MANY: u16 = 429;
const LIMITED: &str = "a limit of the gateway answered (429)";

fn in_words(answers: &[Answer], end: ConnectionState) -> String {
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let end = match end {
        ConnectionState::Open => "",
        ConnectionState::Closed => "closed",
        ConnectionState::Silent => "left open",
    };
    match (&statuses[..], end) {
        ([], "") => "nothing".to_owned(),
        ([], end) => format!("no answer, {end}"),
        (some, "") => listed(some, ", then "),
        (some, end) => format!("{}, then {end}", listed(some, ", then ")),
    }
}

fn listed(statuses: &[u16], between: &str) -> String {
    let texts: Vec<_> = statuses.iter().map(u16::to_string).collect();
    texts.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(status: u16) -> Answer {
        let fields = [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("x-request-id", "1"),
            ("proxy-status", "syncgate; error=x"),
            ("www-authenticate", "Bearer"),
            ("allow", "POST"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let body = format!(r#"{{"success":false,"messages":"no","code":{status}}}"#);
        Answer {
            status,
            fields: fields.map(owned).to_vec(),
            body: body.into_bytes(),
        }
    }

    #[test]
    fn verdicts() {
        let (refused, answered) = (Expect::Refused(&[400, 401]), Expect::Answered(&[404]));
        let order = Expect::InOrder(&[401, 404]);
        let cases: &[(Expect, &[u16], ConnectionState, Mark)] = &[
            (refused, &[400], ConnectionState::Closed, Mark::Pass),
            (refused, &[401], ConnectionState::Closed, Mark::Pass),
            (refused, &[400], ConnectionState::Silent, Mark::Fail),
            (refused, &[400, 404], ConnectionState::Closed, Mark::Fail),
            (refused, &[200], ConnectionState::Closed, Mark::Fail),
            (refused, &[], ConnectionState::Closed, Mark::Fail),
            (refused, &[429], ConnectionState::Closed, Mark::Skipped),
            (answered, &[404], ConnectionState::Open, Mark::Pass),
            (answered, &[401], ConnectionState::Open, Mark::Fail),
            (answered, &[], ConnectionState::Silent, Mark::Fail),
            (order, &[401, 404], ConnectionState::Closed, Mark::Pass),
            (order, &[401], ConnectionState::Closed, Mark::Pass),
            (order, &[404], ConnectionState::Closed, Mark::Fail),
            (order, &[401, 404, 404], ConnectionState::Closed, Mark::Fail),
            (order, &[], ConnectionState::Closed, Mark::Fail),
        ];
        for (expect, statuses, end, mark) in cases {
            let answers: Vec<_> = statuses.iter().copied().map(own).collect();
            let verdict = expect.evaluate(&answers, *end);
            assert_eq!(
                verdict.mark, *mark,
                "{expect:?} {statuses:?}: {}",
                verdict.got
            );
        }
        let mut foreign = own(400);
        foreign.fields.clear();
        let verdict = refused.evaluate(&[foreign], ConnectionState::Closed);
        assert_eq!(verdict.mark, Mark::Fail);
        assert_eq!(
            verdict.got,
            "400, then closed, without Proxy-Status: syncgate"
        );
    }

    #[test]
    fn verdicts_of_http_2() {
        let cases = [
            (Http2Expect::Refused, Outcome::Reset(1), true),
            (Http2Expect::Refused, Outcome::Reset(0), false),
            (Http2Expect::Refused, Outcome::Answered(400), true),
            (Http2Expect::Refused, Outcome::Answered(401), false),
            (Http2Expect::Refused, Outcome::Answered(200), false),
            (Http2Expect::Refused, Outcome::Silent, false),
            (Http2Expect::Ends, Outcome::Reset(1), false),
            (Http2Expect::Ends, Outcome::GoAway(11), true),
            (Http2Expect::Ends, Outcome::GoAway(0), false),
            (Http2Expect::Ends, Outcome::Closed, true),
            (Http2Expect::Answered(404), Outcome::Answered(404), true),
            (Http2Expect::Answered(404), Outcome::Closed, false),
            (Http2Expect::Survived, Outcome::Answered(404), true),
            (Http2Expect::Survived, Outcome::Silent, false),
            (Http2Expect::Refused, Outcome::Answered(429), false),
            (Http2Expect::EndsLate, Outcome::GoAway(0), true),
            (Http2Expect::EndsLate, Outcome::Closed, true),
            (Http2Expect::EndsLate, Outcome::Silent, false),
            (Http2Expect::EndsLate, Outcome::Reset(8), false),
            (Http2Expect::AbortedLate, Outcome::Reset(8), true),
            (Http2Expect::AbortedLate, Outcome::Closed, true),
            (Http2Expect::AbortedLate, Outcome::Reset(0), false),
            (Http2Expect::AbortedLate, Outcome::Answered(404), false),
            (Http2Expect::AbortedLate, Outcome::Silent, false),
        ];
        for (expect, outcome, passes) in cases {
            let mark = expect.evaluate(outcome).mark;
            assert_eq!(mark == Mark::Pass, passes, "{expect:?} {outcome:?}");
        }
    }
}
