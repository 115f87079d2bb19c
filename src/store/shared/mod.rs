//! Tokens on a server that several gateways share. The map in memory is a cache in front of it: the
//! server tells each gateway what another one changed, and a token that is not in the map is asked
//! for once. A thread of its own talks to the server; the request path sends it messages.
//!
//! What holds, and where:
//!
//! - A server is served from only after it was told of everything that was revoked here, after everything
//!   is there again that other gateways revoked as far as this one saw it, and after the map is empty
//!   (`phase`, `telling`).
//! - A revocation is counted at the node that has it, behind it; whoever revoked something remembers it
//!   under its number until it is out of the list, and from then on the time before which all has to end
//!   where it was lost (`ends`, `tally`).
//! - What is asked to be revoked while no server can be told holds here, and waits (`ends`).
//! - What time it is between gateways, the server says: its clock bounds what a gateway takes to be over
//!   (`scripts`).
//! - A failed login does on the server what a successful one does (`rehearsal`), and is counted here where
//!   it is not counted there (`counts`).

#[cfg(feature = "shared")]
mod asking;
#[cfg(feature = "shared")]
mod cache;
#[cfg(feature = "shared")]
pub(super) mod connect;
#[cfg(feature = "shared")]
mod counts;
#[cfg(feature = "shared")]
mod ends;
#[cfg(feature = "shared")]
mod engine;
#[cfg(feature = "shared")]
mod failures;
#[cfg(feature = "shared")]
mod issue;
#[cfg(feature = "shared")]
mod keys;
#[cfg(feature = "shared")]
mod link;
#[cfg(feature = "shared")]
mod lists;
#[cfg(feature = "shared")]
mod operations;
#[cfg(feature = "shared")]
mod phase;
#[cfg(feature = "shared")]
mod places;
#[cfg(feature = "shared")]
mod quotas;
#[cfg(feature = "shared")]
mod record;
#[cfg(feature = "shared")]
mod rehearsal;
#[cfg(feature = "shared")]
mod requests;
#[cfg(feature = "shared")]
mod scripts;
pub(super) mod settings;
#[cfg(feature = "shared")]
mod standing;
#[cfg(feature = "shared")]
mod supervise;
#[cfg(feature = "shared")]
mod tally;
#[cfg(feature = "shared")]
mod telling;
#[cfg(feature = "shared")]
mod uses;

#[cfg(feature = "shared")]
pub use failures::SharedFailures;
#[cfg(feature = "shared")]
pub(super) use requests::SharedTokens;

/// Failed logins that several gateways count together.
#[cfg(not(feature = "shared"))]
#[derive(Debug, Clone)]
pub enum SharedFailures {}

#[cfg(not(feature = "shared"))]
impl SharedFailures {
    pub(crate) fn origins(
        &self,
        _name: Option<&str>,
        _network: crate::origin::Source,
    ) -> [String; 2] {
        match *self {}
    }

    pub(crate) async fn of(
        &self,
        _origins: &[String; 2],
    ) -> Result<[crate::login::Heard; 2], super::StoreError> {
        match *self {}
    }

    pub(crate) async fn failed(
        &self,
        _origins: Vec<(String, u32)>,
        _forget: std::time::Duration,
    ) -> [crate::login::CountedBy; 2] {
        match *self {}
    }

    pub(crate) async fn forgive(&self, _origin: &str, _forget: std::time::Duration) {
        match *self {}
    }
}

#[cfg(all(test, feature = "shared"))]
mod tests;
