//! Reading the body of a guarded request: its digest is taken, and its last chunk held back.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::RequestBody;
use crate::body::withheld::WithheldBody;
use crate::body::{BodyAborted, BodyError, Gate, Passage};
use crate::replay::{RequestDigest, RequestHasher};

impl RequestBody {
    /// Takes the digest of the request from here on, and holds the last chunk back until all of the body has
    /// arrived. What is returned tells of it also when the body is gone.
    pub fn take_digest(&mut self, hasher: RequestHasher) -> Rc<Passage> {
        let withheld = self.withheld.insert(Box::new(WithheldBody::new(hasher)));
        Rc::clone(withheld.passage())
    }

    /// Reads and holds the body up to `most` bytes, and returns its digest if that is all of it.
    ///
    /// # Errors
    /// If the body is refused or incomplete.
    pub async fn read_ahead(&mut self, most: u64) -> Result<Option<RequestDigest>, BodyError> {
        while let Some(withheld) = &self.withheld
            && withheld.is_arriving()
            && withheld.held() <= most
        {
            self.read_withheld().await?;
        }
        let withheld = self.withheld.as_ref();
        Ok(withheld.and_then(|withheld| withheld.passage().digest()))
    }

    /// Reads the rest of the body, which is not forwarded, and returns its digest.
    ///
    /// # Errors
    /// If the body is refused or incomplete.
    pub async fn read_digest(&mut self) -> Result<Option<RequestDigest>, BodyError> {
        while let Some(withheld) = &mut self.withheld
            && withheld.is_arriving()
        {
            withheld.clear();
            self.read_withheld().await?;
        }
        let withheld = self.withheld.as_ref();
        Ok(withheld.and_then(|withheld| withheld.passage().digest()))
    }

    /// Sets what decides, once all of the body has arrived, whether its last chunk may be forwarded.
    pub fn set_gate(&mut self, gate: Gate) {
        if let Some(withheld) = &mut self.withheld {
            withheld.set_gate(gate);
        }
    }

    pub(super) fn poll_withheld(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyAborted>>> {
        while let Some(withheld) = &mut self.withheld {
            if let Some(data) = withheld.pop() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if withheld.is_finished() {
                return Poll::Ready(None);
            }
            if withheld.is_arriving() {
                if let Err(aborted) = ready!(self.poll_into_withheld(cx)) {
                    return Poll::Ready(Some(Err(aborted)));
                }
            } else if !ready!(withheld.poll_decided(cx)) {
                return self.abort(BodyError::Withheld);
            }
        }
        Poll::Ready(None)
    }

    async fn read_withheld(&mut self) -> Result<(), BodyError> {
        let read = poll_fn(|cx| self.poll_into_withheld(cx)).await;
        read.map_err(|BodyAborted| self.fault())
    }

    /// Ready when another chunk, or the end, was taken.
    fn poll_into_withheld(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyAborted>> {
        let data = match ready!(self.poll_inspected(cx)) {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(aborted)) => return Poll::Ready(Err(aborted)),
            None => None,
        };
        let ended = data.is_none() || self.has_ended();
        if let Some(withheld) = &mut self.withheld {
            withheld.take(data.unwrap_or_default());
            if ended {
                withheld.finish();
            }
        }
        Poll::Ready(Ok(()))
    }
}
