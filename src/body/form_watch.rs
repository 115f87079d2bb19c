//! The part of a request body that is held back while its form is read and its end is not known to
//! be good. No I/O: bytes are put in and let out.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::policy::form::{FormLimits, FormReader, FormViolation};
use crate::policy::rights::Mode;

/// A body under watch, or one that is let through after it was held back.
#[derive(Debug)]
pub(super) struct FormWatch {
    reader: Option<FormReader>,
    /// In order; the last one stays until the whole body held.
    chunks: VecDeque<Bytes>,
    held: u64,
    finished: bool,
    mode: Mode,
}

impl FormWatch {
    pub(super) fn new(limits: FormLimits, mode: Mode) -> Self {
        Self {
            reader: Some(FormReader::new(limits)),
            mode,
            ..Self::unwatched()
        }
    }

    pub(super) fn unwatched() -> Self {
        Self {
            reader: None,
            chunks: VecDeque::new(),
            held: 0,
            finished: false,
            mode: Mode::default(),
        }
    }

    /// What becomes of a body that does not hold.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Lets through what is held and all that follows.
    pub(super) fn stop_watching(&mut self) {
        self.reader = None;
    }

    /// The form, once read.
    pub(super) fn form(&self) -> Option<&str> {
        self.reader.as_ref().and_then(FormReader::form)
    }

    /// Takes the next bytes of the body and holds them back. They are held also when they are
    /// refused.
    pub(super) fn take(&mut self, data: Bytes) -> Result<(), FormViolation> {
        let verdict = match &mut self.reader {
            Some(reader) => reader.feed(&data).map(drop),
            None => Ok(()),
        };
        self.held += data.len() as u64;
        self.chunks.push_back(data);
        verdict
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) -> Result<(), FormViolation> {
        if let Some(reader) = &mut self.reader {
            reader.finish()?;
        }
        self.finished = true;
        Ok(())
    }

    /// Whether the whole body is there and held.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Bytes that are held back.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The next bytes that may go on.
    pub(super) fn release(&mut self) -> Option<Bytes> {
        let free = self.finished || self.reader.is_none() || self.chunks.len() > 1;
        let data = if free { self.chunks.pop_front() } else { None };
        self.held -= data.as_ref().map_or(0, |data| data.len() as u64);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> FormWatch {
        FormWatch::new(FormLimits::default(), Mode::Enforce)
    }

    #[test]
    fn the_last_part_is_held_until_the_whole_body_held() {
        let mut watch = watch();
        watch
            .take(Bytes::from_static(br#"{"form":"a","data":["#))
            .unwrap();
        watch.take(Bytes::from(vec![b' '; 100])).unwrap();
        watch.take(Bytes::from_static(b"1]}")).unwrap();
        assert_eq!(watch.form(), Some("a"));
        assert_eq!(watch.release().map(|data| data.len()), Some(20));
        assert_eq!(watch.release().map(|data| data.len()), Some(100));
        assert_eq!((watch.release(), watch.held()), (None, 3));
        watch.finish().unwrap();
        assert_eq!(watch.release(), Some(Bytes::from_static(b"1]}")));
        assert!(watch.is_finished() && watch.held() == 0);
    }

    #[test]
    fn a_body_that_does_not_hold_is_never_finished() {
        let mut watch = watch();
        watch
            .take(Bytes::from_static(br#"{"form":"a"} x"#))
            .unwrap();
        assert!(watch.finish().is_err());
        assert!(!watch.is_finished());
        assert_eq!(watch.release(), None);
    }

    #[test]
    fn what_is_no_longer_watched_goes_through() {
        let mut watch = watch();
        let refused = watch.take(Bytes::from(vec![b'x'; 100]));
        assert!(refused.is_err());
        watch.stop_watching();
        assert_eq!(watch.release().map(|data| data.len()), Some(100));
    }
}
