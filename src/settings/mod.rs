//! How a setting is read, and how a wrong one is reported: units, TOML documents that know where
//! their values are written, and reports with line and caret. Knows no section and no setting.

pub(crate) mod document;
mod explain;
pub(crate) mod file;
mod report;
mod source;
pub(crate) mod suggest;
pub mod units;

pub use report::{Problem, Problems, Severity};
