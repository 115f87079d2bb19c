//! Pure: an error and its causes, as text.

use std::error::Error;
use std::iter::successors;

/// The causes of an error, outermost first.
pub(crate) fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    successors(error.source(), |&cause| cause.source())
}

/// An error and its causes on one line, unless one of them has several lines itself. A cause that the
/// text so far already ends with is not repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read f")]
    struct Read(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no accounts: {0}")]
    struct Accounts(#[source] Read);

    #[test]
    fn each_cause_is_named_once() {
        let error = Read(io::Error::other("denied"));
        assert_eq!(chain(&error), "cannot read f: denied");
        let error = Accounts(error);
        assert_eq!(causes(&error).count(), 2);
        assert_eq!(chain(&error), "no accounts: cannot read f: denied");
    }
}
