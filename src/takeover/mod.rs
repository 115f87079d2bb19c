//! How a new process takes over from the one that serves: the link between the two, what is said over it, and
//! the steps of either. What is given away, and who decides that it is, other rooms know.
//!
//! ```text
//! the old one                    the new one
//!                <- Hello        which program it is
//! Offer       ->                 its listeners and the token file, with their descriptors
//!                <- Ready        everything that can fail was opened; which listeners it takes
//! state, End  ->                 from now on nothing changes in the old one
//!                <- Loaded       the digest of all of it is right
//! Yours       ->
//!                <- Serving      and not one connection was accepted before
//! Main        ->                 the service manager knows; what the old one's requests do comes over the link
//! ```
//!
//! Until the old one has read `Serving`, it can go on as if nothing had happened, once the new one is certainly
//! dead. Afterwards it never does.

mod frame;
mod inherited;
mod link;
mod message;
mod steps;
mod taking;

pub(crate) use frame::{HEAD, Kind, head, parse};
pub(crate) use inherited::Inherited;
pub(crate) use link::{Link, LinkError};
pub(crate) use message::{
    Hello, ListenerKind, Loaded, Offer, Offered, PROTOCOL, Ready, SocketMark,
};
pub(crate) use steps::{Giving, Heard, Noted, Taking};
pub(crate) use taking::{Part, Takeover};
