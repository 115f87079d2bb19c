//! Runs checks sequentially, each on its own connections.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use zeroize::Zeroizing;

use super::answer::{Answer, ConnectionState, answers};
use super::check::{Check, Expect, Http2Expect, PlainExpect, Probe, TOO_MANY, TlsProbe, Verdict};
use super::client::Connection;
use super::fill::{Filling, shown};
use super::frames::{Frames, Outcome, any_answered, end_of_answer, outcome};
use super::tls::client_hello;
use super::wire::{Instance, TIMEOUT};

/// What the checks need.
pub(super) struct Tester {
    pub(super) instance: Instance,
    pub(super) host: String,
    pub(super) filling: Filling,
    /// The bodies of two failing logins: as the user, and as an unknown user.
    pub(super) wrong: [Zeroizing<String>; 2],
    pub(super) plain_port: Option<u16>,
    /// How many checks may still be retried.
    pub(super) retries: Cell<usize>,
}

/// The most a check may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) connections: usize,
    pub(super) requests: usize,
    pub(super) time: Duration,
}

/// Describes a check: what is sent, and what is expected.
pub(super) fn in_words(probe: &Probe, filling: &Filling) -> (String, String) {
    let text = |sent: &str, expected: &str| (sent.to_owned(), expected.to_owned());
    match probe {
        Probe::Http1(line, expect) => (shown(line), expect.in_words()),
        Probe::Http2(make, expect) => {
            let mut frames = Frames::new(&filling.host, &filling.route);
            make(&mut frames);
            let sent = format!("HTTP/2 frames, {} bytes", frames.bytes().len());
            (sent, expect.in_words())
        }
        Probe::Tls(TlsProbe::Refuses(version, suites)) => {
            let suites: Vec<_> = suites.iter().map(|suite| format!("{suite:04x}")).collect();
            let sent = format!(
                "ClientHello of version {version:04x} with {}",
                suites.join(" ")
            );
            (sent, "an alert, or a closed connection".to_owned())
        }
        Probe::Tls(TlsProbe::SpeaksHttp10) => {
            text("ClientHello with ALPN http/1.0 alone", "a handshake")
        }
        Probe::Tls(TlsProbe::Speaks13) => text("ClientHello for TLS 1.3 alone", "TLS 1.3"),
        Probe::Tls(TlsProbe::NoEarlyData) => text(
            "a resumed connection, with early data if offered",
            "early data is not offered",
        ),
        Probe::Tls(TlsProbe::NoOtherProtocol) => text(
            "ClientHello with ALPN selftest/1",
            "an alert, or a closed connection",
        ),
        Probe::PlainOnTls => text("GET / without TLS", "no HTTP response"),
        Probe::PlainPort(line, PlainExpect::Redirected) => {
            (shown(line), "308 to https on the same host".to_owned())
        }
        Probe::PlainPort(line, PlainExpect::Refused(status)) => (shown(line), status.to_string()),
        Probe::SilentHandshake => text("a connection that sends nothing", "closed, in time"),
        Probe::UnknownUser => text("two failing logins", "401 twice, byte for byte the same"),
        Probe::Header(field, value) => (
            shown("{get}\r\n"),
            format!("{field} beginning with {value}"),
        ),
    }
}

/// The most a check uses.
pub(super) fn cost(probe: &Probe, filling: &Filling) -> Cost {
    let (connections, requests, time) = match probe {
        Probe::Http1(line, Expect::RefusedLate(_) | Expect::EndsLate) => {
            (1, Filling::requests(line), LATE)
        }
        Probe::Http1(line, _) => (1, Filling::requests(line), TIMEOUT),
        Probe::Http2(make, expect) => {
            let mut frames = Frames::new(&filling.host, &filling.route);
            make(&mut frames);
            let after = usize::from(matches!(expect, Http2Expect::Survived));
            (1 + after, frames.requests() + after, timeout(*expect))
        }
        Probe::Tls(TlsProbe::NoEarlyData) => (1, 1, TIMEOUT),
        Probe::Tls(_) => (1, 0, TIMEOUT),
        Probe::PlainOnTls | Probe::PlainPort(..) | Probe::Header(..) => (1, 1, TIMEOUT),
        Probe::SilentHandshake => (1, 0, LATE),
        Probe::UnknownUser => (2, 2, TIMEOUT),
    };
    Cost {
        connections,
        requests,
        time,
    }
}

