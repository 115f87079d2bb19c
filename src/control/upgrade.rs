//! The old process's side of an upgrade: a new process of the same program takes over, or this one goes on as if
//! nothing had happened.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;
use tokio::sync::watch;

use super::admin::AdminSockets;
use super::reload::Reload;
use crate::gateway::{Current, Shared};
use crate::lifecycle::Stage;
use crate::process::launcher::Launcher;
use crate::process::service_manager::{self, Notice};
use crate::server::ListenerControl;
use crate::store::Frozen;
use crate::takeover::{
    Giving, Heard, Hello, Kind, Link, LinkError, ListenerKind, Loaded, Offer, Offered, PROTOCOL,
    Ready,
};

/// Has a new process take over.
#[derive(Debug)]
pub(crate) struct Upgrade {
    parts: UpgradeParts,
    current: Arc<Current>,
    reload: Arc<Reload>,
    /// Held by the one that is under way.
    turn: Mutex<()>,
    handed_over: watch::Sender<bool>,
}

/// What a gateway needs for an upgrade.
#[derive(Debug)]
pub(crate) struct UpgradeParts {
    /// None where there is none.
    pub(crate) launcher: Option<Launcher>,
    /// How long all of it may take.
    pub(crate) patience: Duration,
    pub(crate) listeners: ListenerControl,
    pub(crate) admin: AdminSockets,
    /// What tokens are kept in.
    pub(crate) store: String,
}

/// What an upgrade came to.
#[derive(Debug, Serialize)]
pub(crate) struct UpgradeReport {
    pub(crate) from: Program,
    pub(crate) to: Program,
    /// How many tokens the new process has.
    pub(crate) tokens: usize,
    pub(crate) took_ms: u64,
    /// For how long of that tokens could not be issued or ended.
    pub(crate) frozen_ms: u64,
}

/// A process.
#[derive(Debug, Serialize)]
pub(crate) struct Program {
    pub(crate) version: String,
    pub(crate) pid: u32,
}

/// Why no other process took over.
#[derive(Debug, Error)]
pub(crate) enum UpgradeError {
    #[error(
        "there is no launcher to start the new process with: process.upgrade is false, or syncgate is the first \
         process of a container, which is replaced as a whole instead"
    )]
    NoLauncher,
    #[error(
        "the audit trail (audit.path) is written by one process and is not handed over; restart the gateway instead"
    )]
    Audited,
    #[error("another upgrade is under way")]
    Busy,
    #[error("the gateway is about to end")]
    Draining,
    #[error("the new process cannot be started")]
    Launch(#[source] std::io::Error),
    #[error("the new process does not come up, so the old one goes on: {0}")]
    NewFailed(String),
}

/// An upgrade that is under way.
struct Handing<'a> {
    upgrade: &'a Upgrade,
    shared: Arc<Shared>,
    link: Link,
    step: Giving,
    frozen: Option<Frozen>,
    deadline: Instant,
}

impl Upgrade {
    pub(crate) fn new(parts: UpgradeParts, current: Arc<Current>, reload: Arc<Reload>) -> Self {
        Self {
            parts,
            current,
            reload,
            turn: Mutex::default(),
            handed_over: watch::Sender::new(false),
        }
    }

