//! One request on its way: what the steps of the path share.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use crate::body::request::RequestBody;
use crate::clock::UnixMillis;
use crate::connection::ClientConnection;
use crate::gateway::refusal::Refusal;
use crate::gateway::response_body::ActiveRequest;
use crate::message::headers::Forwarded;
use crate::origin::{ClientAddress, Origin, PeerRole, Source};
use crate::request_id::RequestId;
use crate::traffic::{MemoryLimitReached, MemoryReservation, UnauthenticatedMemory};

/// One request on its way through the gateway.
pub(super) struct Call<'a> {
    pub(super) now: UnixMillis,
    pub(super) client: &'a Rc<ClientConnection>,
    /// Where it comes from, if from a trusted proxy.
    pub(super) origin: Option<Origin>,
    /// Until a step takes it.
    pub(super) body: Option<RequestBody>,
    pub(super) active: Box<ActiveRequest>,
}

impl Call<'_> {
    /// Takes over what a trusted proxy says of the request.
    pub(super) fn hear_proxies(&mut self, headers: &HeaderMap) {
        if let Some(origin) = &self.origin {
            let record = &mut self.active.record;
            record.client = Some(origin.client().accountable());
            if let Some(id) = RequestId::from_proxy(headers) {
                record.id = id;
            }
        }
    }

    /// The client's address.
    pub(super) fn address(&self) -> ClientAddress {
        match &self.origin {
            Some(origin) => origin.client(),
            None => self.client.ends.address(),
        }
    }

    /// What the backend is told of where the request comes from.
    pub(super) fn forwarded(&self, host: Option<&str>) -> Rc<Forwarded> {
        match &self.origin {
            Some(origin) => Rc::new(Forwarded::new(origin.hops(), host)),
            None => self.client.forwarded(host),
        }
    }

    /// Counts bytes that are kept while a request without a live token waits for something.
    ///
    /// # Errors
    /// When its connection or its source has too many of them.
    pub(super) fn hold(
        &self,
        all: &Arc<UnauthenticatedMemory>,
        bytes: u64,
    ) -> Result<MemoryReservation, Refusal> {
        // The connection of a proxy carries many clients.
        let of_one = self.client.ends.role == PeerRole::Client;
        let connection = of_one.then_some(&self.client.unauthenticated);
        let source = Source::of(self.address().accountable());
        let held = all.reserve(connection, source, bytes);
        held.map_err(|MemoryLimitReached| Refusal::TooMuchUnauthenticated)
    }

    pub(super) fn body(&mut self) -> &mut RequestBody {
        self.body.as_mut().expect(ONE_TAKER)
    }

    /// The request's body, for the one step of the path that reads it to its end.
    pub(super) fn take_body(&mut self) -> RequestBody {
        self.body.take().expect(ONE_TAKER)
    }
}

const ONE_TAKER: &str = "each path through answer() takes the body once, as its last step";
