//! The real binary as a child process: for its logs, its memory, its signals and its exit.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use tokio::sync::watch;

use super::client::{Client, Token};
use super::fake_clock::FakeClock;
use super::harness::{Files, NAME, password};
use super::tls::Identity;
use super::{Answer, Ask, BODY_MARKER, PASSWORD_MARKER, Upstream, within};

pub struct Child {
    pub upstream: Upstream,
    pub https: SocketAddr,
    process: std::process::Child,
    identity: Identity,
    output: Arc<Output>,
    pipes: Vec<std::thread::JoinHandle<()>>,
    files: Files,
    /// The program of its own, where it has one.
    program: Option<tempfile::TempDir>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    changed: watch::Sender<usize>,
}

impl Child {
    /// Runs `syncgate run` with JSON logs and waits until it listens.
    pub async fn start(adjust: impl FnOnce(&mut Files)) -> Self {
        Self::launch(command(program()), &[], adjust).await
    }

    /// The same with more arguments.
    pub async fn start_with(arguments: &[&str], adjust: impl FnOnce(&mut Files)) -> Self {
        Self::launch(command(program()), arguments, adjust).await
    }

    /// The same with files that can grow to so many blocks at the most, as if the disk were full.
    pub async fn start_with_file_size(blocks: u32, adjust: impl FnOnce(&mut Files)) -> Self {
        let mut shell = command("sh");
        shell
            .arg("-c")
            .arg(format!("ulimit -f {blocks} && exec \"$0\" \"$@\""))
            .arg(program());
        Self::launch(shell, &[], adjust).await
    }

    /// The same with so many file descriptors at the most.
    pub async fn start_with_descriptors(most: u32, adjust: impl FnOnce(&mut Files)) -> Self {
        let mut shell = command("sh");
        shell
            .arg("-c")
            .arg(format!("ulimit -n {most} && exec \"$0\" \"$@\""))
            .arg(program());
        Self::launch(shell, &[], adjust).await
    }

    /// The same by a clock of its own.
    pub async fn start_by_clock(clock: &FakeClock, adjust: impl FnOnce(&mut Files)) -> Self {
        let file = clock.file();
        let environment = [
            ("LD_PRELOAD", clock.library().as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_os_str()),
            ("FAKETIME_NO_CACHE", "1".as_ref()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
            ("DONT_FAKE_MONOTONIC", "1".as_ref()),
            ("FAKETIME_DISABLE_SHM", "1".as_ref()),
        ];
        Self::start_in(&environment, adjust).await
    }

    /// The same with these environment variables.
    pub async fn start_in(environment: &[(&str, &OsStr)], adjust: impl FnOnce(&mut Files)) -> Self {
        let mut command = command(program());
        command.envs(environment.iter().copied());
        Self::launch(command, &[], adjust).await
    }

    /// The same with an admin socket, from a file of its own that can be replaced by another program.
    pub async fn start_replaceable(adjust: impl FnOnce(&mut Files)) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("syncgate");
        put_program(&path);
        let with_socket = |files: &mut Files| {
            let socket = files.directory().join("admin.sock");
            files.set("admin.socket", socket.to_str().expect("a path of text"));
            adjust(files);
        };
        let mut child = Self::launch(command(&path), &[], with_socket).await;
        child.program = Some(place);
        child
    }

    /// Puts a shell script in the place of the program that it was started from, or the program again.
    pub fn replace_program(&self, script: Option<&str>) {
        let place = self.program.as_ref().expect("a program of its own");
        let (path, new) = (place.path().join("syncgate"), place.path().join("new"));
        match script {
            Some(script) => {
                super::harness::write(&new, &format!("#!/bin/sh\n{script}\n"), 0o755);
            }
            None => put_program(&new),
        }
        std::fs::rename(&new, &path).expect("a file to replace");
    }

