//! Notices changed files by itself.
//!
//! The folders are watched, not the files: editors and secret mounts replace a file instead of
//! writing to it. Whatever happens there, and every few seconds besides, the files themselves decide
//! whether something changed since they were read, so that a missed event only costs time.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{EventKind, RecursiveMode, Watcher as _};

use super::reload::Reload;

/// The thread that watches. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: Option<Sender<Event>>,
    thread: Option<JoinHandle<()>>,
}

/// Something happened in a watched folder, or the watcher ends.
enum Event {
    Touched,
    End,
}

impl Watcher {
    /// Starts watching the files behind `reload`. What changed since they were read is seen as well.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start(reload: Arc<Reload>) -> std::io::Result<Self> {
        let (events, received) = channel();
        let mut files = reload.files();
        let mut watching = notifier(events.clone(), &files);
        let sender = events.clone();
        let thread = thread::Builder::new()
            .name("syncgate-watch".to_owned())
            .spawn(move || {
                // First of all, for what happened before there was anybody to tell.
                reload.due();
                while wait(&received) {
                    reload.due();
                    let now = reload.files();
                    if now != files {
                        // The new one first, so that nothing happens unseen.
                        watching = notifier(sender.clone(), &now);
                        files = now;
                        reload.due();
                    }
                }
                drop(watching);
            })?;
        Ok(Self {
            events: Some(events),
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(events) = self.events.take() {
            let _ = events.send(Event::End);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Subscribes to the folders of all files. Without it, files are still looked at regularly.
fn notifier(events: Sender<Event>, files: &[PathBuf]) -> Option<notify::RecommendedWatcher> {
    let names: BTreeSet<OsString> = files
        .iter()
        .filter_map(|file| file.file_name().map(OsStr::to_owned))
        .collect();
    let on_event = move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| is_idle(&event, &names)) {
            let _ = events.send(Event::Touched);
        }
    };
    let mut notifier = match notify::recommended_watcher(on_event) {
        Ok(notifier) => notifier,
        Err(error) => {
            tracing::warn!(%error, "files are looked at every {} s only", POLL.as_secs());
            return None;
        }
    };
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        if let Err(error) = notifier.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, folder = %folder.display(), "a folder cannot be watched");
        }
    }
    Some(notifier)
}

/// Whether nothing that is read again can have changed.
fn is_idle(event: &notify::Event, names: &BTreeSet<OsString>) -> bool {
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
    match event.kind {
        // Reading a file is an event too: it must not lead to the next reading.
        EventKind::Access(_) => true,
        // Such as the token file's. A file that takes the place of another is something else.
        EventKind::Modify(ModifyKind::Data(_)) => !event.paths.iter().any(is_ours),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => false,
    }
}

/// Waits for the next time to look: some quiet after an event, or long enough without one. False
/// when the watcher ends.
fn wait(events: &Receiver<Event>) -> bool {
    let mut patience = POLL;
    let mut first = None;
    loop {
        match events.recv_timeout(patience) {
            Ok(Event::Touched) => {
                let first = *first.get_or_insert_with(Instant::now);
                if first.elapsed() > LONGEST_UNREST {
                    return true;
                }
                patience = QUIET;
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// How long a folder must be quiet before its files are read, so that none is read half-written.
const QUIET: Duration = Duration::from_millis(100);
/// How long a folder in constant change can put that off.
const LONGEST_UNREST: Duration = Duration::from_secs(2);
/// How often the files are looked at without an event.
const POLL: Duration = Duration::from_secs(10);
