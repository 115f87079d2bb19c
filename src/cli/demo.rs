//! `syncgate demo`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::demo_client::Client;
use super::failure::Failure;
use super::print;
use super::signals::Signals;
use crate::app::{Server, Startup};
use crate::clock::Clock;
use crate::config::Config;
use crate::observe::Logs;
use crate::password::Password;
use crate::password::hash_password;
use crate::sample_backend::SampleBackend;
use crate::tls::development::{CertificateFiles, write_certificate};

/// Run the gateway with a sample backend, a development certificate and a demo user
///
/// Needs no configuration and leaves only the certificate behind. Serves until Ctrl-C.
#[derive(Debug, Args)]
pub(super) struct DemoCommand {
    /// The address to serve HTTPS on; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS", default_value_t = DEFAULT_ADDRESS)]
    listen: SocketAddr,
    /// The directory of the development certificate, which is created if missing
    #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
    certs: PathBuf,
}

const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8443));

impl DemoCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (certificate, made) = self.certificate().map_err(Failure::other)?;
        let password = random_text().map_err(Failure::other)?;
        let backend = SampleBackend::start().map_err(Failure::other)?;
        let users = Users::write(&password).map_err(Failure::other)?;
        let config = self.config(&certificate, &backend, &users)?;
        let logs = Logs::start(&config.log)?;
        let server = Server::start(Startup {
            sink: Some(logs.access_sink()),
            ..Startup::of(config.clone())
        })?;
        let address = server.https().first().copied().unwrap_or(self.listen);
        let introduction = format!(
            "syncgate demo\n\n\
             certificate     {}{}\n\
             sample backend  http://{}\n\
             gateway         https://localhost:{}\n\
             user            {USER}, password {password} (valid for this run)\n\n",
            certificate.certificate.display(),
            if made { " (created)" } else { "" },
            backend.address(),
            address.port(),
        );
        print(introduction.as_bytes())?;
        let shown = round_trip(address, &certificate, &password).map_err(Failure::other)?;
        print(shown.as_bytes())?;
        print(instructions(address, &certificate, &users, &password).as_bytes())?;
        let signals = Signals::receive().map_err(Failure::other)?;
        signals
            .serve_until_stopped(server, &|| {})
            .map_err(Failure::other)
    }

    fn certificate(&self) -> io::Result<(CertificateFiles, bool)> {
        let there = CertificateFiles::in_directory(&self.certs);
        if there.certificate.try_exists()? && there.key.try_exists()? {
            return Ok((there, false));
        }
        let now = Clock::system().now().timestamp();
        write_certificate(&self.certs, &[], now).map(|written| (written, true))
    }

    fn config(
        &self,
        certificate: &CertificateFiles,
        backend: &SampleBackend,
        users: &Users,
    ) -> Result<Config, Failure> {
        let mut config = Config::default();
        config.listen.https = vec![self.listen.into()];
        config.accounts.file.clone_from(&users.file);
        config.admin.socket = Some(users.directory.join(SOCKET));
        if let Some(pair) = config.tls.certificates.first_mut() {
            pair.certificate.clone_from(&certificate.certificate);
            pair.key.clone_from(&certificate.key);
        }
        let url = format!("http://{}", backend.address());
        config.upstream.url = Some(url.parse().map_err(Failure::other)?);
        Ok(config)
    }
}

/// The account file of one run, in a private directory that is removed at the end. The directory also
/// holds the admin socket and a configuration that names it.
struct Users {
    directory: PathBuf,
    file: PathBuf,
    config: PathBuf,
}

impl Users {
    fn write(password: &str) -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("syncgate-demo-{}", random_text()?));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let users = Self {
            file: directory.join("users.toml"),
            config: directory.join("config.toml"),
            directory,
        };
        let hash = hash_password(&Password::new(password.to_owned())).map_err(io::Error::other)?;
        let mut file = OpenOptions::new();
        let mut file = file
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&users.file)?;
        writeln!(file, "[users.{USER}]\npassword = \"{hash}\"\nallow = \"*\"")?;
        fs::write(&users.config, format!("[admin]\nsocket = \"{SOCKET}\"\n"))?;
        Ok(users)
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        // If this fails, what stays is the hash of a password that is no longer valid anywhere.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Logs in, makes one call with the token, and shows the exchange with the token truncated.
fn round_trip(
    address: SocketAddr,
    certificate: &CertificateFiles,
    password: &str,
) -> io::Result<String> {
    let pem = fs::read(&certificate.certificate)?;
    let mut client = Client::connect(address, &pem)?;
    let credentials = format!(r#"{{"username":"{USER}","password":"{password}"}}"#);
    let login = client.post("/api/getToken", None, &credentials)?;
    let token = token_in(&login)?;
    let answer = client.post("/api/SyncData", Some(&token), BATCH)?;
    let short = login.replace(&token, &format!("{}...", &token[..8]));
    Ok(format!(
        "One round trip:\n\n\
         POST /api/getToken with user name and password\n  {short}\n\
         POST /api/SyncData with the token and {BATCH}\n  {answer}\n\n",
    ))
}

fn token_in(answer: &str) -> io::Result<String> {
    let answer: serde_json::Value = serde_json::from_str(answer)?;
    match answer
        .pointer("/token/accesstoken")
        .and_then(serde_json::Value::as_str)
    {
        Some(token) if token.len() > 8 => Ok(token.to_owned()),
        Some(_) | None => Err(io::Error::other("the gateway issued no token")),
    }
}

fn instructions(
    address: SocketAddr,
    certificate: &CertificateFiles,
    users: &Users,
    password: &str,
) -> String {
    let port = address.port();
    let config = shown_path(&users.config);
    let ca = shown_path(&certificate.certificate);
    format!(
        "Try it yourself, in another terminal:\n\n\
         TOKEN=$(curl -s --cacert {ca} https://localhost:{port}/api/getToken \\\n  \
         -H 'Content-Type: application/json' \\\n  \
         -d '{{\"username\":\"{USER}\",\"password\":\"{password}\"}}' \\\n  \
         | sed 's/.*\"accesstoken\":\"\\([^\"]*\\)\".*/\\1/')\n\n\
         curl --cacert {ca} https://localhost:{port}/api/SyncData \\\n  \
         -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\\n  \
         -d '{BATCH}'\n\n\
         Without the token the call is refused:\n\n\
         curl -i --cacert {ca} https://localhost:{port}/api/SyncData -d '{{}}'\n\n\
         List the tokens, and revoke them:\n\n\
         syncgate tokens list --config {config}\n\
         syncgate tokens revoke --all --config {config}\n\n\
         See all of it in a browser:\n\n\
         syncgate dashboard --config {config}\n\n\
         Every request is logged below. Press Ctrl-C to stop.\n\n",
    )
}

/// Quoted for a shell.
fn shown_path(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// 96 random bits in 16 characters that need no quoting anywhere.
fn random_text() -> io::Result<String> {
    let mut random = [0; 12];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| io::Error::other("the system's random number generator failed"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

const USER: &str = "demo";
const SOCKET: &str = "admin.sock";
const BATCH: &str = r#"{"form":"setCustomer","data":[{"code":"C-1","name":"Ada"}]}"#;