    /// Begins `syncgate upgrade`.
    pub fn begin_upgrade(&self) -> tokio::task::JoinHandle<Printed> {
        let mut upgrade = command(program());
        upgrade
            .arg("upgrade")
            .arg("--config")
            .arg(self.files.write());
        tokio::task::spawn_blocking(move || {
            let output = upgrade.output().expect("a command that runs");
            Printed {
                is_done: output.status.success(),
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        })
    }

    /// Runs `syncgate upgrade`.
    pub async fn upgrade(&self) -> Printed {
        within("an upgrade", self.begin_upgrade())
            .await
            .expect("a thread that ends")
    }

    /// The numbers of the processes that were started for upgrades.
    pub fn upgraded(&self) -> Vec<u32> {
        let lines = self.lines();
        let started = lines.iter().filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let is_it = line["message"] == "upgrade: a new process was started";
            u32::try_from(line["pid"].as_u64().filter(|_| is_it)?).ok()
        });
        started.collect()
    }

    /// Waits for the process that was started first, which has handed over.
    pub async fn first_exit(&mut self) -> ExitStatus {
        let mut process = std::mem::replace(&mut self.process, nothing());
        let waiting = tokio::task::spawn_blocking(move || process.wait());
        within("the end of the first process", waiting)
            .await
            .expect("the wait for the process")
            .expect("a status")
    }

    /// Ends the process that took over last, and waits until none is left that could write.
    pub async fn stop_last(mut self) -> Vec<String> {
        let last = self.upgraded().last().copied().expect("an upgrade");
        let pid = i32::try_from(last).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), Signal::TERM).expect("a process to signal");
        let pipes: Vec<_> = self.pipes.drain(..).collect();
        let ending = tokio::task::spawn_blocking(move || {
            for pipe in pipes {
                pipe.join().expect("a pipe that was read to its end");
            }
        });
        within("the end of all output", ending)
            .await
            .expect("the wait for it");
        let lines = self.lines();
        for secret in ["SGT1", PASSWORD_MARKER, BODY_MARKER] {
            let is_in = lines.iter().any(|line| line.contains(secret));
            assert!(!is_in, "a secret was logged");
        }
        lines
    }

    /// The same with a listener that somebody else has bound, handed over as systemd does it.
    pub async fn start_on(socket: &TcpListener, adjust: impl FnOnce(&mut Files)) -> Self {
        let mut shell = passing(socket);
        shell.arg(program());
        Self::launch(shell, &[], adjust).await
    }

    /// Kills the process as a power failure would, and starts another one on its files.
    pub async fn kill_and_start_again(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for pipe in self.pipes.drain(..) {
            pipe.join().expect("a pipe that was read to its end");
        }
        let started = spawn(command(program()), &[], &self.files);
        (self.process, self.output, self.pipes) = started;
        self.https = self.until("the address it listens on", listening).await;
    }

    async fn launch(command: Command, arguments: &[&str], adjust: impl FnOnce(&mut Files)) -> Self {
        let upstream = Upstream::tcp();
        let (mut files, identity) = Files::new(upstream.url());
        adjust(&mut files);
        let (process, output, pipes) = spawn(command, arguments, &files);
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut child = Self {
            upstream,
            https: unbound,
            process,
            identity,
            output,
            pipes,
            files,
            program: None,
        };
        child.https = child.until("the address it listens on", listening).await;
        child
    }

    /// Waits until some line of output yields what the test looks for.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        let mut changed = self.output.changed.subscribe();
        within(what, async {
            loop {
                let found = self.lines().iter().find_map(|line| look(line));
                match found {
                    Some(found) => return found,
                    None => changed.changed().await.expect("the output lives"),
                }
            }
        })
        .await
    }

    /// Waits for the n-th (from 1) access record and returns it.
    pub async fn access_record(&self, number: usize) -> Value {
        let mut changed = self.output.changed.subscribe();
        within("an access record", async {
            loop {
                let found = self
                    .lines()
                    .iter()
                    .filter_map(|line| record(line))
                    .nth(number - 1);
                match found {
                    Some(found) => return found,
                    None => changed.changed().await.expect("the output lives"),
                }
            }
        })
        .await
    }

    pub fn lines(&self) -> Vec<String> {
        self.output
            .lines
            .lock()
            .expect("no pipe thread panicked")
            .clone()
    }

    pub fn anonymous(&self) -> Client {
        Client {
            address: self.https,
            trusted: vec![self.identity.certificate.clone()],
            name: NAME.to_owned(),
            token: None,
        }
    }

    pub async fn signed_in(&self) -> Client {
        let client = self.anonymous();
        let answer = client
            .send(Ask::login("till-01", &password("till-01")))
            .await;
        assert_eq!(answer.status, 200, "signing in: {answer:?}");
        let token = answer.json()["token"]["accesstoken"]
            .as_str()
            .map(Token::new);
        Client {
            token: Some(token.expect("a token in the answer")),
            ..client
        }
    }

    /// Asks the admin interface on its unix socket, `admin.sock` beside the configuration.
    pub async fn ask_admin(&self, ask: &Ask) -> Answer {
        super::harness::ask_admin_at(self.files.directory(), ask).await
    }

    /// Begins to watch memory: the peak falls to what is resident now, which is returned in KiB.
    pub fn forget_peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        std::fs::write(path, "5").expect("a peak that can be reset");
        self.peak_memory()
    }

    /// The most memory the process has had resident since then, in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the status of the process");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .expect("a number of KiB")
    }

    /// How many sockets the process has open.
    pub fn sockets(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.id());
        let files = std::fs::read_dir(path).expect("the files of the process");
        files
            .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// What the process has resident now, in KiB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Lets the process write no file beyond so many bytes from now on, wherever in it.
    pub fn limit_file_size(&self, bytes: u64) {
        let pid = i32::try_from(self.process.id()).ok();
        let pid = pid.and_then(Pid::from_raw);
        let limit = rustix::process::Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit)
            .expect("a process of ours");
    }

    /// The same, until it [may](Self::let_files_grow) again.
    pub fn fill_disk(&self) {
        self.limit_file_size_to(Some(0));
    }

    /// Lifts what [`fill_disk`](Self::fill_disk) did.
    pub fn let_files_grow(&self) {
        let usual = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        self.limit_file_size_to(usual.maximum);
    }

    /// Leaves the bound of the limit, which nobody may raise again.
    fn limit_file_size_to(&self, current: Option<u64>) {
        let pid = i32::try_from(self.process.id()).ok();
        let fsize = rustix::process::Resource::Fsize;
        let usual = rustix::process::getrlimit(fsize);
        let limit = rustix::process::Rlimit { current, ..usual };
        rustix::process::prlimit(pid.and_then(Pid::from_raw), fsize, limit)
            .expect("a process of ours");
    }

    /// The files that it reads.
    /// The files to change.
    pub fn files_mut(&mut self) -> &mut Files {
        &mut self.files
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("a process to signal");
    }

    /// Stops all threads of the process, until it is sent `CONT`.
    #[allow(dead_code, reason = "not every test binary stops a process")]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        let stopped = waitpid(pid, WaitOptions::UNTRACED).expect("a process to wait for");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
    }

    /// Waits for the process to end; its status and everything it has written. Fails the test
    /// if any of that holds a token, a password or a body.
    pub async fn exit(mut self) -> (ExitStatus, Vec<String>) {
        let process = std::mem::replace(&mut self.process, nothing());
        let pid = Pid::from_child(&process);
        let waiting = tokio::task::spawn_blocking(move || {
            let mut process = process;
            process.wait()
        });
        let status = match tokio::time::timeout(super::DEADLINE, waiting).await {
            Ok(status) => status.expect("the wait for the process").expect("a status"),
            Err(_) => {
                let _ = kill_process(pid, Signal::KILL);
                panic!("the gateway's process did not end");
            }
        };
        for pipe in self.pipes.drain(..) {
            pipe.join().expect("a pipe that was read to its end");
        }
        let lines = self.lines();
        for secret in ["SGT1", PASSWORD_MARKER, BODY_MARKER] {
            assert!(
                !lines.iter().any(|line| line.contains(secret)),
                "a secret was logged"
            );
        }
        (status, lines)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Those that came of upgrades are nobody's children.
        for upgraded in self.upgraded() {
            if let Some(pid) = i32::try_from(upgraded).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// What a command has printed.
#[derive(Debug)]
pub struct Printed {
    pub is_done: bool,
    pub out: String,
    pub err: String,
}

/// The program at another path.
fn put_program(path: &std::path::Path) {
    if std::fs::hard_link(program(), path).is_err() {
        std::fs::copy(program(), path).expect("a copy of the program");
    }
}

/// A process, what it has written, and the threads that read it.
type Started = (
    std::process::Child,
    Arc<Output>,
    Vec<std::thread::JoinHandle<()>>,
);

fn spawn(mut command: Command, arguments: &[&str], files: &Files) -> Started {
    let mut process = command
        .arg("run")
        .args(arguments)
        .arg("--config")
        .arg(files.write())
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the gateway's process");
    let output = Arc::new(Output::default());
    let pipes = vec![
        gather(process.stdout.take().expect("its output"), &output),
        gather(process.stderr.take().expect("its errors"), &output),
    ];
    (process, output, pipes)
}

/// A shell that runs its arguments with the listener as sd_listen_fds(3) has it.
pub fn passing(socket: &TcpListener) -> Command {
    let mut shell = Command::new("sh");
    let socket = socket.try_clone().expect("another descriptor");
    shell.stdin(Stdio::from(OwnedFd::from(socket)));
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    shell.args(["-c", script]);
    shell
}

/// A command that reads nothing.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// A process that is already over, to stand in where the real one was taken out.
fn nothing() -> std::process::Child {
    Command::new("true").spawn().expect("a process")
}

fn gather(pipe: impl Read + Send + 'static, output: &Arc<Output>) -> std::thread::JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            // Into the output of the suite, which is searched for secrets as a whole.
            println!("{line}");
            output
                .lines
                .lock()
                .expect("no pipe thread panicked")
                .push(line);
            output.changed.send_modify(|count| *count += 1);
        }
    })
}

/// The first address in the line that says where the gateway serves HTTPS.
fn listening(line: &str) -> Option<SocketAddr> {
    let value: Value = serde_json::from_str(line).ok()?;
    if value["message"] != "serving" {
        return None;
    }
    let addresses = value["https"].as_str()?.trim_matches(['[', ']']);
    addresses.split(',').next()?.parse().ok()
}

/// The line as an access record, if it is one.
pub fn record(line: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    (value["target"] == "syncgate::access").then_some(value)
}

/// The gateway, which Cargo builds next to the directory of the test binaries.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let built = test
        .ancestors()
        .nth(2)
        .expect("a directory above the tests");
    built.join("syncgate")
}
