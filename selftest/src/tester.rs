//! Trying one check after the other, each on connections of its own.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use zeroize::Zeroizing;

use super::answer::{Answer, End, answers};
use super::check::{Check, Expect, Expect2, PlainExpect, Probe, TOO_MANY, TlsProbe, Verdict};
use super::client::Connection;
use super::fill::{Filling, shown};
use super::frames::{Frames, Outcome, any_answered, end_of_answer, outcome};
use super::tls::hello;
use super::wire::{Instance, PATIENCE};

/// What the checks need.
pub(super) struct Tester {
    pub(super) instance: Instance,
    pub(super) host: String,
    pub(super) filling: Filling,
    /// The bodies of two logins that fail: as the user, and as nobody.
    pub(super) wrong: [Zeroizing<String>; 2],
    pub(super) plain_port: Option<u16>,
    /// How many checks may still be tried once more.
    pub(super) retries: Cell<usize>,
}

/// The most that a check may need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) connections: usize,
    pub(super) requests: usize,
    pub(super) time: Duration,
}

/// What a check is in words: what is sent, and what is expected.
pub(super) fn in_words(probe: &Probe, filling: &Filling) -> (String, String) {
    let text = |sent: &str, expected: &str| (sent.to_owned(), expected.to_owned());
    match probe {
        Probe::Http1(line, expect) => (shown(line), expect.in_words()),
        Probe::Http2(make, expect) => {
            let mut frames = Frames::new(&filling.host, &filling.route);
            make(&mut frames);
            let sent = format!("frames of HTTP/2, {} bytes", frames.bytes().len());
            (sent, expect.in_words())
        }
        Probe::Tls(TlsProbe::Refuses(version, suites)) => {
            let suites: Vec<_> = suites.iter().map(|suite| format!("{suite:04x}")).collect();
            let sent = format!(
                "a greeting of version {version:04x} with {}",
                suites.join(" ")
            );
            (sent, "an alert, or the end".to_owned())
        }
        Probe::Tls(TlsProbe::SpeaksHttp10) => text("a greeting for http/1.0 alone", "a handshake"),
        Probe::Tls(TlsProbe::Speaks13) => text("a greeting of TLS 1.3 alone", "TLS 1.3"),
        Probe::Tls(TlsProbe::NoEarlyData) => text(
            "a second connection, with early data where allowed",
            "none is allowed",
        ),
        Probe::Tls(TlsProbe::NoOtherProtocol) => text(
            "a greeting for the protocol selftest/1",
            "an alert, or the end",
        ),
        Probe::PlainOnTls => text("GET / without TLS", "no answer of HTTP"),
        Probe::PlainPort(line, PlainExpect::Redirected) => {
            (shown(line), "308 to https on the same host".to_owned())
        }
        Probe::PlainPort(line, PlainExpect::Refused(status)) => (shown(line), status.to_string()),
        Probe::SilentHandshake => text("a connection, and nothing on it", "closed, in time"),
        Probe::UnknownUser => text("two logins that must fail", "401 twice, alike to the byte"),
        Probe::Header(field, value) => (
            shown("{get}\r\n"),
            format!("{field} that begins with {value}"),
        ),
    }
}

/// What a check needs at most.
pub(super) fn cost(probe: &Probe, filling: &Filling) -> Cost {
    let (connections, requests, time) = match probe {
        Probe::Http1(line, Expect::RefusedLate(_) | Expect::EndsLate) => {
            (1, Filling::requests(line), LATE)
        }
        Probe::Http1(line, _) => (1, Filling::requests(line), PATIENCE),
        Probe::Http2(make, expect) => {
            let mut frames = Frames::new(&filling.host, &filling.route);
            make(&mut frames);
            let after = usize::from(matches!(expect, Expect2::Survived));
            (1 + after, frames.requests() + after, patience(*expect))
        }
        Probe::Tls(TlsProbe::NoEarlyData) => (1, 1, PATIENCE),
        Probe::Tls(_) => (1, 0, PATIENCE),
        Probe::PlainOnTls | Probe::PlainPort(..) | Probe::Header(..) => (1, 1, PATIENCE),
        Probe::SilentHandshake => (1, 0, LATE),
        Probe::UnknownUser => (2, 2, PATIENCE),
    };
    Cost {
        connections,
        requests,
        time,
    }
}