    /// Returns once another process has taken over. Cancel safe.
    pub(crate) async fn handed_over(&self) {
        let mut handed_over = self.handed_over.subscribe();
        if handed_over.wait_for(|it| *it).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Has a new process take over. Blocks; a reload that is under way comes first, others wait.
    ///
    /// # Errors
    /// Why this process goes on.
    pub(crate) fn run(&self) -> Result<UpgradeReport, UpgradeError> {
        let _one = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(UpgradeError::Busy),
        };
        let launcher = self.parts.launcher.as_ref();
        let launcher = launcher.ok_or(UpgradeError::NoLauncher)?;
        let mut reloading = self.reload.hold();
        let shared = self.current.load();
        if shared.lifecycle.stage() != Stage::Serving {
            return Err(UpgradeError::Draining);
        }
        if shared.audit.is_on() {
            return Err(UpgradeError::Audited);
        }
        let begun = Instant::now();
        let deadline = begun + self.parts.patience;
        let (link, theirs) = Link::pair(deadline).map_err(UpgradeError::Launch)?;
        let pid = launcher.launch(&theirs).map_err(UpgradeError::Launch)?;
        drop(theirs);
        tracing::info!(pid, "upgrade: a new process was started");
        let mut handing = Handing {
            upgrade: self,
            shared,
            link,
            step: Giving::Starting,
            frozen: None,
            deadline,
        };
        let (to, tokens, frozen) = match handing.hand() {
            Ok(handed) => handed,
            Err(error) => {
                let why = handing.fence(launcher, error);
                tracing::error!(
                    "upgrade: the new process does not come up, this one goes on: {why}"
                );
                return Err(UpgradeError::NewFailed(why));
            }
        };
        reloading.end();
        service_manager::notify(Notice::MainProcess(pid));
        handing.finish();
        self.handed_over.send_replace(true);
        let report = UpgradeReport {
            from: Program {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
            },
            to: Program { version: to, pid },
            tokens,
            took_ms: millis(begun.elapsed()),
            frozen_ms: millis(frozen),
        };
        tracing::info!(
            pid,
            version = report.to.version,
            tokens,
            took_ms = report.took_ms,
            frozen_ms = report.frozen_ms,
            "upgrade: the new process serves"
        );
        Ok(report)
    }
}

