//! The gateway's own answers on their way to the client, and what becomes of the request's body.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::{Response, Version};

use super::Gateway;
use super::call::Call;
use super::refusal::Refusal;
use super::reply;
use super::response_body::{ActiveRequest, ResponseBody};
use crate::error_chain::chain;

impl Gateway {
    /// Turns a refusal into its answer. On HTTP/1 the connection can go on only when the request's
    /// body is out of the way: a short one is read and forgotten, a longer one ends the connection.
    /// On HTTP/2 only the stream ends, but clients take even that for an error while they send.
    pub(super) async fn refuse(
        &self,
        mut call: Call<'_>,
        refusal: &Refusal,
        version: Version,
        waits: bool,
    ) -> Response<ResponseBody> {
        self.audit_refusal(&call, refusal);
        let record = &mut call.active.record;
        record.reason = Some(refusal.code());
        if refusal.status().is_server_error() {
            record.cause = Some(chain(refusal));
            record.delivery = refusal.delivery();
        }
        let response = refusal.to_response(&record.id, self.shared.answers.detail);
        let transfer = Rc::clone(call.active.transfer());
        if !refusal.closes()
            // Reading on would make the client send a body that nobody wants.
            && !waits
            && let Some(body) = call.body.take()
        {
            let mut discarding = pin!(body.discard());
            // What is there already is read without ado; only waiting for more holds anything.
            if !is_here(discarding.as_mut(), version).await
                && let Ok(_held) = call.hold(&self.shared.unauthenticated, 0)
            {
                discarding.await;
            }
        }
        let client = Rc::clone(call.client);
        let response = self.own(response, call.active);
        if let Some(http1) = client.http1()
            && (refusal.closes() || !transfer.is_ended())
        {
            http1.will_linger();
            return reply::closing(response);
        }
        response
    }

    /// Answers with what the gateway has made itself.
    pub(super) fn own(
        &self,
        response: Response<Bytes>,
        mut request: Box<ActiveRequest>,
    ) -> Response<ResponseBody> {
        let (parts, bytes) = response.into_parts();
        request.answered(parts.status, false);
        let body = ResponseBody::own(bytes, &self.shared.limits, request);
        reply::relay(parts, body)
    }
}

/// Polls a future that reads a request's body as far as that goes without waiting for the client, and
/// says whether it is done.
///
/// Cancel safe: the future is the caller's.
async fn is_here(mut reading: Pin<&mut impl Future<Output = ()>>, version: Version) -> bool {
    // hyper hands on what has arrived of an HTTP/1 body only once it was asked for any, so the first look
    // never finds it; the second follows at once, whatever the client does.
    let mut last = version >= Version::HTTP_2;
    poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if std::mem::replace(&mut last, true) => Poll::Ready(false),
        Poll::Pending => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}
