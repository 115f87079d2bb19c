//! Counters and histograms, and the text that Prometheus reads them in. Knows neither what is counted nor who
//! asks for it.
//!
//! What happens on the request path is counted by its worker in cells of the worker's own, and added up when
//! somebody asks. Label values are names of the configuration or of closed sets, never what a client sends.

mod by_name;
mod cells;
mod exposition;
mod format;
mod labels;
mod load;
mod recent;
mod worker;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::clock::UnixMillis;

pub use by_name::ByName;
pub use cells::{Counter, Counts, Distribution, Histogram};
pub(crate) use exposition::{Exposition, Labels, render};
pub(crate) use format::Format;
pub use labels::{MethodLabel, StatusClass};
pub(crate) use load::{Counted, Load, Resting};
pub use recent::{RecentRefusals, RefusedRequest};
pub use worker::{
    ConnectionMetrics, Finished, Recorder, RouteMetrics, SentRequest, ServerMetrics, ServerName,
    UserMetrics, WorkerMetrics,
};

/// What all workers count.
#[derive(Debug, Default)]
pub struct Metrics {
    started: OnceLock<UnixMillis>,
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
}

impl Metrics {
    /// Notes when the process started, the first time that somebody knows.
    pub fn note_start(&self, at: UnixMillis) {
        let _ = self.started.set(at);
    }

    /// When the process started.
    #[must_use]
    pub fn started(&self) -> Option<UnixMillis> {
        self.started.get().copied()
    }

    /// The cells of one more worker.
    #[must_use]
    pub fn add_worker(&self) -> Arc<WorkerMetrics> {
        let worker = Arc::<WorkerMetrics>::default();
        self.lock().push(Arc::clone(&worker));
        worker
    }

    /// All workers, in the order in which they were added.
    #[must_use]
    pub fn workers(&self) -> Vec<Arc<WorkerMetrics>> {
        self.lock().clone()
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<WorkerMetrics>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
