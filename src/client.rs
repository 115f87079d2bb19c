//! What is known of one client connection, shared by the connection, the requests on it and their
//! bodies. All of it belongs to one worker.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::rc::Rc;

use http::HeaderMap;
use tokio::time::Instant;

use crate::body::{BodyState, MinRate, Transfer};
use crate::limits::Limits;
use crate::message::headers::Forwarded;
use crate::origin::{ClientAddress, Origin, PeerRole, TrustedProxies, forwarded};
use crate::traffic::OfConnection;

/// One client connection.
#[derive(Debug)]
pub struct ClientConnection {
    /// Who is at its other end.
    pub ends: Ends,
    /// How it is protected.
    pub transport: Transport,
    /// What becomes of its requests.
    pub standing: Standing,
    /// What its requests without a live token hold.
    pub unauthenticated: OfConnection,
    text: OnceCell<EndsText>,
    forwarded: RefCell<Option<Rc<Forwarded>>>,
    stage: RefCell<Stage>,
    requests: NonZeroU64,
    begun: Cell<u64>,
    in_flight: Cell<usize>,
    heads: Cell<u64>,
    lingers: Cell<bool>,
    dismissed: Cell<bool>,
    sent_away: Cell<bool>,
    written: Cell<u64>,
    /// What was written since the last flush.
    unflushed: Cell<u64>,
    blocked: Cell<bool>,
    /// How slowly the client may take what is written.
    rate: RefCell<MinRate>,
    offered: Cell<usize>,
    taken: Cell<u64>,
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

/// What becomes of a connection's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They are served.
    Served,
    /// There are too many connections: the first is told to come back, and no other follows.
    Surplus,
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

/// What an HTTP/1 connection is at: the state machine of a connection, and all that anybody outside of this
/// module sees of it. It is not stored. [`ClientConnection::phase`] derives it from the two things that move
/// independently: how far the answer is (`Stage`, private) and how far the request's body is
/// ([`BodyState`], in the request's [`Transfer`]). A request is over when its answer was flushed and its
/// body has ended, whichever comes last, and only then is the connection idle again:
///
/// | from | what happens | to |
/// |---|---|---|
/// | `Idle` | bytes arrive, other than empty lines | `Head` |
/// | `Idle`, `Head` | a head is complete | `Answering` |
/// | `Answering` | the answer is flushed, the body had ended | `Idle` |
/// | `Answering` | the answer is flushed, the body still arrives | `Uploading` |
/// | `Answering` | the answer is flushed, the body was given up | `Closing` |
/// | `Uploading` | the body ends | `Idle` |
/// | `Uploading` | the body is given up | `Closing` |
/// | `Uploading`, `Closing` | a head is complete: hyper had all of the body, or found its end | `Answering` |
///
/// An HTTP/2 connection has no phase: its requests do not take turns, so that none can be read as part of
/// another. A stream has the [`BodyState`] of its request and whether a part of its answer waits for the
/// client ([`part_offered`](ClientConnection::part_offered)); its request is over when its answer was given
/// to the connection and nobody holds its body any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// The first bytes of a head are there.
    Head,
    /// A request is being answered, or the end of its answer is not flushed.
    Answering,
    /// The answer was flushed before the request's body had ended: bytes that arrive belong to it.
    Uploading,
    /// The answer was flushed and the request's body was given up, so that nobody can tell where a
    /// next request would begin.
    Closing,
}

impl Phase {
    /// Whether hyper has answered all that a service has seen: what it still writes is its own.
    #[must_use]
    pub fn is_answered(self) -> bool {
        match self {
            Self::Idle | Self::Head | Self::Uploading | Self::Closing => true,
            Self::Answering => false,
        }
    }

    /// Whether the connection stands in the middle of a request.
    #[must_use]
    pub fn is_amid_request(self) -> bool {
        match self {
            Self::Answering | Self::Uploading | Self::Closing => true,
            Self::Idle | Self::Head => false,
        }
    }
}

