//! The process: its threads, its log and what it uses. The names that begin with `process_` are those that
//! Prometheus has for every process.

use std::fmt;
use std::fs;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

use super::single;
use crate::clock;
use crate::control::memory;
use crate::gateway::Shared;
use crate::metrics::{Exposition, Labels, WorkerMetrics};
use crate::{observe, process};

/// The load of each worker.
pub(super) fn workers(to: &mut Exposition<'_, '_>, workers: &[Arc<WorkerMetrics>]) -> fmt::Result {
    let numbers: Vec<String> = (0..workers.len())
        .map(|number| number.to_string())
        .collect();
    let each = || numbers.iter().zip(workers);
    let labels = |number| -> Labels<'_> { vec![("worker", number)] };
    to.gauge(
        "syncgate_worker_connections",
        "Connections of clients that a worker has.",
        each().map(|(number, worker)| (labels(number), worker.load.connections() as f64)),
    )?;
    to.gauge(
        "syncgate_worker_resting_connections",
        "Those of them that rest: idle, with only their TLS stream kept.",
        each().map(|(number, worker)| (labels(number), worker.load.resting() as f64)),
    )?;
    to.counter(
        "syncgate_access_records_left_out",
        "Access records of successful requests that were left out by sampling.",
        single(workers.iter().map(|it| it.records_left_out.get()).sum()),
    )?;
    to.seconds(
        "syncgate_worker_cpu",
        "Processor time of a worker.",
        each().map(|(number, worker)| (labels(number), seconds(worker.processor.get()))),
    )
}

/// The process as a whole.
pub(super) fn process(to: &mut Exposition<'_, '_>, shared: &Shared) -> fmt::Result {
    to.counter(
        "syncgate_log_lines_dropped",
        "Lines of the log that were dropped because its queue was full.",
        single(observe::dropped_lines()),
    )?;
    to.counter(
        "syncgate_access_records_dropped",
        "Access records that were dropped because their queue or their output was full.",
        single(observe::dropped_records()),
    )?;
    to.counter(
        "syncgate_panics",
        "Panics: each is a bug.",
        single(process::panics::count()),
    )?;
    to.gauge(
        "syncgate_memory_limit_bytes",
        "Resident memory above which new requests are refused; 0 if there is no limit.",
        single(shared.pressure.limit() as f64),
    )?;
    to.info(
        "syncgate_build",
        "The program.",
        &vec![("version", env!("CARGO_PKG_VERSION"))],
    )?;
    to.gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        shared
            .metrics
            .started()
            .map(|at| (Vec::new(), at.as_u64() as f64 / 1e3)),
    )?;
    to.seconds(
        "process_cpu",
        "Processor time of the process.",
        single(seconds(clock::process_time())),
    )?;
    to.gauge(
        "process_resident_memory_bytes",
        "Resident memory.",
        memory::resident().map(|bytes| (Vec::new(), bytes as f64)),
    )?;
    to.gauge(
        "process_open_fds",
        "Open file descriptors.",
        open_descriptors().map(|count| (Vec::new(), count as f64)),
    )?;
    to.gauge(
        "process_max_fds",
        "The limit of open file descriptors.",
        getrlimit(Resource::Nofile)
            .current
            .map(|most| (Vec::new(), most as f64)),
    )
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// `None` where there is no `/proc`. The one that the directory is read by is not counted.
fn open_descriptors() -> Option<usize> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    Some(entries.count().saturating_sub(1))
}
