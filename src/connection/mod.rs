//! A client connection as its requests and their bodies see it: the facts that do not change, and the state
//! that its protocol needs. All of it belongs to one worker.

mod http1;
mod http2;
mod writes;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::rc::Rc;

use http::HeaderMap;
use tokio::time::Instant;

use crate::body::Transfer;
use crate::limits::Limits;
use crate::message::headers::Forwarded;
use crate::origin::{ClientAddress, Origin, PeerRole, TrustedProxies, forwarded};
use crate::traffic::ConnectionMemory;

use writes::WriteProgress;

pub use http1::{Http1, Phase, are_empty_lines};
pub use http2::{GoAway, Http2};

/// One client connection.
#[derive(Debug)]
pub struct ClientConnection {
    /// The peer.
    pub ends: Ends,
    /// How it is protected.
    pub transport: Transport,
    /// Whether its requests are served.
    pub slot_kind: SlotKind,
    /// What its requests without a live token hold.
    pub unauthenticated: ConnectionMemory,
    text: OnceCell<EndsText>,
    forwarded: RefCell<Option<Rc<Forwarded>>>,
    /// How many requests it may carry.
    requests: NonZeroU64,
    begun: Cell<u64>,
    in_flight: Cell<usize>,
    writes: WriteProgress,
    state: State,
}

/// The state of a connection, by its protocol.
#[derive(Debug)]
pub enum State {
    /// HTTP/1.0 or HTTP/1.1.
    Http1(Http1),
    /// HTTP/2.
    Http2(Http2),
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who opened it.
    pub peer: SocketAddr,
    /// The proxy that handed it on and named the peer in a PROXY header, where there is one.
    pub via: Option<SocketAddr>,
    /// What the peer is to the gateway.
    pub role: PeerRole,
}

impl Ends {
    /// Where requests come from that no trusted proxy makes for others.
    #[must_use]
    pub fn address(&self) -> ClientAddress {
        let peer = self.peer.ip();
        match self.role {
            PeerRole::Client | PeerRole::TrustedProxy => ClientAddress::Known(peer),
            PeerRole::Unnamed => ClientAddress::Unknown { behind: peer },
        }
    }
}

impl From<SocketAddr> for Ends {
    /// A peer who is nobody's proxy.
    fn from(peer: SocketAddr) -> Self {
        Self {
            peer,
            via: None,
            role: PeerRole::Client,
        }
    }
}

/// [`Ends`] as text.
#[derive(Debug)]
pub struct EndsText {
    /// Who opened the connection.
    pub peer: String,
    /// The proxy that handed it on.
    pub via: Option<String>,
}

/// The kind of slot that a connection has, which decides what becomes of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// They are served.
    Served,
    /// There are too many connections: its first request is answered with 503, and no other follows.
    Overflow,
}

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS.
    Tls {
        /// The server name that requests must be for, where several certificates make it matter.
        server_name: Option<String>,
    },
    /// HTTP: redirected or refused.
    Plain {
        /// The port to redirect to.
        https_port: u16,
    },
}

/// A request whose whole response was handed to the connection.
pub trait AnsweredRequest: fmt::Debug {
    /// The response is flushed, or its connection is over.
    fn flushed(self: Box<Self>);
}

impl ClientConnection {
    /// A connection that was just accepted, before its first request.
    #[must_use]
    pub fn new(
        ends: Ends,
        transport: Transport,
        slot_kind: SlotKind,
        state: State,
        limits: &Limits,
    ) -> Self {
        let requests = match slot_kind {
            SlotKind::Served => limits.requests_per_connection,
            SlotKind::Overflow => NonZeroU64::MIN,
        };
        Self {
            ends,
            transport,
            slot_kind,
            unauthenticated: ConnectionMemory::default(),
            text: OnceCell::new(),
            forwarded: RefCell::new(None),
            requests,
            begun: Cell::new(0),
            in_flight: Cell::new(0),
            writes: WriteProgress::new(limits),
            state,
        }
    }

