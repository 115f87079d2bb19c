//! Attacks a running instance of syncgate with a user's credentials and reports the results: tables of attacks
//! (pure), and the code that runs them over a small client, which other programs and tests in this repository
//! use too. The command is `syncgate selftest`.

mod answer;
mod check;
pub mod client;
mod fill;
pub mod frames;
mod http1;
mod http2;
mod report;
mod target;
mod tester;
mod tls;
mod wire;

use std::cell::Cell;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use check::{Check, PlainExpect, Probe, Verdict};
use fill::Filling;
use tester::{Cost, MAX_RETRY_REQUESTS, PAUSE, RETRIES, Tester, cost, in_words};
use wire::Instance;

pub use answer::{Answer, ConnectionState};
pub use check::Mark;
pub use report::{Report, Row, Totals};
pub use target::Target;

/// The parameters of a selftest.
pub struct Selftest {
    /// The instance. Nothing else is contacted.
    pub target: Target,
    /// Certificates to trust, in PEM, instead of the system's.
    pub trusted: Option<PathBuf>,
    /// The user to log in as.
    pub user: String,
    /// The user's password. It is sent only after the instance has identified as syncgate.
    pub password: Zeroizing<String>,
    /// A well-formed token that was never issued.
    pub unknown_token: String,
    /// A forwarded path to which the user may POST.
    pub route: String,
    /// The plain HTTP port, if any.
    pub http_port: Option<u16>,
    /// The start time in UTC, for the report.
    pub date: String,
    /// The version of the testing program, for the report.
    pub version: &'static str,
}

/// Why an instance could not be tested, as opposed to having failed.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct CouldNotRun(String);

impl Selftest {
    /// Logs in and runs the checks sequentially until the time is up. Before the first one, calls `announce`
    /// with what will be sent at most.
    ///
    /// # Errors
    /// If the instance cannot be reached, is not syncgate, or refuses the login.
    pub fn run(&self, announce: impl FnOnce(&str)) -> Result<Report, CouldNotRun> {
        let instance = Instance::find(&self.target, self.trusted.as_deref())
            .map_err(|error| self.could_not("be reached", &error))?;
        let [wrong, nobody] = [
            credentials(&self.user, &random_text()?),
            credentials(&random_text()?, &random_text()?),
        ];
        let mut tester = Tester {
            instance,
            host: self.target.host().to_owned(),
            filling: self.filling(),
            wrong: [wrong, nobody],
            plain_port: self.http_port,
            retries: Cell::new(RETRIES),
        };
        self.recognize(&tester)?;
        tester.filling.token = self.log_in(&tester, &credentials(&self.user, &self.password))?;
        Ok(self.try_all(&tester, announce))
    }

    /// Runs the checks until the time is up.
    fn try_all(&self, tester: &Tester, announce: impl FnOnce(&str)) -> Report {
        let checks = checks();
        let bound = checks
            .iter()
            .map(|check| cost(&check.probe, &tester.filling));
        let bound = bound.reduce(Cost::and).unwrap_or_default();
        announce(&format!(
            "{} checks of {} ({}): at most {} requests on {} connections, and {} s",
            checks.len(),
            self.target,
            tester.instance.address(),
            bound.requests + RETRIES * MAX_RETRY_REQUESTS,
            bound.connections + RETRIES,
            bound.time.min(MAX_DURATION).as_secs(),
        ));
        let started = Instant::now();
        let rows: Vec<_> = checks
            .iter()
            .map(|check| {
                // A check may run twice.
                let needs = cost(&check.probe, &tester.filling).time * 2 + PAUSE;
                let verdict = match started.elapsed() + needs <= MAX_DURATION {
                    true => tester.check(check),
                    false => Verdict::skipped("the time was up"),
                };
                let (sent, expected) = in_words(&check.probe, &tester.filling);
                Row {
                    result: verdict.mark,
                    area: check.area,
                    check: check.name,
                    sent,
                    expected,
                    got: verdict.got,
                }
            })
            .collect();
        Report {
            version: self.version,
            url: self.target.to_string(),
            address: tester.instance.address().to_string(),
            user: self.user.clone(),
            date: self.date.clone(),
            totals: Totals::of(&rows),
            checks: rows,
        }
    }

    /// Verifies that it is syncgate, before sending it a password or anything that could harm another program.
    fn recognize(&self, tester: &Tester) -> Result<(), CouldNotRun> {
        let answer = tester.nothing();
        let answer = answer.map_err(|error| self.could_not("be reached over TLS", &error))?;
        let is_ours =
            answer.is_some_and(|answer| answer.status == 404 && answer.missing().is_none());
        match is_ours {
            true => Ok(()),
            false => Err(self.could_not("be tested", &"what answers there is not syncgate")),
        }
    }

    fn log_in(&self, tester: &Tester, body: &str) -> Result<Zeroizing<String>, CouldNotRun> {
        let answer = tester.login(body);
        let answer = answer.map_err(|error| self.could_not("be logged in to", &error))?;
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let token = answer.and_then(|answer| {
            let json: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
            let token = json.pointer("/token/accesstoken")?.as_str()?;
            Some(Zeroizing::new(token.to_owned()))
        });
        match (status, token) {
            (200, Some(token)) if token.len() > 8 && token.is_ascii() => Ok(token),
            (401, _) => Err(self.could_not("be logged in to", &"user name or password is wrong")),
            (429, _) => Err(self.could_not("be logged in to", &"too many logins failed; wait")),
            (0, _) => Err(self.could_not("be logged in to", &"no answer")),
            (status, _) => Err(self.could_not("be logged in to", &format!("status {status}"))),
        }
    }

    fn filling(&self) -> Filling {
        Filling {
            host: self.target.authority(),
            route: self.route.clone(),
            user: self.user.clone(),
            token: Zeroizing::default(),
            unknown: self.unknown_token.clone(),
        }
    }

    fn could_not(&self, what: &str, why: &dyn Display) -> CouldNotRun {
        CouldNotRun(format!("{} cannot {what}: {why}", self.target))
    }
}

impl Cost {
    fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            requests: self.requests + other.requests,
            time: self.time + other.time,
        }
    }
}

/// All checks, in the order in which they run: those that may disturb the instance come last.
fn checks() -> Vec<Check> {
    let plain = |name, line, expect| Check {
        area: "plain",
        name,
        probe: Probe::PlainPort(line, expect),
    };
    let mut checks = tls::checks();
    checks.extend([
        plain("reading", "{get}\r\n", PlainExpect::Redirected),
        plain(
            "reading for a host that no certificate names",
            "GET / HTTP/1.1\r\nHost: other.invalid\r\n\r\n",
            PlainExpect::Refused(403),
        ),
        plain(
            "sending",
            "{post}Content-Length: 0\r\n\r\n",
            PlainExpect::Refused(403),
        ),
    ]);
    checks.extend(http1::checks());
    checks.extend(http2::checks());
    checks
}

fn credentials(user: &str, password: &str) -> Zeroizing<String> {
    let body = serde_json::json!({ "username": user, "password": password });
    Zeroizing::new(body.to_string())
}

/// 96 random bits in 24 letters and digits.
fn random_text() -> Result<Zeroizing<String>, CouldNotRun> {
    let mut random = [0_u8; 12];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| CouldNotRun("the system gives no random numbers".to_owned()))?;
    let text = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Zeroizing::new(text))
}

/// How long all checks together may take.
const MAX_DURATION: Duration = Duration::from_secs(180);
