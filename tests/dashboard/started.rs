//! `syncgate dashboard` as a process of its own, before a gateway in this one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use syncgate_selftest::client::{Connection, Request};

use crate::support::{DEADLINE, Harness};

/// A dashboard that runs.
pub struct Started {
    process: Child,
    _output: BufReader<ChildStdout>,
    /// The link that opens it once.
    pub link: String,
    pub port: u16,
}

/// What it answered.
pub struct Got {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub text: String,
}

impl Got {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Started {
    pub fn before(harness: &Harness, arguments: &[&str]) -> Self {
        let config = harness.files().directory().join("config.toml");
        let mut process = Command::new(program())
            .arg("dashboard")
            .args(arguments)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (mut said, mut link) = (String::new(), None);
        while link.is_none() {
            said.clear();
            assert!(output.read_line(&mut said).unwrap() > 0, "it says no link");
            let line = said.trim();
            link = line
                .starts_with("http://127.0.0.1:")
                .then(|| line.to_owned());
        }
        let link = link.unwrap();
        let port = link["http://127.0.0.1:".len()..].split('/').next();
        let port = port.unwrap().parse().unwrap();
        Self {
            process,
            _output: output,
            link,
            port,
        }
    }

    /// The path of the link.
    pub fn opener(&self) -> &str {
        &self.link[self.link.find("/open").unwrap()..]
    }

    /// Sends a request with these fields and no others.
    pub fn send(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Got {
        let address = ([127, 0, 0, 1], self.port).into();
        let connection = Connection::tcp(address, DEADLINE).unwrap();
        let request = Request {
            method,
            target,
            fields,
            body,
        };
        let answer = connection
            .reading_up_to(4 * 1024 * 1024)
            .exchange(&request, DEADLINE)
            .unwrap();
        Got {
            status: answer.status,
            fields: answer.fields,
            text: String::from_utf8(answer.body).unwrap(),
        }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Opens the link as a browser does.
    pub fn open(&self) -> Opened<'_> {
        let host = self.host();
        let opened = self.send("GET", self.opener(), &[("Host", &host)], "");
        assert_eq!(opened.status, 303, "{}", opened.text);
        let cookie = opened.field("set-cookie").unwrap();
        Opened {
            cookie: cookie.split(';').next().unwrap().to_owned(),
            path: opened.field("location").unwrap().to_owned(),
            started: self,
        }
    }

    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.process), Signal::INT).unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The session of a browser.
pub struct Opened<'a> {
    pub cookie: String,
    /// The directory of the page.
    pub path: String,
    pub started: &'a Started,
}

impl Opened<'_> {
    /// Asks as the page does.
    pub fn get(&self, path: &str) -> Got {
        let (host, target) = (self.started.host(), format!("{}{path}", self.path));
        let fields = [("Host", &*host), ("Cookie", &*self.cookie)];
        self.started.send("GET", &target, &fields, "")
    }

    /// The token that actions carry.
    pub fn action(&self) -> String {
        let session: serde_json::Value = serde_json::from_str(&self.get("session").text).unwrap();
        session["action"].as_str().unwrap().to_owned()
    }

    /// Acts with these further fields.
    pub fn act(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Got {
        let (host, target) = (self.started.host(), format!("{}{path}", self.path));
        let usual = [("Host", &*host), ("Cookie", &*self.cookie)];
        let fields = [&usual[..], fields].concat();
        self.started.send(method, &target, &fields, body)
    }
}

/// The program, which Cargo builds next to the directory of the test binaries.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("syncgate")
}
