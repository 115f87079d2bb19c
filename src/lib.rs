//! syncgate.
