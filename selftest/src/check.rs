//! Pure: one check, what it expects, and what becomes of it. The tables of checks stand in files of
//! their own; to add one is to add a line there.

use serde::Serialize;

use super::answer::{Answer, End};
use super::frames::{Frames, Outcome};

/// One thing that is tried.
pub(super) struct Check {
    /// What it belongs to: a word to group by.
    pub(super) area: &'static str,
    /// What is tried, in a few words.
    pub(super) name: &'static str,
    pub(super) probe: Probe,
}

/// How it is tried.
pub(super) enum Probe {
    /// Bytes over TLS, as HTTP/1.1; [`super::fill`] says what stands for what in them.
    Http1(&'static str, Expect),
    /// Frames of HTTP/2.
    Http2(fn(&mut Frames), Expect2),
    /// Versions, ciphers and extensions of TLS.
    Tls(TlsProbe),
    /// Bytes without TLS on the port of HTTPS.
    PlainOnTls,
    /// Bytes to the plain port, where one is named.
    PlainPort(&'static str, PlainExpect),
    /// A connection that never begins its handshake.
    SilentHandshake,
    /// A failed login as the user, and one as a user that nobody is.
    UnknownUser,
    /// A field of an answer, and how its value must begin.
    Header(&'static str, &'static str),
}

/// What HTTP/1 bytes must lead to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// One answer of syncgate's own with one of these, and the end of the connection.
    Refused(&'static [u16]),
    /// One answer of syncgate's own with one of these.
    Answered(&'static [u16]),
    /// These, one after the other; the connection may end before the last.
    InOrder(&'static [u16]),
    /// [`Expect::Refused`], though only after a deadline of the gateway's.
    RefusedLate(&'static [u16]),
    /// The end of the connection without an answer, though only after a deadline of the gateway's.
    EndsLate,
}

/// What HTTP/2 frames must lead to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect2 {
    /// An error of the stream or the connection, or an answer that says what is wrong with it.
    Refused,
    /// An error of the connection.
    Ends,
    /// An answer with this status.
    Answered(u16),
    /// Whatever becomes of the connection, the next one is served.
    Survived,
    /// An answer on any stream that there are too many at once.
    Bounded,
    /// The end of the connection, though only after a deadline of the gateway's.
    EndsLate,
    /// An error of the stream or the end of the connection in the middle of an answer, though only
    /// after a deadline of the gateway's.
    GivenUpLate,
}

/// What the plain port must do.
#[derive(Clone, Copy, Debug)]
pub(super) enum PlainExpect {
    /// Send the client to https on the same host.
    Redirected,
    /// Refuse with this status.
    Refused(u16),
}

/// What is tried with TLS.
#[derive(Clone, Copy, Debug)]
pub(super) enum TlsProbe {
    /// A greeting of this version with these cipher suites must not be accepted.
    Refuses(u16, &'static [u16]),
    /// TLS 1.3 must be spoken.
    Speaks13,
    /// A second connection must not be offered early data.
    NoEarlyData,
    /// `http/1.0` alone, as old clients offer it, must be agreed on.
    SpeaksHttp10,
    /// A protocol that is not HTTP must not be agreed on.
    NoOtherProtocol,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mark {
    /// The instance did as it must.
    Pass,
    /// It did not.
    Fail,
    /// It could not be tried.
    Skipped,
}

/// What came of a check: the mark, and what was got.
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

    /// A rate limit came before what was to be seen.
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
    /// How many answers there can be before nothing more needs to be waited for; `None` when only
    /// the end of the connection tells.
    pub(super) fn enough(self) -> Option<usize> {
        match self {
            Self::Answered(_) => Some(1),
            Self::Refused(_) | Self::InOrder(_) | Self::RefusedLate(_) | Self::EndsLate => None,
        }
    }

    pub(super) fn judge(self, answers: &[Answer], end: End) -> Verdict {
        let got = in_words(answers, end);
        if answers.iter().any(|answer| answer.status == TOO_MANY) {
            return Verdict::limited();
        }
        if let Some(what) = answers.iter().find_map(Answer::misses) {
            return Verdict::new(false, format!("{got}, without {what}"));
        }
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let passes = match self {
            Self::Answered(these) => statuses.first().is_some_and(|it| these.contains(it)),
            Self::Refused(these) | Self::RefusedLate(these) => {
                matches!(statuses[..], [one] if these.contains(&one)) && end == End::Closed
            }
            Self::EndsLate => statuses.is_empty() && end == End::Closed,
            Self::InOrder(these) => {
                !statuses.is_empty() && these.starts_with(&statuses) && end == End::Closed
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

impl Expect2 {
    pub(super) fn judge(self, outcome: Outcome) -> Verdict {
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
            (Self::Refused | Self::Ends | Self::EndsLate | Self::GivenUpLate, Outcome::Closed)
            | (Self::EndsLate | Self::GivenUpLate, Outcome::GoAway(_)) => true,
            (Self::GivenUpLate, Outcome::Reset(code)) => code != 0,
            (Self::Answered(expected), Outcome::Answered(status)) => status == expected,
            (Self::Survived, Outcome::Silent) => false,
            (Self::Survived, _) => true,
            (
                Self::Refused
                | Self::Ends
                | Self::Answered(_)
                | Self::Bounded
                | Self::EndsLate
                | Self::GivenUpLate,
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
            Self::GivenUpLate => "a stream error or the end, in time".to_owned(),
        }
    }
}

/// The status of an answer that only says that there were too many requests.
pub(super) const TOO_MANY: u16 = 429;
const LIMITED: &str = "a limit of the gateway answered (429)";

fn in_words(answers: &[Answer], end: End) -> String {
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let end = match end {
        End::Open => "",
        End::Closed => "closed",
        End::Silent => "left open",
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
        let cases: &[(Expect, &[u16], End, Mark)] = &[
            (refused, &[400], End::Closed, Mark::Pass),
            (refused, &[401], End::Closed, Mark::Pass),
            (refused, &[400], End::Silent, Mark::Fail),
            (refused, &[400, 404], End::Closed, Mark::Fail),
            (refused, &[200], End::Closed, Mark::Fail),
            (refused, &[], End::Closed, Mark::Fail),
            (refused, &[429], End::Closed, Mark::Skipped),
            (answered, &[404], End::Open, Mark::Pass),
            (answered, &[401], End::Open, Mark::Fail),
            (answered, &[], End::Silent, Mark::Fail),
            (order, &[401, 404], End::Closed, Mark::Pass),
            (order, &[401], End::Closed, Mark::Pass),
            (order, &[404], End::Closed, Mark::Fail),
            (order, &[401, 404, 404], End::Closed, Mark::Fail),
            (order, &[], End::Closed, Mark::Fail),
        ];
        for (expect, statuses, end, mark) in cases {
            let answers: Vec<_> = statuses.iter().copied().map(own).collect();
            let verdict = expect.judge(&answers, *end);
            assert_eq!(
                verdict.mark, *mark,
                "{expect:?} {statuses:?}: {}",
                verdict.got
            );
        }
        let mut foreign = own(400);
        foreign.fields.clear();
        let verdict = refused.judge(&[foreign], End::Closed);
        assert_eq!(verdict.mark, Mark::Fail);
        assert_eq!(
            verdict.got,
            "400, then closed, without Proxy-Status: syncgate"
        );
    }

    #[test]
    fn verdicts_of_http_2() {
        let cases = [
            (Expect2::Refused, Outcome::Reset(1), true),
            (Expect2::Refused, Outcome::Reset(0), false),
            (Expect2::Refused, Outcome::Answered(400), true),
            (Expect2::Refused, Outcome::Answered(401), false),
            (Expect2::Refused, Outcome::Answered(200), false),
            (Expect2::Refused, Outcome::Silent, false),
            (Expect2::Ends, Outcome::Reset(1), false),
            (Expect2::Ends, Outcome::GoAway(11), true),
            (Expect2::Ends, Outcome::GoAway(0), false),
            (Expect2::Ends, Outcome::Closed, true),
            (Expect2::Answered(404), Outcome::Answered(404), true),
            (Expect2::Answered(404), Outcome::Closed, false),
            (Expect2::Survived, Outcome::Answered(404), true),
            (Expect2::Survived, Outcome::Silent, false),
            (Expect2::Refused, Outcome::Answered(429), false),
            (Expect2::EndsLate, Outcome::GoAway(0), true),
            (Expect2::EndsLate, Outcome::Closed, true),
            (Expect2::EndsLate, Outcome::Silent, false),
            (Expect2::EndsLate, Outcome::Reset(8), false),
            (Expect2::GivenUpLate, Outcome::Reset(8), true),
            (Expect2::GivenUpLate, Outcome::Closed, true),
            (Expect2::GivenUpLate, Outcome::Reset(0), false),
            (Expect2::GivenUpLate, Outcome::Answered(404), false),
            (Expect2::GivenUpLate, Outcome::Silent, false),
        ];
        for (expect, outcome, passes) in cases {
            let mark = expect.judge(outcome).mark;
            assert_eq!(mark == Mark::Pass, passes, "{expect:?} {outcome:?}");
        }
    }
}
