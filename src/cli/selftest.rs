//! `syncgate selftest`.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ring::rand::SystemRandom;
use syncgate_selftest::{Selftest, Target};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::print;
use crate::clock::Clock;
use crate::private_file;
use crate::token::IssuedToken;

/// Attack a running instance with a user's credentials, and report what it let through
///
/// Runs known attacks on gateways: request smuggling, malformed heads and targets, forged tokens,
/// malformed logins, small HTTP/2 floods, old TLS versions and ciphers. Prints a table, or JSON. Sends
/// nothing that the backend would act on.
///
/// Contacts only the given instance, one connection at a time, and only once it has proved to be
/// syncgate. Two logins fail, too few to lock anyone out. Exit status: 0 if all checks passed, 1 if a
/// check failed, 2 if the test could not run.
#[derive(Debug, Args)]
pub(super) struct SelftestCommand {
    /// The instance: https://host or https://host:port
    #[arg(value_name = "URL")]
    target: Target,
    /// The user to log in as
    #[arg(long, value_name = "NAME", value_parser = visible)]
    user: String,
    /// The file with the user's password (mode 0600); `-` is standard input. By default, prompts for the
    /// password
    #[arg(long = "password-file", value_name = "FILE")]
    from: Option<PathBuf>,
    /// Certificates to trust, in PEM, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A path that is forwarded and that the user may POST to
    #[arg(long, value_name = "PATH", default_value = "/api/SyncData", value_parser = path)]
    route: String,
    /// The plain HTTP port, if there is one
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl SelftestCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let unknown = IssuedToken::generate(&SystemRandom::new())
            .map_err(|_| Failure::could_not_run("the system's random number generator failed"))?;
        let selftest = Selftest {
            target: self.target.clone(),
            trusted: self.ca.clone(),
            user: self.user.clone(),
            password: self.password()?,
            unknown_token: unknown.expose().to_owned(),
            route: self.route.clone(),
            http_port: self.http_port,
            date: Clock::system().now().seconds().timestamp().to_string(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let report = selftest.run(announce).map_err(Failure::could_not_run)?;
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

    fn password(&self) -> Result<Zeroizing<String>, Failure> {
        let text = match &self.from {
            Some(file) if file == Path::new("-") => from_standard_input(),
            Some(file) => private_file::inspect(file)
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
}

fn from_standard_input() -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    io::stdin().lock().take(4096).read_to_string(&mut text)?;
    Ok(text)
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