impl Tester {
    /// Tries the check, once more after a pause if a rate limit of the gateway came first.
    pub(super) fn check(&self, check: &Check) -> Verdict {
        let verdict = self.try_once(check);
        let left = self.retries.get().checked_sub(1);
        let Some(left) = left.filter(|_| verdict.is_limited()) else {
            return verdict;
        };
        self.retries.set(left);
        pause();
        self.try_once(check)
    }

    fn try_once(&self, check: &Check) -> Verdict {
        let tried = match &check.probe {
            Probe::Http1(line, expect) => self.http1(line, *expect),
            Probe::Http2(make, expect) => self.http2(*make, *expect),
            Probe::Tls(probe) => self.tls(*probe),
            Probe::PlainOnTls => self.plain_on_tls(),
            Probe::PlainPort(line, expect) => self.plain_port(line, *expect),
            Probe::SilentHandshake => self.silent_handshake(),
            Probe::UnknownUser => self.unknown_user(),
            Probe::Header(field, value) => self.header(field, value),
        };
        // What cannot be reached any more may be what the check before has done.
        tried.unwrap_or_else(|error| Verdict::new(false, format!("no connection: {error}")))
    }

    fn http1(&self, line: &str, expect: Expect) -> io::Result<Verdict> {
        let patience = match expect {
            Expect::RefusedLate(_) | Expect::EndsLate => LATE,
            Expect::Refused(_) | Expect::Answered(_) | Expect::InOrder(_) => PATIENCE,
        };
        let mut connection = self.instance.http1()?;
        connection.send(&self.filling.bytes(line));
        let (bytes, end) = connection.read(patience, |bytes| {
            expect
                .enough()
                .is_some_and(|enough| answers(bytes).len() >= enough)
        });
        Ok(expect.judge(&answers(&bytes), end))
    }

    fn http2(&self, make: fn(&mut Frames), expect: Expect2) -> io::Result<Verdict> {
        let mut frames = Frames::new(&self.filling.host, &self.filling.route);
        make(&mut frames);
        let mut connection = self.instance.http2()?;
        connection.send(frames.bytes());
        if matches!(expect, Expect2::Bounded) {
            let (bytes, _) = connection.read(PATIENCE, |bytes| any_answered(bytes, TOO_MANY));
            let bounded = any_answered(&bytes, TOO_MANY);
            return Ok(Verdict::new(
                bounded,
                if bounded { "429" } else { "no 429" },
            ));
        }
        let outcome = match expect {
            Expect2::GivenUpLate => end_of_answer,
            Expect2::Refused
            | Expect2::Ends
            | Expect2::Answered(_)
            | Expect2::Survived
            | Expect2::Bounded
            | Expect2::EndsLate => outcome,
        };
        let (bytes, end) = connection.read(patience(expect), |bytes| outcome(bytes).is_some());
        let came = outcome(&bytes).unwrap_or(match end {
            End::Closed => Outcome::Closed,
            End::Open | End::Silent => Outcome::Silent,
        });
        let verdict = expect.judge(came);
        if !matches!(expect, Expect2::Survived) {
            return Ok(verdict);
        }
        let next = self.http1("{get}\r\n", Expect::Answered(&[404]))?;
        let got = format!("{}; the next connection got {}", verdict.got, next.got);
        Ok(Verdict::new(
            verdict.mark == next.mark && came != Outcome::Silent,
            got,
        ))
    }