    /// The ends as text, made once.
    #[must_use]
    pub fn text(&self) -> &EndsText {
        self.text.get_or_init(|| EndsText {
            peer: self.ends.peer.to_string(),
            via: self.ends.via.map(|via| via.to_string()),
        })
    }

    /// Where a request with these headers comes from, if the peer is a trusted proxy; from the peer
    /// otherwise, whatever the headers say.
    #[must_use]
    pub fn origin(&self, headers: &HeaderMap, trusted: &TrustedProxies) -> Option<Origin> {
        let peer = self.ends.peer.ip();
        match self.ends.role {
            PeerRole::TrustedProxy => Some(forwarded::resolve(headers, peer, trusted)),
            PeerRole::Client | PeerRole::Unnamed => None,
        }
    }

    /// What the backend is told of the client, made anew only when a request is for another host.
    #[must_use]
    pub fn forwarded(&self, host: Option<&str>) -> Rc<Forwarded> {
        let mut kept = self.forwarded.borrow_mut();
        match &*kept {
            Some(forwarded) if forwarded.is_for(host) => Rc::clone(forwarded),
            Some(_) | None => {
                let forwarded = Rc::new(Forwarded::new(&[self.ends.peer.ip()], host));
                Rc::clone(kept.insert(forwarded))
            }
        }
    }

    /// The state of an HTTP/1 connection, if it is one.
    #[must_use]
    pub fn http1(&self) -> Option<&Http1> {
        match &self.state {
            State::Http1(http1) => Some(http1),
            State::Http2(_) => None,
        }
    }

    /// The state of an HTTP/2 connection, if it is one.
    #[must_use]
    pub fn http2(&self) -> Option<&Http2> {
        match &self.state {
            State::Http1(_) => None,
            State::Http2(http2) => Some(http2),
        }
    }

    /// Requests begun so far; tells two idle times apart.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Whether the connection has carried as many requests as it may.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.begun.get() >= self.requests.get()
    }

    /// Requests that are not over.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// These bytes arrived from the client.
    pub fn bytes_arrived(&self, bytes: &[u8]) {
        if let State::Http1(http1) = &self.state {
            http1.bytes_arrived(bytes);
        }
    }

    /// A request head is complete; its request is being answered from now on.
    pub fn request_begins(&self, transfer: &Rc<Transfer>) {
        match &self.state {
            State::Http1(http1) => http1.request_begins(transfer),
            State::Http2(http2) => http2.request_begins(transfer),
        }
        self.begun.set(self.begun.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// The whole response to a request was handed to the connection, or abandoned. Over HTTP/1 the request
    /// is held until that is flushed.
    pub fn answer_given(&self, transfer: &Rc<Transfer>, request: Box<dyn AnsweredRequest>) {
        match &self.state {
            State::Http1(http1) => http1.answer_given(transfer, request),
            State::Http2(_) => request.flushed(),
        }
    }

    /// A request is over: its response and its body.
    pub fn request_over(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// A chunk of a response was handed to the connection. Over HTTP/2 it may have to wait there until the
    /// client opens its window.
    pub fn chunk_offered(&self) {
        if let State::Http2(http2) = &self.state {
            http2.chunk_offered();
        }
    }

    /// A chunk that was offered is on its way, or its response was abandoned.
    pub fn chunk_taken(&self) {
        if let State::Http2(http2) = &self.state {
            http2.chunk_taken();
        }
    }

    /// The result of a write: the number of bytes taken, or `None` because the client does not read.
    pub fn wrote(&self, taken: Option<usize>) {
        self.writes.wrote(taken);
    }

    /// Everything written so far is in the kernel's send buffer.
    pub fn flushed(&self) {
        self.writes.flushed();
        if let State::Http1(http1) = &self.state {
            http1.flushed();
        }
    }

    /// When the client will have read too slowly, while it is waited for.
    #[must_use]
    pub fn write_due(&self) -> Option<Instant> {
        self.writes.due()
    }

    /// While the client does not read what is written: the number of bytes that it took before.
    #[must_use]
    pub fn blocked_at(&self) -> Option<u64> {
        self.writes.blocked_at()
    }
}
