//! A gateway in this process, with its files in a temporary directory, a manual clock, and an
//! upstream that follows scripts.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use syncgate::app::{Server, StartError, Startup};
use syncgate::clock::Clock;
use syncgate::config;
use syncgate::control::ReloadReport;
use syncgate::upstream::Resolver;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use toml::{Table, Value};

use super::client::{Agreed, Client, Connection, Stream, Token};
use super::tls::Identity;
use super::{Answer, Ask, PASSWORD_MARKER, Upstream, run};

/// The instant at which a harness's clock stands at first.
pub const START: &str = "2025-04-23T10:02:42Z";
/// How long tokens live in a harness: the default.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The name that the gateway's first certificate is for.
pub const NAME: &str = "gateway.test";

/// A configuration in the making: what `config.toml` will hold, and the directory around it.
pub struct Files {
    directory: TempDir,
    table: Table,
}

impl Files {
    /// A certificate, an account file, and a configuration with ports chosen by the system.
    pub fn new(upstream: &str) -> (Self, Identity) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity::new(&[NAME, "localhost", "127.0.0.1"]);
        identity.write(directory.path(), "server");
        write_users(
            directory.path(),
            &[
                ("till-01", "allow = \"*\""),
                ("shop-02", "allow = \"*\""),
                ("disabled-03", "allow = \"*\"\ndisabled = true"),
            ],
        );
        let mut files = Self {
            directory,
            table: Table::new(),
        };
        files.set("listen.https", &["127.0.0.1:0"][..]);
        files.set("listen.workers", 1);
        files.set("upstream.url", upstream);
        files.set("accounts.file", "users.toml");
        files.set("login.hash_threads", 1);
        files.set("limits.drain", "20s");
        files.set("log.format", "json");
        // Tests run as anybody, root included.
        files.set("process.allow_root", true);
        // So that every test of the program shows that nothing needs another system call.
        files.set("process.seccomp", true);
        files.certificates(&["server"]);
        (files, identity)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sets `section.key`.
    pub fn set<V: Into<Setting>>(&mut self, key: &str, value: V) {
        let (section, key) = key.split_once('.').expect("section.key");
        let Value::Table(section) = self
            .table
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()))
        else {
            panic!("{section} is no section");
        };
        section.insert(key.to_owned(), value.into().0);
    }

    /// Removes `section.key`.
    pub fn remove(&mut self, key: &str) {
        let (section, key) = key.split_once('.').expect("section.key");
        if let Some(Value::Table(section)) = self.table.get_mut(section) {
            section.remove(key);
        }
    }

    /// Adds the lines of a section, in which further tables may stand.
    pub fn section(&mut self, name: &str, lines: &str) {
        let section: Table = lines.parse().expect("the lines of a section");
        self.table.insert(name.to_owned(), Value::Table(section));
    }

    /// Sets `section.key` to a table, given as its lines.
    pub fn set_table(&mut self, key: &str, lines: &str) {
        let table: Table = lines.parse().expect("the lines of a table");
        self.set(key, Value::Table(table));
    }

    /// What `section.key` was set to.
    pub fn text(&self, key: &str) -> String {
        let (section, key) = key.split_once('.').expect("section.key");
        let text = self.table[section][key].as_str().expect("a text");
        text.to_owned()
    }

    /// Makes the listeners of `listen.https` or `listen.http` demand PROXY headers.
    pub fn behind_proxy(&mut self, key: &str) {
        let line = "it = [{ address = \"127.0.0.1:0\", proxy_protocol = true }]";
        let table: Table = line.parse().expect("an address with an option");
        self.set(key, table["it"].clone());
    }

    /// Serves these certificates, by the name of their files.
    pub fn certificates(&mut self, names: &[&str]) {
        let pairs: Vec<Value> = names
            .iter()
            .map(|name| {
                let mut pair = Table::new();
                pair.insert(
                    "certificate".to_owned(),
                    Value::String(format!("{name}.pem")),
                );
                pair.insert("key".to_owned(), Value::String(format!("{name}.key")));
                Value::Table(pair)
            })
            .collect();
        self.set("tls.certificates", Value::Array(pairs));
    }

    /// Replaces the accounts by these, each given as its name and the lines of its table.
    pub fn users(&self, users: &[(&str, &str)]) {
        write_users(self.directory(), users);
    }

    /// Replaces the routes by these, each given as the lines of its table.
    pub fn routes(&mut self, routes: &[&str]) {
        let routes = routes
            .iter()
            .map(|lines| Value::Table(lines.parse().expect("the lines of a route")))
            .collect();
        self.table.insert("routes".to_owned(), Value::Array(routes));
    }

    /// Takes over a whole configuration, but for what a test must choose: ports, the upstream, and
    /// the certificate.
    pub fn adopt(&mut self, config: &str) {
        let mut theirs: Table = config.parse().expect("a configuration");
        for kept in [
            "listen", "upstream", "tls", "accounts", "login", "log", "limits", "process",
        ] {
            let ours = self.table.remove(kept);
            let Some(Value::Table(ours)) = ours else {
                continue;
            };
            let section = theirs.entry(kept).or_insert_with(|| Table::new().into());
            let section = section.as_table_mut().expect("a section");
            section.extend(ours);
        }
        self.table = theirs;
        if self.table["listen"].get("http").is_some() {
            self.set("listen.http", &["127.0.0.1:0"][..]);
        }
    }

    /// Writes the account file as it is.
    pub fn accounts(&self, text: &str) {
        write(&self.directory().join("users.toml"), text, 0o600);
    }

    /// Writes `config.toml`.
    pub fn write(&self) -> PathBuf {
        let path = self.directory.path().join("config.toml");
        let text = toml::to_string(&self.table).expect("a configuration");
        write(&path, &text, 0o644);
        path
    }
}

