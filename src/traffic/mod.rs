//! How much of the gateway one client may take, so that the others have theirs: connections of a
//! source, requests in a time, requests and bodies under way; and whether
//! there is memory for any.

mod connections;
pub mod pace;
mod pressure;
mod quotas;
mod settings;
mod usage;

pub use connections::{ConnectionsBySource, OfSource};
pub use pace::{Bucket, Exceeded, Pace, Rate};
pub use pressure::Pressure;
pub use quotas::Quotas;
pub use settings::QuotasSection;
pub use usage::{BodyInFlight, Full, InFlight, Usage};
