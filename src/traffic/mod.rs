//! How much of the gateway one client may take, so that the others have theirs: connections of a
//! source, requests in a time, requests and bodies under way, memory before a token was shown; and
//! whether there is memory for any.

mod connections;
mod failures;
mod ledger;
pub mod pace;
mod pressure;
mod quotas;
mod scope;
mod settings;
pub mod shares;
mod unauthenticated;
mod usage;

pub use connections::{ConnectionsBySource, OfSource};
pub(crate) use failures::{CountedBy, Heard, Known};
pub use ledger::{Ledger, Noted, Report};
pub use pace::{Bucket, Exceeded, Pace, Rate};
pub use pressure::Pressure;
pub use quotas::{Quotas, RouteLimit};
pub use scope::{QuotaExceeded, RateScope};
pub use settings::QuotasSection;
pub use shares::{Counts, EXCHANGE, Peer};
pub use unauthenticated::{Held, HoldsEnough, OF_A_REQUEST, OfConnection, Unauthenticated};
pub use usage::{BodyInFlight, Full, InFlight, Usage};