    fn tls(&self, probe: TlsProbe) -> io::Result<Verdict> {
        match probe {
            TlsProbe::Speaks13 => {
                let config = self.instance.config(b"http/1.1", &[&TLS13])?;
                Ok(match self.instance.tls(&config) {
                    Ok(line) => Verdict::new(true, line.encryption().unwrap_or_default()),
                    Err(error) => Verdict::new(false, error.to_string()),
                })
            }
            TlsProbe::NoEarlyData => {
                let config = self.instance.early()?;
                let mut line = self.instance.tls(&config)?;
                // The ticket for the next connection comes before the answer.
                line.send(&self.filling.bytes("{get}\r\n"));
                line.read(PATIENCE, |bytes| !answers(bytes).is_empty());
                let offered = self.instance.offers_early_data(&config)?;
                Ok(Verdict::new(
                    !offered,
                    if offered {
                        "early data is allowed"
                    } else {
                        "none"
                    },
                ))
            }
            TlsProbe::SpeaksHttp10 => {
                let config = self.instance.config(b"http/1.0", &[&TLS13])?;
                Ok(match self.instance.tls(&config) {
                    Ok(_) => Verdict::new(true, "a handshake"),
                    Err(error) => Verdict::new(false, error.to_string()),
                })
            }
            TlsProbe::NoOtherProtocol => {
                let config = self.instance.config(b"selftest/1", &[&TLS13])?;
                Ok(match self.instance.tls(&config) {
                    Ok(_) => Verdict::new(false, "a handshake"),
                    Err(error) => Verdict::new(true, error.to_string()),
                })
            }
            TlsProbe::Refuses(version, suites) => {
                let mut line = self.plain()?;
                line.send(&hello(version, suites, &self.host));
                let (bytes, end) = line.read(PATIENCE, |bytes| !bytes.is_empty());
                let got = match (bytes.first(), end) {
                    (Some(&ALERT), _) => "an alert",
                    (Some(&HANDSHAKE), _) => "a handshake",
                    (Some(_), _) => "something else than TLS",
                    (None, End::Closed) => "the end",
                    (None, End::Open | End::Silent) => "nothing",
                };
                Ok(Verdict::new(matches!(got, "an alert" | "the end"), got))
            }
        }
    }

    fn plain_on_tls(&self) -> io::Result<Verdict> {
        let mut line = self.plain()?;
        line.send(&self.filling.bytes("{get}\r\n"));
        let (bytes, end) = line.read(PATIENCE, |_| false);
        let answered = bytes.windows(5).any(|five| five == b"HTTP/");
        let got = match (answered, end) {
            (true, _) => "an answer of HTTP",
            (false, End::Closed) if bytes.is_empty() => "the end",
            (false, End::Closed) => "an alert, then the end",
            (false, End::Open | End::Silent) => "left open",
        };
        Ok(Verdict::new(!answered && end == End::Closed, got))
    }

    fn plain_port(&self, line: &str, expect: PlainExpect) -> io::Result<Verdict> {
        let Some(port) = self.plain_port else {
            return Ok(Verdict::skipped("no plain port was named (--http-port)"));
        };
        let mut connection = self.instance.plain(port)?;
        connection.send(&self.filling.bytes(line));
        let (bytes, _) = connection.read(PATIENCE, |bytes| !answers(bytes).is_empty());
        let Some(answer) = answers(&bytes).into_iter().next() else {
            return Ok(Verdict::new(false, "no answer"));
        };
        Ok(match expect {
            PlainExpect::Refused(status) => {
                let passes = answer.status == status && answer.misses().is_none();
                Verdict::new(passes, answer.status.to_string())
            }
            PlainExpect::Redirected => {
                let location = answer.field("location").unwrap_or_default();
                let rest = location.strip_prefix("https://").unwrap_or_default();
                let passes =
                    answer.status == 308 && rest.trim_start_matches('[').starts_with(&self.host);
                Verdict::new(passes, format!("{} to {location}", answer.status))
            }
        })
    }