/// A value of the configuration.
pub struct Setting(Value);

impl From<&str> for Setting {
    fn from(text: &str) -> Self {
        Self(Value::String(text.to_owned()))
    }
}

impl From<i64> for Setting {
    fn from(number: i64) -> Self {
        Self(Value::Integer(number))
    }
}

impl From<i32> for Setting {
    fn from(number: i32) -> Self {
        Self(Value::Integer(number.into()))
    }
}

impl From<bool> for Setting {
    fn from(flag: bool) -> Self {
        Self(Value::Boolean(flag))
    }
}

impl From<&[&str]> for Setting {
    fn from(texts: &[&str]) -> Self {
        Self(Value::Array(
            texts
                .iter()
                .map(|&text| Value::String(text.to_owned()))
                .collect(),
        ))
    }
}

impl From<Value> for Setting {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

pub struct Harness {
    pub upstream: Upstream,
    pub clock: Clock,
    pub identity: Identity,
    server: Option<Server>,
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    // Last, so that the files outlive the gateway.
    files: Files,
}

impl Harness {
    /// A gateway with the usual configuration.
    pub fn usual() -> Self {
        Self::start(|_| {})
    }

    /// A gateway with a configuration that the test adjusts.
    pub fn start(adjust: impl FnOnce(&mut Files)) -> Self {
        Self::with(Upstream::tcp(), adjust)
    }

    /// A gateway before this upstream.
    pub fn with(upstream: Upstream, adjust: impl FnOnce(&mut Files)) -> Self {
        Self::at(clock(), upstream, adjust)
    }

    /// A gateway before this upstream that asks this clock.
    pub fn at(clock: Clock, upstream: Upstream, adjust: impl FnOnce(&mut Files)) -> Self {
        Self::resolving(Resolver::system(), clock, upstream, adjust)
    }

    /// A gateway that asks this resolver for the names of servers.
    pub fn with_names(resolver: Resolver, adjust: impl FnOnce(&mut Files)) -> Self {
        Self::resolving(resolver, clock(), Upstream::tcp(), adjust)
    }

    fn resolving(
        resolver: Resolver,
        clock: Clock,
        upstream: Upstream,
        adjust: impl FnOnce(&mut Files),
    ) -> Self {
        let (mut files, identity) = Files::new(upstream.url());
        adjust(&mut files);
        let server = match open_resolving(&files, clock.clone(), resolver) {
            Ok(server) => server,
            Err(error) => panic!("the gateway does not start: {error}"),
        };
        Self {
            https: server.https(),
            http: server.http(),
            upstream,
            clock,
            identity,
            server: Some(server),
            files,
        }
    }

    /// What starting a gateway with this configuration fails with.
    pub fn refuses_to_start(adjust: impl FnOnce(&mut Files)) -> String {
        let (mut files, _) = Files::new("http://127.0.0.1:9");
        adjust(&mut files);
        match open(&files, clock()) {
            Ok(server) => {
                server.drain();
                panic!("the gateway started");
            }
            Err(text) => text,
        }
    }

    /// The files that it reads; `reload` makes it look at them again.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The files to change.
    pub fn files_mut(&mut self) -> &mut Files {
        &mut self.files
    }

    pub fn reload(&self) -> ReloadReport {
        self.server().reload().all()
    }

    /// Writes another configuration, and makes the gateway look at it.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Files)) -> ReloadReport {
        change(&mut self.files);
        self.files.write();
        let report = self.reload();
        self.https = self.server().https();
        self.http = self.server().http();
        report
    }

