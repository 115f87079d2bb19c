//! Limits on what one client may use, so that the others get their share: connections per source,
//! request rates, requests and bodies in flight, memory used before a token was shown; and whether
//! there is memory for new requests at all.

mod connections;
pub mod distributed_limit;
mod login_failures;
mod memory_pressure;
mod quotas;
pub mod rate_limit;
mod scope;
mod settings;
mod unauthenticated;
mod usage;
mod usage_sync;

pub use connections::{SourceConnection, SourceConnectionLimit};
pub use distributed_limit::{PeerUsage, SYNC_INTERVAL, UsageCounts};
pub use login_failures::LoginOutcome;
pub(crate) use login_failures::{ClusterFailures, FailureCount, Recorded};
pub use memory_pressure::MemoryPressure;
pub use quotas::{Quotas, RatesUsed, RouteLimit};
pub use rate_limit::{Bucket, Exceeded, Rate, RateLimit};
pub use scope::{QuotaExceeded, RateScope};
pub use settings::QuotasSection;
pub use unauthenticated::{
    BASE_REQUEST_MEMORY, ConnectionMemory, MemoryLimitReached, MemoryReservation,
    UnauthenticatedMemory,
};
pub use usage::{BodyInFlight, Full, InFlight, Usage};
pub use usage_sync::{SyncQueue, UsageReport, UsageSync};
