//! Servers of the tests: real processes on ports that they choose, in a directory of their own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::DEADLINE;
use crate::support::tls::Identity;

/// A `redis-server` process.
pub struct Redis {
    pub port: u16,
    /// Where it speaks TLS, if it does.
    pub tls_port: Option<u16>,
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Redis {
    /// A server with nothing on it, which keeps what it is told over a restart.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with further settings; each `{dir}` stands for its directory.
    pub fn with(settings: &[&str]) -> Self {
        Self::prepared(settings, |_| {})
    }

    /// A server on this port.
    pub fn on(port: u16) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let arguments = Vec::new();
        let mut server = Self {
            port,
            tls_port: None,
            directory,
            arguments,
            process: None,
        };
        server.restart();
        server
    }

    /// A server that also speaks TLS, to gateways and other servers, with this certificate.
    pub fn over_tls(shown: &Identity, settings: &[&str]) -> Self {
        let tls = "--tls-port {tls} --tls-replication yes --tls-cert-file {dir}/redis.pem \
                   --tls-key-file {dir}/redis.key --tls-ca-cert-file {dir}/redis.pem \
                   --tls-auth-clients no";
        let mut all: Vec<&str> = tls.split_whitespace().collect();
        all.extend(settings);
        Self::prepared(&all, |directory| shown.write(directory, "redis"))
    }

    /// As `with`, after `prepare` has written files into the directory.
    fn prepared(settings: &[&str], prepare: impl Fn(&Path)) -> Self {
        let speaks_tls = settings.contains(&"{tls}");
        for _ in 0..10 {
            let directory = tempfile::tempdir().expect("a directory");
            prepare(directory.path());
            let port = free_port();
            let tls_port = speaks_tls.then(free_port);
            let shown = directory.path().display().to_string();
            let arguments = settings.iter().map(|text| {
                let text = text.replace("{dir}", &shown);
                let text = text.replace("{tls}", &tls_port.unwrap_or_default().to_string());
                // Computed for a cluster alone, whose ports leave room for it.
                let text = text.replace("{bus}", &port.saturating_add(10_000).to_string());
                text.replace("{port}", &port.to_string())
            });
            let mut server = Self {
                port,
                tls_port,
                arguments: arguments.collect(),
                directory,
                process: None,
            };
            if server.launch() {
                return server;
            }
        }
        panic!("no redis-server can be started; `make tools` installs it");
    }

    /// Another process in the place of the one that was killed.
    pub fn restart(&mut self) {
        assert!(self.launch(), "the server does not start again");
    }

    /// What it holds, as it could be copied while it runs.
    pub fn snapshot(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a directory");
        copy_files(&self.directory.path().join(KEPT_IN), copy.path());
        copy
    }

    /// Another process in its place, with further settings, that holds what the snapshot does.
    pub fn restart_from(&mut self, snapshot: &TempDir, settings: &[&str]) {
        self.kill();
        let kept = self.directory.path().join(KEPT_IN);
        fs::remove_dir_all(&kept).expect("what it kept");
        fs::create_dir(&kept).expect("a directory");
        copy_files(snapshot.path(), &kept);
        let before = self.arguments.len();
        self.arguments
            .extend(settings.iter().map(|text| text.to_string()));
        self.restart();
        self.arguments.truncate(before);
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where gateways reach it.
    pub fn address_for_gateways(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port.unwrap_or(self.port))
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.process.as_ref().expect("a process").id();
        let id = Pid::from_raw(i32::try_from(id).expect("a process id"));
        kill_process(id.expect("a process id"), signal).expect("a process to signal");
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a process to kill");
            process.wait().expect("a process that has ended");
        }
    }

    /// The answer to a command, as it comes.
    pub fn tell(&self, words: &[&str]) -> String {
        tell(self.port, words).expect("an answer")
    }

    /// How often a command was called.
    pub fn calls(&self, command: &str) -> u64 {
        let text = self.tell(&["INFO", "commandstats"]);
        let start = format!("cmdstat_{command}:calls=");
        let Some((_, rest)) = text.split_once(&start) else {
            return 0;
        };
        let (number, _) = rest.split_once(',').expect("a number");
        number.parse().expect("a number")
    }

    fn launch(&mut self) -> bool {
        let directory = self.directory.path();
        let log = fs::File::create(directory.join("log")).expect("a log");
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args([
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]);
        command.arg("--dir").arg(directory).args(&self.arguments);
        let process = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        // Kept at once, so that it ends with the test however that ends.
        self.process = Some(process.expect("redis-server, which `make tools` installs"));
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let process = self.process.as_mut().expect("a process");
            if process.try_wait().expect("a process").is_some() {
                return false;
            }
            // One that wants TLS or a password says so, and is there.
            if tell(self.port, &["PING"]).is_some_and(|answer| !answer.starts_with("-LOADING")) {
                return true;
            }
            pause();
        }
        panic!("redis-server does not answer");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).expect("a directory") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

/// Where in its directory a server keeps what it is told.
const KEPT_IN: &str = "appendonlydir";

pub fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        // The bus of a cluster is 10,000 above.
        if port < 50_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// Sends a command and gives back what is answered to it. `None` when nobody answers.
pub fn tell(port: u16, words: &[&str]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(text.as_bytes()).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Gives others a moment, where there is nothing to wait for but their being ready.
pub fn pause() {
    let (_sender, nobody) = std::sync::mpsc::channel::<()>();
    let _ = nobody.recv_timeout(Duration::from_millis(10));
}
