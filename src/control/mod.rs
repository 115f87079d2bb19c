//! What changes a running gateway: nothing on the request path uses it, and after the start only it
//! reads files.

mod admin;
mod audited;
mod disowned;
mod health;
mod history;
pub(crate) mod memory;
mod metrics;
mod reload;
mod upgrade;
mod watch;

pub(crate) use admin::{Admin, AdminListeners, AdminSecrets, Controls, OwnHosts};
pub use admin::{AdminError, AdminHost, AdminSection, LoopbackAddress, SecretError};
pub(crate) use disowned::end_kept as end_kept_disowned;
pub(crate) use disowned::end_tokens as end_disowned;
pub(crate) use reload::{Configuration, Preview};
pub use reload::{Reload, ReloadReport};
pub(crate) use upgrade::{Upgrade, UpgradeError, UpgradeParts, UpgradeReport};
pub(crate) use watch::Watcher;