/// Whether these are empty lines, or a part of one, which a server ignores before a request line
/// (RFC 9112, section 2.2).
#[must_use]
pub fn are_empty_lines(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// One half of [`Phase`], which is the state machine: how far the answer of the present HTTP/1 request is. The
/// other half, its body's state, is the transfer's.
#[derive(Debug)]
enum Stage {
    Idle,
    Head,
    Answering(Rc<Transfer>),
    /// All of the answer was given to hyper. Holds the request until that is flushed.
    Answered(Rc<Transfer>, Box<dyn AnsweredRequest>),
    Flushed(Rc<Transfer>),
}

/// A request of which all of the answer was given to the connection.
pub trait AnsweredRequest: fmt::Debug {
    /// The answer is flushed, or its connection is over.
    fn flushed(self: Box<Self>);
}

impl ClientConnection {
    /// A connection that has just been accepted.
    #[must_use]
    pub fn new(ends: Ends, transport: Transport, standing: Standing, limits: &Limits) -> Self {
        let requests = match standing {
            Standing::Served => limits.requests_per_connection,
            Standing::Surplus => NonZeroU64::MIN,
        };
        Self {
            ends,
            transport,
            standing,
            unauthenticated: OfConnection::default(),
            text: OnceCell::new(),
            forwarded: RefCell::new(None),
            stage: RefCell::new(Stage::Idle),
            requests,
            begun: Cell::new(0),
            in_flight: Cell::new(0),
            heads: Cell::new(0),
            lingers: Cell::new(false),
            dismissed: Cell::new(false),
            sent_away: Cell::new(false),
            written: Cell::new(0),
            unflushed: Cell::new(0),
            blocked: Cell::new(false),
            rate: RefCell::new(MinRate::of_responses(limits)),
            offered: Cell::new(0),
            taken: Cell::new(0),
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
            PeerRole::TrustedProxy => Some(forwarded::walk(headers, peer, trusted)),
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

    /// What an HTTP/1 connection is at.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &*self.stage.borrow() {
            Stage::Idle => Phase::Idle,
            Stage::Head => Phase::Head,
            Stage::Answering(_) | Stage::Answered(..) => Phase::Answering,
            Stage::Flushed(transfer) => match transfer.state() {
                BodyState::Arriving => Phase::Uploading,
                BodyState::Ended => Phase::Idle,
                BodyState::GivenUp => Phase::Closing,
            },
        }
    }

    /// Requests begun so far; tells two idle times apart.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Heads begun so far; tells two heads apart.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.heads.get()
    }

    /// Whether no request may follow those that have begun.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.begun.get() >= self.requests.get()
    }

    /// Requests that are not over.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// These bytes arrived: between requests they begin a head, unless they are empty lines.
    pub fn bytes_arrived(&self, bytes: &[u8]) {
        if self.phase() == Phase::Idle && !are_empty_lines(bytes) {
            self.head_begins();
        }
    }

    /// A head began to arrive.
    pub fn head_begins(&self) {
        self.set_stage(Stage::Head);
        self.heads.set(self.heads.get() + 1);
    }

    /// A request is complete in its head and being answered from now on.
    pub fn request_begins(&self, transfer: &Rc<Transfer>) {
        // With pipelining the answer before may not be flushed yet.
        self.set_stage(Stage::Answering(Rc::clone(transfer)));
        self.begun.set(self.begun.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// All of the answer of the present HTTP/1 request was given to the connection, or given up.
    pub fn answer_given(&self, transfer: &Rc<Transfer>, request: Box<dyn AnsweredRequest>) {
        self.set_stage(Stage::Answered(Rc::clone(transfer), request));
    }

    /// A request whose answer was not flushed until now is held no longer.
    fn set_stage(&self, stage: Stage) {
        if let Stage::Answered(_, request) = self.stage.replace(stage) {
            request.flushed();
        }
    }

    /// Everything written so far is with the kernel.
    pub fn flushed(&self) {
        let flushed = self.unflushed.take();
        if self.blocked.replace(false) {
            self.rate.borrow_mut().progress(flushed, Instant::now());
        }
        let mut stage = self.stage.borrow_mut();
        if !matches!(*stage, Stage::Answered(..)) {
            return;
        }
        if let Stage::Answered(transfer, request) = std::mem::replace(&mut *stage, Stage::Idle) {
            *stage = Stage::Flushed(transfer);
            drop(stage);
            request.flushed();
        }
    }

    /// Nothing is kept of the last request: the connection rests, or hyper is done with it.
    pub fn forget_request(&self) {
        self.set_stage(Stage::Idle);
    }

    /// A request is over: its answer and its body.
    pub fn request_over(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// How a write ended: with so many bytes taken, or with none because the client does not read.
    pub fn wrote(&self, taken: Option<usize>) {
        let was_blocked = self.blocked.replace(taken.is_none());
        let Some(taken) = taken.map(|taken| taken as u64) else {
            if !was_blocked {
                let pending = self.unflushed.get();
                self.rate.borrow_mut().wait(pending, Instant::now());
            }
            return;
        };
        self.written.set(self.written.get() + taken);
        self.unflushed.set(self.unflushed.get() + taken);
        if was_blocked {
            // There is room for it because as much that was written before is gone.
            self.unflushed
                .set(self.unflushed.get().saturating_sub(taken));
            self.rate.borrow_mut().progress(taken, Instant::now());
        }
    }

    /// When the client will have taken too long to take what is written, if it is waited for.
    #[must_use]
    pub fn write_due(&self) -> Option<Instant> {
        self.rate.borrow().deadline()
    }

    /// The answer under way is given up because the client takes it too slowly.
    pub fn answer_too_slow(&self) {
        if let Some(transfer) = self.latest_transfer() {
            transfer.answer_too_slow();
        }
    }

    /// The transfer of the request that began last, while its answer is under way.
    #[must_use]
    pub fn latest_transfer(&self) -> Option<Rc<Transfer>> {
        match &*self.stage.borrow() {
            Stage::Answering(transfer) | Stage::Answered(transfer, _) => Some(Rc::clone(transfer)),
            Stage::Idle | Stage::Head | Stage::Flushed(_) => None,
        }
    }

    /// While the client does not take what is written: the number of bytes that it took before.
    #[must_use]
    pub fn blocked_at(&self) -> Option<u64> {
        self.blocked.get().then_some(self.written.get())
    }

    /// A part of an answer was given to the connection. Over HTTP/2 it may have to wait there for the
    /// client; over HTTP/1 it is the last that is not counted.
    pub fn part_offered(&self) {
        self.offered.set(self.offered.get() + 1);
    }

    /// A part that was offered is on its way, or its answer was given up.
    pub fn part_taken(&self) {
        self.offered.set(self.offered.get().saturating_sub(1));
        self.taken.set(self.taken.get() + 1);
    }

    /// While an answer waits for the client to make room: the number of parts taken before.
    #[must_use]
    pub fn stuck_at(&self) -> Option<u64> {
        (self.offered.get() > 0).then_some(self.taken.get())
    }

    /// The connection ends with the present answer while the client may still be sending: it has to
    /// linger, or the client's kernel throws the answer away.
    pub fn will_linger(&self) {
        self.lingers.set(true);
    }

    /// The client is asked to leave when what is under way is done.
    pub fn dismiss(&self) {
        self.dismissed.set(true);
    }

    /// Whether the client was asked to leave.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.get()
    }

    /// The client is told to leave at once, whatever is under way.
    pub fn send_away(&self) {
        self.sent_away.set(true);
    }

    /// Whether the client was told to leave at once.
    #[must_use]
    pub fn is_sent_away(&self) -> bool {
        self.sent_away.get()
    }

    /// Whether the connection has to linger.
    #[must_use]
    pub fn lingers(&self) -> bool {
        self.lingers.get()
    }
}
