//! The `Date` of answers (RFC 9110 section 6.6.1). hyper has one of its own, which only ever grows: after
//! the clock was set back it would go on in the future.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use http::header::DATE;
use http::{HeaderMap, HeaderValue};

use crate::clock::UnixSeconds;

/// The field of the present second, made once for all answers of a worker in it.
#[derive(Debug)]
pub struct DateField(RefCell<(UnixSeconds, HeaderValue)>);

impl DateField {
    /// That of a moment.
    #[must_use]
    pub fn new(now: UnixSeconds) -> Self {
        Self(RefCell::new((now, field(now))))
    }

    /// Says when a response was made, unless whoever made it has said so.
    pub fn add(&self, headers: &mut HeaderMap, now: UnixSeconds) {
        headers.entry(DATE).or_insert_with(|| self.at(now));
    }

    fn at(&self, now: UnixSeconds) -> HeaderValue {
        let mut made = self.0.borrow_mut();
        if made.0 != now {
            *made = (now, field(now));
        }
        made.1.clone()
    }
}

/// A moment as HTTP writes it.
pub(super) fn text(now: UnixSeconds) -> String {
    let since = Duration::from_secs(u64::from(now.as_u32()));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

fn field(now: UnixSeconds) -> HeaderValue {
    HeaderValue::try_from(text(now)).expect("letters, digits, spaces and colons")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_clock_also_when_it_goes_back_and_never_a_second_one() {
        let at = UnixSeconds::new;
        let date = DateField::new(at(784_111_777));
        let said = |now: u32, said: Option<&'static str>| {
            let said = said.map(HeaderValue::from_static);
            let mut headers = HeaderMap::from_iter(said.map(|said| (DATE, said)));
            date.add(&mut headers, at(now));
            headers.get_all(DATE).iter().cloned().collect::<Vec<_>>()
        };
        for (now, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(said(now, None), [expected]);
        }
        assert_eq!(said(0, Some("yesterday")), ["yesterday"]);
    }
}
