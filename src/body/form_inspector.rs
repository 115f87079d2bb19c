//! Holds back a part of a request body while its form is read, and its last part until the whole body is
//! known to be valid. Does no I/O.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::policy::form::{FormLimits, FormReader, FormViolation};
use crate::policy::rights::Mode;

/// A body being inspected, or one that is passed through after inspection ended.
#[derive(Debug)]
pub(super) struct FormInspector {
    reader: Option<FormReader>,
    /// In order. The last one is held until the whole body is valid.
    chunks: VecDeque<Bytes>,
    held: u64,
    finished: bool,
    mode: Mode,
}

impl FormInspector {
    pub(super) fn new(limits: FormLimits, mode: Mode) -> Self {
        Self {
            reader: Some(FormReader::new(limits)),
            mode,
            ..Self::pass_through()
        }
    }

    pub(super) fn pass_through() -> Self {
        Self {
            reader: None,
            chunks: VecDeque::new(),
            held: 0,
            finished: false,
            mode: Mode::default(),
        }
    }

    /// What happens to an invalid body.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Releases what is held, and passes everything else through.
    pub(super) fn stop_inspecting(&mut self) {
        self.reader = None;
    }

    /// The form, once read.
    pub(super) fn form(&self) -> Option<&str> {
        self.reader.as_ref().and_then(FormReader::form)
    }

    /// Inspects the next bytes and holds them, even if they are refused.
    pub(super) fn take(&mut self, data: Bytes) -> Result<(), FormViolation> {
        let result = match &mut self.reader {
            Some(reader) => reader.feed(&data).map(drop),
            None => Ok(()),
        };
        self.held += data.len() as u64;
        self.chunks.push_back(data);
        result
    }

    /// Ends the body.
    pub(super) fn finish(&mut self) -> Result<(), FormViolation> {
        if let Some(reader) = &mut self.reader {
            reader.finish()?;
        }
        self.finished = true;
        Ok(())
    }

    /// Whether the body has ended and is valid.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The number of bytes held.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The next bytes to pass on, if any are free.
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

    fn inspector() -> FormInspector {
        FormInspector::new(FormLimits::default(), Mode::Enforce)
    }

    #[test]
    fn the_last_part_is_held_until_the_whole_body_held() {
        let mut inspector = inspector();
        inspector
            .take(Bytes::from_static(br#"{"form":"a","data":["#))
            .unwrap();
        inspector.take(Bytes::from(vec![b' '; 100])).unwrap();
        inspector.take(Bytes::from_static(b"1]}")).unwrap();
        assert_eq!(inspector.form(), Some("a"));
        assert_eq!(inspector.release().map(|data| data.len()), Some(20));
        assert_eq!(inspector.release().map(|data| data.len()), Some(100));
        assert_eq!((inspector.release(), inspector.held()), (None, 3));
        inspector.finish().unwrap();
        assert_eq!(inspector.release(), Some(Bytes::from_static(b"1]}")));
        assert!(inspector.is_finished() && inspector.held() == 0);
    }

    #[test]
    fn a_body_that_does_not_hold_is_never_finished() {
        let mut inspector = inspector();
        inspector
            .take(Bytes::from_static(br#"{"form":"a"} x"#))
            .unwrap();
        assert!(inspector.finish().is_err());
        assert!(!inspector.is_finished());
        assert_eq!(inspector.release(), None);
    }

    #[test]
    fn what_is_no_longer_watched_goes_through() {
        let mut inspector = inspector();
        let refused = inspector.take(Bytes::from(vec![b'x'; 100]));
        assert!(refused.is_err());
        inspector.stop_inspecting();
        assert_eq!(inspector.release().map(|data| data.len()), Some(100));
    }
}
