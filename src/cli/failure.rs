//! How a command fails: what is printed, and the exit status.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use crate::settings::Problems;

/// The exit status for a wrong configuration or command line.
pub(super) const USAGE: u8 = 64;

/// The exit status for a test that could not be run.
const COULD_NOT_RUN: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, the configuration or what it names: the operator's to set right.
    Usage(Vec<Box<dyn Error + Send + Sync>>),
    /// A test that could not be run, which is not the same as one that failed.
    CouldNotRun(Box<dyn Error + Send + Sync>),
    /// Anything else.
    Other(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// One thing that the operator has to set right.
    pub(crate) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Usage(vec![error.into()])
    }

    /// Something that kept a test from being run.
    pub(crate) fn could_not_run(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::CouldNotRun(error.into())
    }

    /// Something that failed, with the configuration and the command line in order.
    pub(crate) fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// What is printed: each error with its causes, one a line, or the report of a file. The latter
    /// in colors if `styled`.
    pub(super) fn report(&self, styled: bool) -> String {
        match self {
            Self::Usage(errors) => {
                let all: Vec<_> = errors
                    .iter()
                    .map(|error| explain(&**error, styled))
                    .collect();
                all.join("\n\n")
            }
            Self::CouldNotRun(error) | Self::Other(error) => explain(&**error, styled),
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => USAGE.into(),
            Self::CouldNotRun(_) => COULD_NOT_RUN.into(),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::usage(problems)
    }
}

fn explain(error: &(dyn Error + 'static), styled: bool) -> String {
    match error.downcast_ref::<Problems>() {
        Some(problems) if styled => problems.styled(),
        Some(problems) => problems.to_string(),
        None => chain(error),
    }
}

/// The error and its causes, one a line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut lines = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(lines, "\n  because: {error}");
        cause = error.source();
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on 127.0.0.1:1")]
    struct Listen(#[source] io::Error);

    #[test]
    fn causes_are_printed_one_a_line() {
        let failure = Failure::other(Listen(io::Error::other("the port is taken")));
        let expected = "error: cannot listen on 127.0.0.1:1\n  because: the port is taken";
        assert_eq!(failure.report(false), expected);
        let failure = Failure::usage("first");
        assert_eq!(failure.report(true), "error: first");
    }
}
