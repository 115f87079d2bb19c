//! `syncgate selftest`.

mod answer;
mod check;
mod fill;
mod frames;
mod http1;
mod http2;
mod report;
mod target;
mod tester;
mod tls;
mod wire;

use std::cell::Cell;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::print;
use crate::clock::Clock;
use crate::private_file;
use crate::token::IssuedToken;

use check::{Check, PlainExpect, Probe, Verdict};
use fill::Filling;
use report::{Report, Row, Totals};
use target::Target;
use tester::{Cost, OF_A_RETRY, PAUSE, RETRIES, Tester, cost, in_words};
use wire::Instance;

/// Attack a running instance with a user's credentials, and say what it let through
///
/// Tries what is known to have hit gateways of this kind: ambiguous framing, odd heads and targets,
/// forged tokens, malformed logins, HTTP/2 floods in small doses, old versions and ciphers of TLS.
/// Prints a table to file, or JSON. Nothing is sent that the backend would act on.
///
/// Only the instance named is contacted, one connection after the other, and only once it has shown
/// to be syncgate. Two logins fail, less than locks anybody out. Exit status: 0 if all passed, 1 if
/// something failed, 2 if it could not be tried.
#[derive(Debug, Args)]
pub(super) struct SelftestCommand {
    /// The instance: https://host or https://host:port
    #[arg(value_name = "URL")]
    target: Target,
    /// The user to log in as
    #[arg(long, value_name = "NAME", value_parser = visible)]
    user: String,
    /// The file with the user's password (mode 0600); `-` is standard input. Without it, the password
    /// is asked for
    #[arg(long = "password-file", value_name = "FILE")]
    from: Option<PathBuf>,
    /// Certificates to trust, in PEM, instead of those that this machine trusts
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A path that is forwarded and that the user may POST to
    #[arg(long, value_name = "PATH", default_value = "/api/SyncData", value_parser = path)]
    route: String,
    /// The port that speaks plain HTTP, if there is one
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl SelftestCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let password = self.password()?;
        let instance = Instance::find(&self.target, self.ca.as_deref())
            .map_err(|error| self.could_not("be reached", &error))?;
        let [wrong, nobody] = [
            credentials(&self.user, &random_text()?),
            credentials(&random_text()?, &random_text()?),
        ];
        let mut tester = Tester {
            instance,
            host: self.target.host().to_owned(),
            filling: self.filling()?,
            wrong: [wrong, nobody],
            plain_port: self.http_port,
            retries: Cell::new(RETRIES),
        };
        self.recognize(&tester)?;
        tester.filling.token = self.log_in(&tester, &credentials(&self.user, &password))?;
        let report = self.try_all(&tester);
        let output = match self.json {
            true => report.json().map_err(Failure::other)?,
            false => report.text(),
        };
        print(output.as_bytes())?;
        match report.totals.failed {
            0 => Ok(()),
            failed => Err(Failure::other(format!("{failed} checks failed"))),
        }
    }

    /// Tries every check until the time is up.
    fn try_all(&self, tester: &Tester) -> Report {
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
            bound.requests + RETRIES * OF_A_RETRY,
            bound.connections + RETRIES,
            bound.time.min(LONGEST).as_secs(),
        ));
        let date = Clock::system().now().seconds().timestamp().to_string();
        let started = Instant::now();
        let rows: Vec<_> = checks
            .iter()
            .map(|check| {
                // Tried twice in the worst case.
                let needs = cost(&check.probe, &tester.filling).time * 2 + PAUSE;
                let verdict = match started.elapsed() + needs <= LONGEST {
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
            version: env!("CARGO_PKG_VERSION"),
            url: self.target.to_string(),
            address: tester.instance.address().to_string(),
            user: self.user.clone(),
            date,
            totals: Totals::of(&rows),
            checks: rows,
        }
    }

    /// Makes sure that it is syncgate, before it is sent anything that another program might suffer
    /// from, or a password.
    fn recognize(&self, tester: &Tester) -> Result<(), Failure> {
        let answer = tester.nothing();
        let answer = answer.map_err(|error| self.could_not("be reached over TLS", &error))?;
        let is_ours =
            answer.is_some_and(|answer| answer.status == 404 && answer.misses().is_none());
        match is_ours {
            true => Ok(()),
            false => Err(self.could_not("be tested", &"what answers there is not syncgate")),
        }
    }

    fn log_in(&self, tester: &Tester, body: &str) -> Result<Zeroizing<String>, Failure> {
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

    fn filling(&self) -> Result<Filling, Failure> {
        let unknown = IssuedToken::generate(&SystemRandom::new())
            .map_err(|_| Failure::could_not_run("the system gives no random numbers"))?;
        Ok(Filling {
            host: self.target.authority(),
            route: self.route.clone(),
            user: self.user.clone(),
            token: Zeroizing::default(),
            unknown: unknown.expose().to_owned(),
        })
    }

    fn password(&self) -> Result<Zeroizing<String>, Failure> {
        let text = match &self.from {
            Some(file) if file == Path::new("-") => from_standard_input(),
            Some(file) => private_file::look(file)
                .map(Zeroizing::new)
                .map_err(|error| {
                    let remedy = error.remedy().map(|remedy| format!("; {remedy}"));
                    io::Error::other(format!("{error}{}", remedy.unwrap_or_default()))
                }),
            None => rpassword::prompt_password(format!("Password for {}: ", self.user))
                .map(Zeroizing::new)
                .map_err(|error| {
                    let what = "cannot ask for the password; name a file with --password-file";
                    io::Error::other(format!("{what} ({error})"))
                }),
        };
        let text = text.map_err(Failure::could_not_run)?;
        let line = text.trim_end_matches(['\r', '\n']);
        Ok(Zeroizing::new(line.to_owned()))
    }

    fn could_not(&self, what: &str, why: &dyn std::fmt::Display) -> Failure {
        Failure::could_not_run(format!("{} cannot {what}: {why}", self.target))
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

/// Every check, in the order in which they are tried: what may disturb the instance comes last.
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

fn from_standard_input() -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    io::stdin().lock().take(4096).read_to_string(&mut text)?;
    Ok(text)
}

/// 96 random bits in 24 letters and digits.
fn random_text() -> Result<Zeroizing<String>, Failure> {
    let mut random = [0_u8; 12];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Failure::could_not_run("the system gives no random numbers"))?;
    let text = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Zeroizing::new(text))
}

/// Says what is about to happen, beside what is printed.
fn announce(what: &str) {
    // Nowhere to say it is no failure of the command.
    let _ = writeln!(io::stderr(), "{what}");
}

fn visible(text: &str) -> Result<String, String> {
    match !text.is_empty() && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("this is no user name".to_owned()),
    }
}

fn path(text: &str) -> Result<String, String> {
    match text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("a path begins with `/` and holds no blanks".to_owned()),
    }
}

/// How long all checks may take together.
const LONGEST: Duration = Duration::from_secs(180);