    /// Where it listens for HTTPS.
    pub fn secure_addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("a gateway that runs")
    }

    /// Where its admin interface listens for TCP.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.server.as_ref().and_then(Server::admin)
    }

    /// Asks the admin interface on its unix socket, `admin.sock` beside the configuration.
    pub async fn ask_admin(&self, ask: &Ask) -> Answer {
        ask_admin_at(self.files.directory(), ask).await
    }

    /// Asks the admin interface at its TCP address.
    pub async fn ask_admin_over_tcp(&self, ask: &Ask) -> Answer {
        let mut connection = self.connect_to_admin().await;
        connection.exchange(ask).await
    }

    /// Connects to the admin interface at its TCP address.
    pub async fn connect_to_admin(&self) -> Connection {
        let address = self.admin().expect("an admin address");
        let stream = TcpStream::connect(address).await.expect("a connection");
        Connection::new(Box::new(stream), &address.to_string(), Agreed::default())
    }

    /// Where it listens for plain HTTP.
    pub fn plain_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Someone with no token.
    pub fn anonymous(&self) -> Client {
        Client {
            address: self.https[0],
            trusted: vec![self.identity.certificate.clone()],
            name: NAME.to_owned(),
            token: None,
        }
    }

    /// Someone who talks to the plain listener.
    pub fn in_the_clear(&self) -> Client {
        Client {
            address: self.http[0],
            ..self.anonymous()
        }
    }

    /// Someone with a live token of `till-01`.
    pub async fn signed_in(&self) -> Client {
        self.signed_in_as("till-01").await
    }

    pub async fn signed_in_as(&self, username: &str) -> Client {
        let client = self.anonymous();
        let answer = client.send(Ask::login(username, &password(username))).await;
        assert_eq!(answer.status, 200, "signing in: {answer:?}");
        let token = answer.json()["token"]["accesstoken"]
            .as_str()
            .map(Token::new);
        Client {
            token: Some(token.expect("a token in the answer")),
            ..client
        }
    }

    /// Someone whose token has just expired. Every older token has then expired too.
    pub async fn expired(&self) -> Client {
        let client = self.signed_in().await;
        self.clock.advance(LIFETIME);
        client
    }

    /// Stops the gateway in good order; its files stay.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            // On another thread, since this one may be within a runtime.
            let drained = std::thread::spawn(move || server.drain()).join();
            assert!(
                drained.is_ok() || std::thread::panicking(),
                "draining panicked"
            );
        }
    }

    /// Starts the gateway again, on what its files are now. Clients have to be made anew.
    pub fn start_again(&mut self) -> Result<(), String> {
        let server = open(&self.files, self.clock.clone())?;
        self.https = server.https();
        self.http = server.http();
        self.server = Some(server);
        Ok(())
    }

    /// Stops the gateway and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        if let Err(error) = self.start_again() {
            panic!("the gateway does not start again: {error}");
        }
    }

    /// Begins to drain, on a thread of its own; the test may go on meanwhile.
    pub fn drain(&mut self) -> tokio::task::JoinHandle<()> {
        let server = self.server.take().expect("a gateway that runs");
        tokio::task::spawn_blocking(move || server.drain())
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an admin interface answers whose socket is `admin.sock` in this directory.
pub async fn ask_admin_at(directory: &Path, ask: &Ask) -> Answer {
    let path = directory.join("admin.sock");
    let stream = UnixStream::connect(path).await.expect("an admin socket");
    admin_connection(stream).exchange(ask).await
}

fn admin_connection(stream: impl Stream + 'static) -> Connection {
    Connection::new(Box::new(stream), "admin", Agreed::default())
}

fn write_users(directory: &Path, users: &[(&str, &str)]) {
    write(&directory.join("users.toml"), &users_toml(users), 0o600);
}

/// The text of an account file. A line of `password` among an account's lines overrules the usual
/// one.
pub fn users_toml(users: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, lines) in users {
        text.push_str(&format!("[users.{name}]\n{lines}\n"));
        if !lines.contains("password") {
            text.push_str(&format!("password = \"{}\"\n", cheap_hash(&password(name))));
        }
    }
    text
}

fn clock() -> Clock {
    Clock::manual(START.parse().expect("a timestamp"))
}

fn open(files: &Files, clock: Clock) -> Result<Server, String> {
    open_resolving(files, clock, Resolver::system())
}

fn open_resolving(files: &Files, clock: Clock, resolver: Resolver) -> Result<Server, String> {
    let opened = config::open(&files.write()).map_err(|problems| problems.to_string())?;
    let (loaded, file) = opened;
    Server::start(Startup {
        file: Some(file),
        clock,
        resolver,
        ..Startup::of(loaded.config)
    })
    .map_err(|error: StartError| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    })
}

/// The password of a test account. Never to be printed.
pub fn password(username: &str) -> String {
    format!("{PASSWORD_MARKER}{username}")
}

/// An Argon2id PHC string whose cost is next to nothing, so that tests are fast.
pub fn cheap_hash(password: &str) -> String {
    let parameters = Params::new(64, 1, 1, Some(32)).expect("parameters within bounds");
    let (salt, mut hash) = ([7_u8; 16], [0_u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(password.as_bytes(), &salt, &mut hash)
        .expect("a hash");
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    format!("$argon2id$v=19$m=64,t=1,p=1${salt}${hash}")
}

/// Writes a file whole or not at all, since the gateway may be watching.
pub fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file that can be written");
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("a mode that can be set");
    fs::rename(&new, path).expect("a file that can be replaced");
}

/// Runs a test with the usual gateway.
pub fn usually(test: impl AsyncFnOnce(Harness)) {
    run(test(Harness::usual()));
}
