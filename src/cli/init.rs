//! `syncgate init`.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use thiserror::Error;

use super::failure::Failure;
use super::password::{NewPassword, PasswordSource};
use super::print;
use crate::accounts::{AccountFile, InitialRights, check_name};
use crate::clock::Clock;
use crate::config;
use crate::new_file::{create_directory, create_parents, write_new};
use crate::password::hash_password;
use crate::process;
use crate::tls::development::{CertificateFiles, write_certificate};
use crate::upstream::UpstreamUrl;

/// Write a first configuration, a first user and a development certificate
///
/// Asks for the address of the backend and for the first user, unless they are given. Writes
/// config.toml, users.toml, certs/server.pem and certs/server.key, creates the directory run for the admin
/// socket, and overwrites nothing.
#[derive(Debug, Args)]
pub(super) struct InitCommand {
    /// Where the backend listens: http://host:port or unix:/path
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    upstream: Option<UpstreamUrl>,
    /// The name of the first user, who gets every right
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordSource,
    /// The directory to write to; created if missing
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
    /// Write the configuration of the service that the Debian package installs: to /etc/syncgate, with the
    /// admin socket in /run/syncgate. To be run as the user of the service
    #[arg(long, conflicts_with = "directory")]
    service: bool,
    /// Ask nothing: unless given, the backend is http://127.0.0.1:8080 and the user is `partner`, with a
    /// generated password that is printed
    #[arg(long, short)]
    yes: bool,
}

/// Why nothing was written.
#[derive(Debug, Error)]
enum InitError {
    #[error("{} already exists; nothing was written. Choose another --directory, or delete the file", .0.display())]
    Exists(PathBuf),
    #[error(
        "the files would belong to root, and the service could not read them; run it as the user of the service: runuser -u syncgate -- syncgate init --service"
    )]
    RootForService,
    #[error("there is no terminal to ask on: give {0}, or --yes for the defaults")]
    NoTerminal(&'static str),
    #[error("cannot ask")]
    Ask(#[source] io::Error),
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

impl InitCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if self.service && process::is_root() {
            return Err(Failure::usage(InitError::RootForService));
        }
        let paths = match self.service {
            true => Paths::of_service(),
            false => Paths::new(&self.directory),
        };
        paths.refuse_existing().map_err(Failure::usage)?;
        let upstream = self.upstream().map_err(Failure::usage)?;
        let user = self.user().map_err(Failure::usage)?;
        let password = self.password(&user)?;

        create_parents(&paths.directory).map_err(|cause| {
            let path = paths.directory.clone();
            Failure::other(InitError::Write { path, cause })
        })?;
        let certificate = paths.write_certificate()?;
        let hash = hash_password(&password.password).map_err(Failure::other)?;
        AccountFile::new(&paths.users, None)
            .add(&user, &hash, &InitialRights::Everything)
            .map_err(Failure::other)?;
        if !self.service {
            // That of the service is made by systemd.
            paths.make_socket_directory()?;
        }
        // The configuration comes last: once it exists, everything it names exists.
        paths.write_configuration(&upstream)?;
        config::load(&paths.config)?;
        print(
            paths
                .summary(&upstream, &user, &password, certificate)
                .as_bytes(),
        )
    }

    fn upstream(&self) -> Result<UpstreamUrl, InitError> {
        let default = UpstreamUrl::local();
        match &self.upstream {
            Some(url) => Ok(url.clone()),
            None if self.yes => Ok(default),
            None => {
                self.need_terminal("--upstream URL")?;
                let question = format!("Where does the backend listen? [{default}]");
                ask(&question, |answer| match answer {
                    "" => Ok(default.clone()),
                    _ => parse_url(answer),
                })
            }
        }
    }

    fn user(&self) -> Result<String, InitError> {
        match &self.user {
            Some(name) => Ok(name.clone()),
            None if self.yes => Ok(USER.to_owned()),
            None => {
                self.need_terminal("--user NAME")?;
                ask(
                    &format!("Name of the first user? [{USER}]"),
                    |answer| match answer {
                        "" => Ok(USER.to_owned()),
                        _ => parse_name(answer),
                    },
                )
            }
        }
    }

    fn password(&self, user: &str) -> Result<NewPassword, Failure> {
        let source = match self.yes {
            true => self.password.without_asking(),
            false => self.password,
        };
        source.obtain(Some(user)).map_err(Failure::usage)
    }

    /// Standard input can be asked if it is a terminal and does not carry the password.
    fn need_terminal(&self, instead: &'static str) -> Result<(), InitError> {
        match io::stdin().is_terminal() && !self.password.takes_stdin() {
            true => Ok(()),
            false => Err(InitError::NoTerminal(instead)),
        }
    }
}

