//! The old process against every new one: those that break off, say nothing or say something wrong at each step.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::app::{Server, Startup};
use crate::clock::Clock;
use crate::config::Config;
use crate::lifecycle::Stage;
use crate::origin::Source;
use crate::password::Password;
use crate::process::Launcher;
use crate::process::launcher::play;
use crate::session::{AccountId, Login, Session};
use crate::store::{Selection, TokenStore};
use crate::takeover::{Hello, Kind, Link, Loaded, Offer, PROTOCOL, Ready};
use crate::tls::development;
use crate::token::{IssuedToken, TokenDigest};

/// What the new process does, up to where it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Nothing,
    Hello,
    Offer,
    Ready,
    Freeze,
    State,
    Loaded,
    Yours,
    Serving,
}

const STEPS: [Step; 8] = [
    Step::Nothing,
    Step::Hello,
    Step::Offer,
    Step::Ready,
    Step::Freeze,
    Step::State,
    Step::Loaded,
    Step::Yours,
];

/// How it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is gone.
    Gone,
    /// It says nothing more.
    Silent,
    /// It says why it ends.
    Says,
    /// It says something that makes no sense.
    Nonsense,
    /// What it says of itself is not what this one knows.
    OtherProtocol,
    OtherStore,
}

/// Plays a new process as far as `until`, and then has it fail.
fn play_new(stream: UnixStream, until: Step, fault: Fault) {
    let mut link = Link::over(stream, Instant::now() + Duration::from_secs(20));
    let mut played = Step::Nothing;
    let outcome = (|| {
        let mut reached = |step: Step| {
            played = step;
            step > until
        };
        if reached(Step::Hello) {
            return Ok(());
        }
        let protocol = PROTOCOL + u32::from(fault == Fault::OtherProtocol);
        let version = "9.9.9".to_owned();
        link.send_message(Kind::Hello, &Hello { protocol, version })?;
        if reached(Step::Offer) {
            return Ok(());
        }
        let offer: Offer = link.expect_message(Kind::Offer)?;
        for _ in &offer.sockets {
            drop(link.receive_descriptor()?);
        }
        if reached(Step::Ready) {
            return Ok(());
        }
        let is_same = fault != Fault::OtherStore;
        let store = if is_same { "memory" } else { "file elsewhere" };
        let ready = Ready {
            taken: vec![true; offer.sockets.len()],
            store: store.to_owned(),
        };
        link.send_message(Kind::Ready, &ready)?;
        if reached(Step::Freeze) {
            return Ok(());
        }
        // The first part of the state.
        let (mut kind, mut payload) = link.receive()?;
        if reached(Step::State) {
            return Ok(());
        }
        while kind != Kind::End {
            (kind, payload) = link.receive()?;
        }
        assert_eq!(payload, link.digest());
        if reached(Step::Loaded) {
            return Ok(());
        }
        link.send_message(Kind::Loaded, &Loaded { tokens: 1 })?;
        if reached(Step::Yours) {
            return Ok(());
        }
        link.expect(Kind::Yours)?;
        if reached(Step::Serving) {
            return Ok(());
        }
        link.send(Kind::Serving, &[])?;
        link.expect(Kind::Main).map(drop)
    })();
    // A process that finds out by itself that it was given up ends.
    let _: Result<(), crate::takeover::LinkError> = outcome;
    match fault {
        Fault::Gone | Fault::OtherProtocol | Fault::OtherStore => {}
        // Until it is killed, which closes its end.
        Fault::Silent => drop(link.receive()),
        Fault::Says => link.fail("it is too old"),
        Fault::Nonsense => drop(link.send(Kind::Answer, b"nonsense")),
    }
}

/// A gateway in memory, whose new processes are played.
struct Old {
    server: Server,
    account: AccountId,
    _directory: TempDir,
}

