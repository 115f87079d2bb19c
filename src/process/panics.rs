//! What is said of a panic: where, never what. Its message may hold anything, a secret too.

use std::io::Write as _;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How many times code of this process has panicked.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// From now on, the log has one line for each panic of the process: where in the code, on which
/// thread, and how many there were; without a log it goes to standard error.
pub fn log_places_only() {
    panic::set_hook(Box::new(|info| {
        let panics = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let (file, line) = info
            .location()
            .map_or(("?", 0), |place| (place.file(), place.line()));
        let present = thread::current();
        let thread = present.name().unwrap_or("?");
        if tracing::dispatcher::has_been_set() {
            tracing::error!(file, line, thread, panics, "{WHAT}");
        } else {
            // Nowhere to say it is no reason to end.
            let _ = writeln!(
                std::io::stderr(),
                "error: {WHAT}, at {file}:{line} on {thread}"
            );
        }
    }));
}

const WHAT: &str = "a bug: this place in the code panicked (what it said is left out)";
