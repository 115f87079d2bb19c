//! The configuration: the list of its sections. What a section means is known only to the module
//! that uses it.

pub(crate) mod suggest;
pub mod units;

use serde::Serialize;

use crate::accounts::AccountsSection;
use crate::limits::Limits;
use crate::login::LoginSection;
use crate::observe::LogSection;
use crate::route::RouteSection;
use crate::server::{ListenSection, TlsSection};
use crate::store::TokensSection;
use crate::upstream::UpstreamSection;

/// Everything that can be set. Once one exists, nothing in it needs checking again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenSection,
    /// Certificates.
    pub tls: TlsSection,
    /// The backend.
    pub upstream: UpstreamSection,
    /// What is forwarded.
    pub routes: Vec<RouteSection>,
    /// Who may log in.
    pub accounts: AccountsSection,
    /// How logins are checked.
    pub login: LoginSection,
    /// The tokens.
    pub tokens: TokensSection,
    /// Bounds and deadlines.
    pub limits: Limits,
    /// What is logged.
    pub log: LogSection,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenSection::default(),
            tls: TlsSection::default(),
            upstream: UpstreamSection::default(),
            routes: RouteSection::defaults(),
            accounts: AccountsSection::default(),
            login: LoginSection::default(),
            tokens: TokensSection::default(),
            limits: Limits::default(),
            log: LogSection::default(),
        }
    }
}