impl Old {
    fn start(until: Step, fault: Fault, patience: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Clock::system().now();
        development::write_certificate(directory.path(), &[], now.timestamp()).unwrap();
        let users = directory.path().join("users.toml");
        let hash = crate::password::hash_password(&Password::new("x".to_owned())).unwrap();
        let text = format!("[users.anna]\nallow = \"*\"\npassword = \"{hash}\"\n");
        std::fs::write(&users, text).unwrap();
        std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o600)).unwrap();
        let path = directory.path().join("config.toml");
        let text = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 1\n\
             [tls]\ncertificates = [{{ certificate = \"server.pem\", key = \"server.key\" }}]\n\
             [upstream]\nurl = \"http://127.0.0.1:1\"\n\
             [process]\nupgrade_timeout = \"{patience}\"\n"
        );
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        play(theirs, move |link| play_new(link, until, fault));
        let server = Server::start(Startup {
            launcher: Some(Launcher::played(ours).unwrap()),
            ..Startup::of(config)
        });
        let server = server.unwrap();
        let account = server.accounts().find("anna").unwrap().id();
        Self {
            server,
            account,
            _directory: directory,
        }
    }

    fn tokens(&self) -> Arc<TokenStore> {
        self.server.tokens()
    }

    async fn issue(&self) -> Result<TokenDigest, crate::store::StoreError> {
        let shared = self.server.accounts();
        let account = shared.by_id(self.account).unwrap();
        let now = Clock::system().now();
        let login = Login {
            account: self.account,
            mark: account.password_mark(),
            source: Source::V4([192, 0, 2, 1]),
            at: now.seconds(),
        };
        let session = Session::begin(login, Duration::from_secs(3600));
        let token = IssuedToken::generate(&ring::rand::SystemRandom::new()).unwrap();
        let digest = token.digest();
        self.tokens().issue(digest, session, now).await?;
        Ok(digest)
    }
}

fn wait<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(work)
}

#[test]
fn wherever_the_new_process_fails_the_old_one_goes_on() {
    for fault in [Fault::Gone, Fault::Says, Fault::Nonsense, Fault::Silent] {
        for until in STEPS {
            // Of silence nothing tells but the time.
            let is_silent = fault == Fault::Silent;
            let patience = if is_silent { "200ms" } else { "20s" };
            let old = Old::start(until, fault, patience);
            let token = wait(old.issue()).unwrap();
            // More than once.
            for _ in 0..if is_silent { 1 } else { 2 } {
                let failed = old.server.upgrade().run().unwrap_err().to_string();
                assert!(
                    failed.contains("the old one goes on"),
                    "{until:?} {fault:?}: {failed}"
                );
                if fault == Fault::Says {
                    assert!(failed.contains("it is too old"), "{until:?}: {failed}");
                }
                let (tokens, now) = (old.tokens(), Clock::system().now());
                assert_eq!(old.server.lifecycle().stage(), Stage::Serving);
                wait(async {
                    assert!(tokens.find_or_ask(token, now).await.unwrap().is_ok());
                    let fresh = old.issue().await.unwrap();
                    let one = Selection::One(fresh.id());
                    let ended = tokens.end(&one, crate::session::End::Revoked, now).await;
                    assert_eq!(ended, Ok(1), "{until:?} {fault:?}");
                });
            }
        }
    }
}

#[test]
fn a_process_that_says_other_things_is_told_apart() {
    let failed = |until, fault| {
        let old = Old::start(until, fault, "20s");
        old.server.upgrade().run().unwrap_err().to_string()
    };
    let other = failed(Step::Serving, Fault::OtherProtocol);
    assert!(
        other.contains("it is syncgate 9.9.9, which cannot take over"),
        "{other}"
    );
    let other = failed(Step::Serving, Fault::OtherStore);
    assert!(other.contains("tokens.store"), "{other}");
}

#[test]
fn once_the_new_process_serves_the_old_one_changes_nothing_any_more() {
    let old = Old::start(Step::Serving, Fault::Gone, "20s");
    let token = wait(old.issue()).unwrap();
    let report = old.server.upgrade().run().unwrap();
    assert_eq!((report.to.version.as_str(), report.to.pid), ("9.9.9", 7));
    wait(old.server.upgrade().handed_over());
    // It is gone by now, and with it the tokens.
    let (tokens, now) = (old.tokens(), Clock::system().now());
    wait(async {
        assert!(tokens.find_or_ask(token, now).await.is_err());
        assert!(old.issue().await.is_err());
    });
}
