//! What is counted of the store: how often each operation was asked for, how long it took and what failed.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::{Backing, StoreError, TokenStore};
use crate::metrics::{Counter, Counts, Distribution, Histogram};
use crate::session::End;

/// An operation of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Find,
    Issue,
    Renew,
    End,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Find, Self::Issue, Self::Renew, Self::End];

    fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::End => "end",
        }
    }
}

/// The cells, which several threads write.
#[derive(Debug, Default)]
pub(super) struct StoreMetrics {
    issued: Counter,
    renewed: Counter,
    /// Those that were ended on a server, which alone knows which have expired.
    ended: Counts<End>,
    durations: [Histogram; Operation::ALL.len()],
    errors: Counts<(&'static str, &'static str)>,
}

/// What was counted.
#[derive(Debug)]
pub struct StoreCounts {
    /// Tokens that were issued for a login.
    pub issued: u64,
    /// Tokens that were issued for another.
    pub renewed: u64,
    /// Tokens that ended, by how.
    pub ended: BTreeMap<&'static str, u64>,
    /// How long each operation took.
    pub durations: Vec<(&'static str, Distribution)>,
    /// Operations that failed, by why.
    pub errors: BTreeMap<(&'static str, &'static str), u64>,
}

impl TokenStore {
    /// What was counted until now.
    #[must_use]
    pub fn counts(&self) -> StoreCounts {
        let metrics = &self.metrics;
        let ended = match &self.backing {
            Backing::Memory | Backing::Durable(_) => self.live.ended_counts(),
            Backing::Shared(_) => &metrics.ended,
        };
        let mut ends = BTreeMap::new();
        ended.each(&mut |end, count| *ends.entry(end.name()).or_default() += count);
        let mut errors = BTreeMap::new();
        metrics.errors.each(&mut |key, count| {
            errors.insert(key, count);
        });
        let durations = Operation::ALL.iter().zip(&metrics.durations);
        StoreCounts {
            issued: metrics.issued.get(),
            renewed: metrics.renewed.get(),
            ended: ends,
            durations: durations
                .map(|(operation, histogram)| (operation.name(), histogram.read()))
                .collect(),
            errors,
        }
    }

    /// Counts an operation and how it ends.
    pub(super) async fn measure<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let result = work.await;
        self.metrics
            .note(operation, began.elapsed(), result.as_ref().err());
        result
    }

    /// Counts tokens that a server has ended.
    pub(super) fn count_ended(&self, end: End, count: usize) {
        self.metrics.ended.add_shared(end, count as u64);
    }
}

impl StoreMetrics {
    fn note(&self, operation: Operation, took: Duration, error: Option<&StoreError>) {
        self.durations[operation as usize].observe_shared(took);
        let error = match error {
            None => {
                match operation {
                    Operation::Issue => self.issued.add_shared(1),
                    Operation::Renew => self.renewed.add_shared(1),
                    Operation::Find | Operation::End => {}
                }
                return;
            }
            // It is the client's token that has ended.
            Some(StoreError::Gone) => return,
            Some(StoreError::Full) => "full",
            Some(StoreError::UserFull { .. }) => "user_full",
            Some(StoreError::Taken) => "taken",
            Some(StoreError::Unavailable) => "unavailable",
            Some(StoreError::RolledBack) => "rolled_back",
        };
        self.errors.add_shared((operation.name(), error), 1);
    }
}