    fn silent_handshake(&self) -> io::Result<Verdict> {
        let started = Instant::now();
        let (_, end) = self.plain()?.read(LATE, |_| false);
        let got = match end {
            End::Closed => format!("closed after {} s", started.elapsed().as_secs()),
            End::Open | End::Silent => format!("open after {} s", LATE.as_secs()),
        };
        Ok(Verdict::new(end == End::Closed, got))
    }

    fn unknown_user(&self) -> io::Result<Verdict> {
        let [one, other] = self.wrong.each_ref().map(|body| self.login(body));
        let (Some(one), Some(other)) = (one?, other?) else {
            return Ok(Verdict::new(false, "no answer"));
        };
        if [one.status, other.status].contains(&TOO_MANY) {
            return Ok(Verdict::skipped(
                "logins have failed too often before (429)",
            ));
        }
        let (a, b) = (alike(&one), alike(&other));
        let got = format!(
            "{} and {}, {}",
            one.status,
            other.status,
            match a == b {
                true => "alike",
                false => "different",
            }
        );
        let proper = one.status == 401 && one.misses().is_none();
        Ok(Verdict::new(proper && a == b, got))
    }

    /// Sends a login with this body.
    pub(super) fn login(&self, body: &str) -> io::Result<Option<Answer>> {
        let mut line = self.instance.http1()?;
        let mut bytes = self.filling.bytes("{login}Content-Length: ");
        bytes.extend_from_slice(format!("{}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body.as_bytes());
        line.send(&bytes);
        // Of the whole time that hashing may take.
        let (bytes, _) = line.read(LATE, |bytes| !answers(bytes).is_empty());
        Ok(answers(&bytes).into_iter().next())
    }

    fn header(&self, field: &str, value: &str) -> io::Result<Verdict> {
        let Some(answer) = self.nothing()? else {
            return Ok(Verdict::new(false, "no answer"));
        };
        if answer.status == TOO_MANY {
            return Ok(Verdict::limited());
        }
        let got = answer.field(field);
        let passes = got.as_deref().is_some_and(|got| got.starts_with(value));
        Ok(Verdict::new(
            passes,
            got.unwrap_or_else(|| "none".to_owned()),
        ))
    }

    /// The answer to a good request for what is not there.
    pub(super) fn nothing(&self) -> io::Result<Option<Answer>> {
        let mut line = self.instance.http1()?;
        line.send(&self.filling.bytes("{get}\r\n"));
        let (bytes, _) = line.read(PATIENCE, |bytes| !answers(bytes).is_empty());
        Ok(answers(&bytes).into_iter().next())
    }

    fn plain(&self) -> io::Result<Connection> {
        self.instance.plain(self.instance.address().port())
    }
}

/// How long what frames lead to may take.
fn patience(expect: Expect2) -> Duration {
    match expect {
        Expect2::EndsLate => LATE,
        Expect2::GivenUpLate => UNREAD,
        Expect2::Refused
        | Expect2::Ends
        | Expect2::Answered(_)
        | Expect2::Survived
        | Expect2::Bounded => PATIENCE,
    }
}

/// Lets a rate limit recover: nothing announces that it has.
fn pause() {
    std::thread::park_timeout(PAUSE);
}

/// What must not tell two answers apart.
fn alike(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    let differs = |name: &str| ["date", "x-request-id"].contains(&name);
    answer
        .fields
        .retain(|(name, _)| !differs(&name.to_ascii_lowercase()));
    answer
}

/// How long a deadline of the gateway's is waited for.
pub(super) const LATE: Duration = Duration::from_secs(20);
/// How long an answer may be left that its client does not take: 30 s and a little by default.
pub(super) const UNREAD: Duration = Duration::from_secs(40);
/// How many checks may be tried once more, since a rate limit came first.
pub(super) const RETRIES: usize = 30;
/// The most requests of a check that is tried once more.
pub(super) const OF_A_RETRY: usize = 2;
/// A second fills most rates again by one request at least.
pub(super) const PAUSE: Duration = Duration::from_millis(1500);
/// Records of TLS.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