impl Handing<'_> {
    fn heard(&mut self, heard: Heard) {
        self.step = self.step.on(heard);
    }

    /// Everything until the new process serves. Returns its version, how many tokens it has, and for how long
    /// nothing could be changed.
    fn hand(&mut self) -> Result<(String, usize, Duration), LinkError> {
        let hello: Hello = self.link.expect_message(Kind::Hello)?;
        if hello.protocol != PROTOCOL {
            return Err(LinkError::Failed(format!(
                "it is syncgate {}, which cannot take over from syncgate {}: restart the gateway instead",
                hello.version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        self.heard(Heard::Hello);
        self.offer()?;
        let ready: Ready = self.link.expect_message(Kind::Ready)?;
        if ready.store != self.upgrade.parts.store {
            return Err(LinkError::Failed(
                "the configuration names another place for tokens (tokens.store, tokens.durable.path), which \
                 takes a restart"
                    .to_owned(),
            ));
        }
        self.heard(Heard::Ready);
        let begun = Instant::now();
        self.freeze()?;
        self.heard(Heard::Frozen);
        self.send_state()?;
        let loaded: Loaded = self.link.expect_message(Kind::Loaded)?;
        self.heard(Heard::Loaded);
        if let Some(frozen) = &self.frozen {
            frozen.decide();
        }
        self.link.send(Kind::Yours, &[])?;
        self.link.expect(Kind::Serving)?;
        self.heard(Heard::Serving);
        let takes_socket =
            self.upgrade.parts.admin.unix.is_some() && ready.taken.last().copied().unwrap_or(false);
        if takes_socket {
            self.upgrade.parts.admin.release_file();
        }
        Ok((hello.version, loaded.tokens, begun.elapsed()))
    }

    fn offer(&mut self) -> Result<(), LinkError> {
        let parts = &self.upgrade.parts;
        let of_clients = parts.listeners.sockets();
        let mut sockets: Vec<(Offered, &dyn AsFd)> = Vec::new();
        for (address, is_https, socket) in &of_clients {
            let kind = match is_https {
                true => ListenerKind::Https,
                false => ListenerKind::Http,
            };
            let address = *address;
            sockets.push((Offered::Tcp { address, kind }, &**socket));
        }
        if let Some((address, socket)) = &parts.admin.tcp {
            let (address, kind) = (*address, ListenerKind::Admin);
            sockets.push((Offered::Tcp { address, kind }, socket));
        }
        // The last, if there is one.
        if let Some((offered, socket)) = &parts.admin.unix {
            sockets.push((offered.clone(), socket));
        }
        let tokens = Arc::clone(&self.shared.tokens);
        let file = tokens.file();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let offer = Offer {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sockets: sockets.iter().map(|(offered, _)| offered.clone()).collect(),
            token_file: file.map(|(_, path)| path.to_owned()),
            patience: millis(left),
        };
        self.link.send_message(Kind::Offer, &offer)?;
        for (_, socket) in sockets {
            self.link.send_descriptor(socket.as_fd())?;
        }
        if let Some((file, _)) = file {
            self.link.send_descriptor(file)?;
        }
        Ok(())
    }

    /// Lets nothing change any more.
    fn freeze(&mut self) -> Result<(), LinkError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let freezing = self.shared.tokens.freeze(&self.shared.replay_guard, left);
        let frozen = runtime.block_on(freezing);
        self.frozen = Some(frozen.map_err(|_| {
            LinkError::Broken("changes of tokens that are under way could not be completed")
        })?);
        Ok(())
    }

    fn send_state(&mut self) -> Result<(), LinkError> {
        let shared = Arc::clone(&self.shared);
        let Some(frozen) = &self.frozen else {
            return Err(LinkError::Broken("the tokens can still change"));
        };
        let (link, now) = (&mut self.link, shared.clock.now());
        frozen.export(now, |part| link.send(Kind::Tokens, part))?;
        frozen.lend_file();
        let logins = shared.logins.export(shared.tokens.login_outcomes());
        link.send(Kind::Logins, &logins)?;
        let accounts = shared.accounts.table();
        let users = accounts.accounts().map(|account| {
            let name = account.name().to_string();
            (name, account.usage().rate_state())
        });
        let users: Vec<(String, u64)> = users.filter(|(_, state)| *state > 0).collect();
        link.send_message(Kind::Usage, &(users, shared.quotas.export()))?;
        let digest = link.digest();
        link.send(Kind::End, &digest)
    }

    /// Sees to it that the new process is dead, and lets this one go on. Returns what went wrong.
    fn fence(mut self, launcher: &Launcher, error: LinkError) -> String {
        self.heard(Heard::Trouble);
        let mut why = match error {
            LinkError::Io(cause) => format!("the link failed: {cause}"),
            error @ (LinkError::Broken(_) | LinkError::Failed(_)) => error.to_string(),
        };
        // What it says of itself is more than that it is gone.
        self.link.extend(Instant::now() + LAST_WORDS);
        match launcher.kill() {
            Ok(how) => {
                if let Some(words) = self.link.last_words() {
                    why = words;
                } else if !how.is_empty() {
                    why = format!("{why} ({how})");
                }
            }
            Err(error) => {
                tracing::error!(%error, "upgrade: whether the new process has ended is not known");
                // Without the link it ends by itself.
                self.link.close();
            }
        }
        self.heard(Heard::Dead);
        self.shared.logins.keep();
        if self.step == Giving::Resumed {
            self.frozen = None;
        }
        why
    }

    /// The new process serves: for good.
    fn finish(mut self) {
        // If it is gone already, what is left of this one's requests fails.
        let _ = self.link.send(Kind::Main, &[]);
        let frozen = self.frozen.take();
        match (frozen, self.link.stream()) {
            (Some(frozen), Ok(stream)) => frozen.hand_over(stream),
            (frozen, Err(error)) => {
                tracing::error!(%error, "upgrade: the new process cannot be reached");
                // Never again are these tokens changed here.
                std::mem::forget(frozen);
            }
            (None, Ok(_)) => {}
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a dead process's last words take to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);
