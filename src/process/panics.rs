//! Logs the location of panics, but never their messages, which may contain secrets.

use std::io::Write as _;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The number of panics in this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The number of panics in this process since the hook was installed.
#[must_use]
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Installs a hook that logs location, thread and count of each panic, or writes them to standard error if
/// there is no log.
pub fn log_locations_only() {
    panic::set_hook(Box::new(|info| {
        let panics = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let (file, line) = info
            .location()
            .map_or(("?", 0), |location| (location.file(), location.line()));
        let current = thread::current();
        let thread = current.name().unwrap_or("?");
        if tracing::dispatcher::has_been_set() {
            tracing::error!(file, line, thread, panics, "{WHAT}");
        } else {
            // A failure to report it must not end the process.
            let _ = writeln!(
                std::io::stderr(),
                "error: {WHAT}, at {file}:{line} on {thread}"
            );
        }
    }));
}

const WHAT: &str = "a bug: the code panicked here (its message is omitted)";
