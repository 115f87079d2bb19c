//! Pure: the section `[process]`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::units::positive_duration;

/// `[process]`: the privileges of the process once it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSection {
    /// The user to switch to if started as root: a name or numeric id.
    pub user: Option<String>,
    /// The group instead of the user's own: a name or numeric id.
    pub group: Option<String>,
    /// Whether it may stay root if no user is configured.
    pub allow_root: bool,
    /// Whether to restrict the process to the files it needs, if the kernel supports it.
    pub confine: bool,
    /// Ports that a later configuration may connect to or listen on without a restart.
    pub reload_ports: BTreeSet<u16>,
    /// Whether to restrict the process to the system calls it uses, if the kernel supports it.
    pub seccomp: bool,
    /// Whether a crash may write a core dump, which contains secrets.
    pub core_dumps: bool,
    /// Whether a new process can take over without an interruption, for which a launcher stays beside this one.
    pub upgrade: bool,
    /// How long that may take.
    #[serde(with = "positive_duration")]
    pub upgrade_timeout: Duration,
}

impl Default for ProcessSection {
    fn default() -> Self {
        Self {
            user: None,
            group: None,
            allow_root: false,
            confine: true,
            reload_ports: BTreeSet::new(),
            seccomp: false,
            core_dumps: false,
            upgrade: true,
            upgrade_timeout: Duration::from_secs(60),
        }
    }
}