impl Tester {
    /// Runs the check; retries once after a pause if the gateway's rate limit answered.
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
        // If it cannot be reached any more, the previous check may be the cause.
        tried.unwrap_or_else(|error| Verdict::new(false, format!("no connection: {error}")))
    }

    fn http1(&self, line: &str, expect: Expect) -> io::Result<Verdict> {
        let timeout = match expect {
            Expect::RefusedLate(_) | Expect::EndsLate => LATE,
            Expect::Refused(_) | Expect::Answered(_) | Expect::InOrder(_) => TIMEOUT,
        };
        let mut connection = self.instance.http1()?;
        connection.send(&self.filling.bytes(line));
        let (bytes, end) = connection.read(timeout, |bytes| {
            expect
                .enough()
                .is_some_and(|enough| answers(bytes).len() >= enough)
        });
        Ok(expect.evaluate(&answers(&bytes), end))
    }

    fn http2(&self, make: fn(&mut Frames), expect: Http2Expect) -> io::Result<Verdict> {
        let mut frames = Frames::new(&self.filling.host, &self.filling.route);
        make(&mut frames);
        let mut connection = self.instance.http2()?;
        connection.send(frames.bytes());
        if matches!(expect, Http2Expect::Bounded) {
            let (bytes, _) = connection.read(TIMEOUT, |bytes| any_answered(bytes, TOO_MANY));
            let bounded = any_answered(&bytes, TOO_MANY);
            return Ok(Verdict::new(
                bounded,
                if bounded { "429" } else { "no 429" },
            ));
        }
        let outcome = match expect {
            Http2Expect::AbortedLate => end_of_answer,
            Http2Expect::Refused
            | Http2Expect::Ends
            | Http2Expect::Answered(_)
            | Http2Expect::Survived
            | Http2Expect::Bounded
            | Http2Expect::EndsLate => outcome,
        };
        let (bytes, end) = connection.read(timeout(expect), |bytes| outcome(bytes).is_some());
        let came = outcome(&bytes).unwrap_or(match end {
            ConnectionState::Closed => Outcome::Closed,
            ConnectionState::Open | ConnectionState::Silent => Outcome::Silent,
        });
        let verdict = expect.evaluate(came);
        if !matches!(expect, Http2Expect::Survived) {
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
                // The session ticket arrives before the response.
                line.send(&self.filling.bytes("{get}\r\n"));
                line.read(TIMEOUT, |bytes| !answers(bytes).is_empty());
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
                line.send(&client_hello(version, suites, &self.host));
                let (bytes, end) = line.read(TIMEOUT, |bytes| !bytes.is_empty());
                let got = match (bytes.first(), end) {
                    (Some(&ALERT), _) => "an alert",
                    (Some(&HANDSHAKE), _) => "a handshake",
                    (Some(_), _) => "something else than TLS",
                    (None, ConnectionState::Closed) => "the end",
                    (None, ConnectionState::Open | ConnectionState::Silent) => "nothing",
                };
                Ok(Verdict::new(matches!(got, "an alert" | "the end"), got))
            }
        }
    }

    fn plain_on_tls(&self) -> io::Result<Verdict> {
        let mut line = self.plain()?;
        line.send(&self.filling.bytes("{get}\r\n"));
        let (bytes, end) = line.read(TIMEOUT, |_| false);
        let answered = bytes.windows(5).any(|five| five == b"HTTP/");
        let got = match (answered, end) {
            (true, _) => "an answer of HTTP",
            (false, ConnectionState::Closed) if bytes.is_empty() => "the end",
            (false, ConnectionState::Closed) => "an alert, then the end",
            (false, ConnectionState::Open | ConnectionState::Silent) => "left open",
        };
        Ok(Verdict::new(
            !answered && end == ConnectionState::Closed,
            got,
        ))
    }

    fn plain_port(&self, line: &str, expect: PlainExpect) -> io::Result<Verdict> {
        let Some(port) = self.plain_port else {
            return Ok(Verdict::skipped("no plain port was named (--http-port)"));
        };
        let mut connection = self.instance.plain(port)?;
        connection.send(&self.filling.bytes(line));
        let (bytes, _) = connection.read(TIMEOUT, |bytes| !answers(bytes).is_empty());
        let Some(answer) = answers(&bytes).into_iter().next() else {
            return Ok(Verdict::new(false, "no answer"));
        };
        Ok(match expect {
            PlainExpect::Refused(status) => {
                let passes = answer.status == status && answer.missing().is_none();
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
            ConnectionState::Closed => format!("closed after {} s", started.elapsed().as_secs()),
            ConnectionState::Open | ConnectionState::Silent => {
                format!("open after {} s", LATE.as_secs())
            }
        };
        Ok(Verdict::new(end == ConnectionState::Closed, got))
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
        let (a, b) = (comparable(&one), comparable(&other));
        let got = format!(
            "{} and {}, {}",
            one.status,
            other.status,
            match a == b {
                true => "comparable",
                false => "different",
            }
        );
        let proper = one.status == 401 && one.missing().is_none();
        Ok(Verdict::new(proper && a == b, got))
    }

    /// Logs in with this body.
    pub(super) fn login(&self, body: &str) -> io::Result<Option<Answer>> {
        let mut line = self.instance.http1()?;
        let mut bytes = self.filling.bytes("{login}Content-Length: ");
        bytes.extend_from_slice(format!("{}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body.as_bytes());
        line.send(&bytes);
        // Hashing may take this long.
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

    /// The response to a valid request for a path that does not exist.
    pub(super) fn nothing(&self) -> io::Result<Option<Answer>> {
        let mut line = self.instance.http1()?;
        line.send(&self.filling.bytes("{get}\r\n"));
        let (bytes, _) = line.read(TIMEOUT, |bytes| !answers(bytes).is_empty());
        Ok(answers(&bytes).into_iter().next())
    }

    fn plain(&self) -> io::Result<Connection> {
        self.instance.plain(self.instance.address().port())
    }
}

/// How long to wait for the outcome of frames.
fn timeout(expect: Http2Expect) -> Duration {
    match expect {
        Http2Expect::EndsLate => LATE,
        Http2Expect::AbortedLate => UNREAD,
        Http2Expect::Refused
        | Http2Expect::Ends
        | Http2Expect::Answered(_)
        | Http2Expect::Survived
        | Http2Expect::Bounded => TIMEOUT,
    }
}

/// Lets a rate limit recover, which cannot be observed.
fn pause() {
    std::thread::park_timeout(PAUSE);
}

/// The parts of a response that must not differ between two users.
fn comparable(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    let differs = |name: &str| ["date", "x-request-id"].contains(&name);
    answer
        .fields
        .retain(|(name, _)| !differs(&name.to_ascii_lowercase()));
    answer
}

/// How long to wait for a timeout of the gateway.
pub(super) const LATE: Duration = Duration::from_secs(20);
/// How long to wait for the gateway to abort a response that is not read: by default it takes a little over
/// 30 s.
pub(super) const UNREAD: Duration = Duration::from_secs(40);
/// How many checks may be retried after a rate limit answered.
pub(super) const RETRIES: usize = 30;
/// The maximum of requests in a check that is retried.
pub(super) const MAX_RETRY_REQUESTS: usize = 2;
/// A second replenishes most rate limits by at least one request.
pub(super) const PAUSE: Duration = Duration::from_millis(1500);
/// TLS record types.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
