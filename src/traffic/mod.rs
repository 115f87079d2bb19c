//! How much of the gateway one client may take, so that the others have theirs.

mod connections;

pub use connections::{ConnectionsBySource, OfSource};