const USER: &str = "partner";

/// Asks until the answer is valid.
fn ask<T>(question: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, InitError> {
    loop {
        let mut terminal = io::stderr().lock();
        write!(terminal, "{question} ")
            .and_then(|()| terminal.flush())
            .map_err(InitError::Ask)?;
        let mut answer = String::new();
        if io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(InitError::Ask)?
            == 0
        {
            return Err(InitError::NoTerminal("--upstream URL and --user NAME"));
        }
        match parse(answer.trim()) {
            Ok(parsed) => return Ok(parsed),
            Err(wrong) => writeln!(terminal, "{wrong}").map_err(InitError::Ask)?,
        }
    }
}

fn parse_url(text: &str) -> Result<UpstreamUrl, String> {
    text.parse()
        .map_err(|error: crate::upstream::UpstreamUrlError| format!("{error}; {}", error.remedy()))
}

fn parse_name(text: &str) -> Result<String, String> {
    check_name(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

/// The files to write.
struct Paths {
    directory: PathBuf,
    config: PathBuf,
    users: PathBuf,
    certificate: CertificateFiles,
    /// The admin socket, as the configuration names it.
    socket: PathBuf,
    /// What is to be done next.
    next: Next,
}

/// How the gateway is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Run,
    StartService,
}

impl Paths {
    fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            config: directory.join("config.toml"),
            users: directory.join("users.toml"),
            certificate: CertificateFiles::in_directory(&directory.join("certs")),
            socket: "run/admin.sock".into(),
            next: Next::Run,
        }
    }

    /// What the unit of the Debian package expects.
    fn of_service() -> Self {
        Self {
            socket: "/run/syncgate/admin.sock".into(),
            next: Next::StartService,
            ..Self::new(Path::new("/etc/syncgate"))
        }
    }

    /// A complete pair of certificate and key may exist and is used then; half of one may not.
    fn refuse_existing(&self) -> Result<(), InitError> {
        let CertificateFiles { certificate, key } = &self.certificate;
        let mut files = vec![&self.config, &self.users];
        if !self.has_certificate() {
            files.extend([certificate, key]);
        }
        let exists = |path: &&PathBuf| fs::symlink_metadata(path).is_ok();
        match files.into_iter().find(exists) {
            Some(path) => Err(InitError::Exists(path.clone())),
            None => Ok(()),
        }
    }

    fn has_certificate(&self) -> bool {
        self.certificate.certificate.exists() && self.certificate.key.exists()
    }

    /// Returns a description of the certificate.
    fn write_certificate(&self) -> Result<&'static str, Failure> {
        if self.has_certificate() {
            return Ok("the existing certificate");
        }
        let directory = self.directory.join("certs");
        match write_certificate(&directory, &[], Clock::system().now().timestamp()) {
            Ok(_) => Ok("a development certificate, which clients have to trust explicitly"),
            Err(cause) => Err(Failure::other(InitError::Write {
                path: directory,
                cause,
            })),
        }
    }

    fn make_socket_directory(&self) -> Result<(), Failure> {
        let path = self.directory.join("run");
        create_directory(&path, 0o700)
            .map_err(|cause| Failure::other(InitError::Write { path, cause }))
    }

    fn write_configuration(&self, upstream: &UpstreamUrl) -> Result<(), Failure> {
        let text = configuration(upstream, &self.socket, process::is_root());
        let written = write_new(&self.config, 0o644, &text);
        written.map_err(|cause| {
            Failure::other(InitError::Write {
                path: self.config.clone(),
                cause,
            })
        })
    }

    fn summary(
        &self,
        upstream: &UpstreamUrl,
        user: &str,
        password: &NewPassword,
        certificate: &str,
    ) -> String {
        let option = match self.directory == Path::new(".") {
            true => String::new(),
            false => format!(" --config {}", quoted(&self.config)),
        };
        let (known, sent) = match &password.generated {
            Some(text) => (
                format!("\nThe password of {user}, shown this once: {}\n", **text),
                text.as_str(),
            ),
            None => (String::new(), "the password"),
        };
        let next = match self.next {
            Next::Run => format!("syncgate run{option}"),
            Next::StartService => "systemctl start syncgate     (as root)".to_owned(),
        };
        format!(
            "\
Created:
  {config}  forwards to {upstream}
  {users}  the first user: {user}, with every right
  {pem}  {certificate}
{known}
Next:
  syncgate check{option}
  {next}
Then, in another terminal, get a token:
  curl --cacert {cacert} --json @- https://localhost:8443/api/getToken <<'END'
  {{\"username\": \"{user}\", \"password\": \"{sent}\"}}
END
",
            config = self.config.display(),
            users = self.users.display(),
            pem = self.certificate.certificate.display(),
            cacert = quoted(&self.certificate.certificate),
        )
    }
}

/// A path quoted for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

fn configuration(upstream: &UpstreamUrl, socket: &Path, root: bool) -> String {
    let process = if root { AS_ROOT } else { "" };
    let url = toml::Value::String(upstream.to_string());
    let socket = toml::Value::String(socket.display().to_string());
    format!(
        "\
# The configuration of syncgate, with the settings you are most likely to change. To see all settings
# and their defaults: syncgate check --show

[listen]
# Where clients connect. \"0.0.0.0:8443\" listens on all IPv4 interfaces.
https = [\"127.0.0.1:8443\"]

[tls]
# A development certificate, for localhost. Clients on other machines need a real one.
certificates = [{{ certificate = \"certs/server.pem\", key = \"certs/server.key\" }}]

[upstream]
# Where the backend listens: \"http://host:port\" or \"unix:/path\".
url = {url}

[accounts]
# Who may log in; `syncgate user` edits this file.
file = \"users.toml\"

[admin]
# A unix socket for `syncgate tokens`, which lists and revokes tokens. Keep its directory for the socket alone.
socket = {socket}

# What is forwarded: each path has its own [[routes]] section.
[[routes]]
path = \"/api/SyncData\"
methods = [\"POST\"]

[[routes]]
path = \"/api/SyncVoucher\"
methods = [\"POST\"]

[[routes]]
path = \"/api/GetData\"
methods = [\"POST\"]
{process}"
    )
}

/// For those who run it as root, for example in a container.
const AS_ROOT: &str = "
[process]
# This file was written by root. It is safer to switch to a user that owns these files and nothing
# else: write user = \"syncgate\" instead (docs/hardening.md).
allow_root = true
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_written_is_the_default_but_for_the_backend_the_admin_socket_and_root() {
        for url in [
            "http://erp.example:81",
            "unix:/run/a \"b\"\\c.sock",
            "http://127.0.0.1:8080",
        ] {
            let url: UpstreamUrl = url.parse().unwrap();
            for root in [false, true] {
                let text = configuration(&url, Path::new("run/admin.sock"), root);
                let loaded = config::parse("config.toml", &text).unwrap();
                let mut expected = Config::default();
                expected.upstream.url = Some(url.clone());
                expected.admin.socket = Some("run/admin.sock".into());
                expected.process.allow_root = root;
                assert_eq!(loaded.config, expected);
            }
        }
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        let cases = [
            ("certs/server.pem", "certs/server.pem"),
            ("my files/it's", r"'my files/it'\''s'"),
        ];
        for (path, expected) in cases {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
