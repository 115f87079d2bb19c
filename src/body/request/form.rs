//! Reading a body on whose form a right depends: it is inspected as it passes.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::RequestBody;
use crate::body::form_inspector::FormInspector;
use crate::body::{BodyAborted, BodyError};
use crate::policy::form::FormLimits;
use crate::policy::rights::Mode;

impl RequestBody {
    /// Reads up to the root object's `form` and holds what was read. The rest of the body is inspected as it
    /// passes, and its last part held until the whole body is valid. A violation found later aborts the body,
    /// or is recorded if `mode` is to report.
    ///
    /// # Errors
    /// If the body is refused, incomplete, or has no form early enough. It can still be forwarded then,
    /// uninspected, starting with what was held.
    pub async fn read_form(&mut self, limits: FormLimits, mode: Mode) -> Result<String, BodyError> {
        let form = self.form.insert(Box::new(FormInspector::new(limits, mode)));
        // Taken out of `self`, which is borrowed for reading.
        let mut inspector = std::mem::replace(form, Box::new(FormInspector::pass_through()));
        let found = self.find_form(&mut inspector).await;
        if found.is_err() {
            inspector.stop_inspecting();
        }
        self.form = Some(inspector);
        found
    }

    /// Whether nothing more comes, after inspection.
    pub(super) fn has_ended(&self) -> bool {
        match &self.form {
            None => self.incoming.is_end_stream(),
            Some(inspector) => inspector.is_finished() && inspector.held() == 0,
        }
    }

    pub(super) fn poll_inspected(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyAborted>>> {
        let this = self;
        loop {
            if let Some(inspector) = &mut this.form {
                if let Some(data) = inspector.release() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                if inspector.is_finished() {
                    return Poll::Ready(None);
                }
            }
            let data = match ready!(this.poll_data(cx)) {
                Some(Ok(data)) => Some(data),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            let Some(inspector) = &mut this.form else {
                return Poll::Ready(data.map(|data| Ok(Frame::data(data))));
            };
            let ended = data.is_none() || this.incoming.is_end_stream();
            let mut held = data.map_or(Ok(()), |data| inspector.take(data));
            if ended {
                held = held.and_then(|()| inspector.finish());
            }
            if let Err(violation) = held {
                match inspector.mode() {
                    Mode::Enforce => return this.abort(BodyError::Form(violation)),
                    Mode::Report => this.transfer.report(violation),
                }
                inspector.stop_inspecting();
            }
        }
    }

    async fn find_form(&mut self, inspector: &mut FormInspector) -> Result<String, BodyError> {
        loop {
            match self.next_chunk().await? {
                Some(data) => inspector.take(data).map_err(BodyError::Form)?,
                None => inspector.finish().map_err(BodyError::Form)?,
            }
            if self.incoming.is_end_stream() {
                inspector.finish().map_err(BodyError::Form)?;
            }
            if let Some(form) = inspector.form() {
                return Ok(form.to_owned());
            }
        }
    }
}
