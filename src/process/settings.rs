//! Pure: what `[process]` may say.

use serde::{Deserialize, Serialize};

/// `[process]`: what the process may do to the machine, once it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSection {
    /// Whom to become when started as root: a name or a number.
    pub user: Option<String>,
    /// The group instead of the user's own: a name or a number.
    pub group: Option<String>,
    /// Whether it may stay root where no user is named.
    pub allow_root: bool,
    /// Whether the process opens no other files than it needs, where the kernel can see to it.
    pub confine: bool,
    /// Whether the process makes no other system calls than it uses, where the kernel can see to it.
    pub seccomp: bool,
    /// Whether a crash may leave an image of the memory, with all that is in it.
    pub core_dumps: bool,
}

impl Default for ProcessSection {
    fn default() -> Self {
        Self {
            user: None,
            group: None,
            allow_root: false,
            confine: true,
            seccomp: false,
            core_dumps: false,
        }
    }
}
