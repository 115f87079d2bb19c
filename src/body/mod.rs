//! Message bodies in transfer: their progress and minimum rate. Knows neither where they come from nor where
//! they go.

mod error;
mod form_inspector;
mod min_rate;
pub mod request;
mod transfer;
mod withheld;

pub use error::{BodyAborted, BodyError, BodyFault};
pub use min_rate::MinRate;
pub use transfer::{BodyState, Transfer};
pub use withheld::{Gate, Passage};
