//! Message bodies on their way: how far one has come, and how slowly it may come. Knows nothing of
//! where bodies come from or go to.

mod form_watch;
mod min_rate;
pub mod request;
mod transfer;

pub use min_rate::MinRate;
pub use transfer::{BodyState, Transfer};
