//! Reading settings and reporting invalid ones: units, TOML documents with spans, and reports with line and
//! caret. Knows no particular section or setting.

pub(crate) mod document;
mod explain;
pub(crate) mod file;
mod report;
pub(crate) mod suggest;
mod toml_text;
pub mod units;

pub use report::{Problem, Problems, Severity};
