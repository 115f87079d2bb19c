//! Pure: what `[accounts]` may say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[accounts]`: where the accounts are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsSection {
    /// The account file.
    pub file: PathBuf,
}

impl Default for AccountsSection {
    fn default() -> Self {
        Self {
            file: PathBuf::from("users.toml"),
        }
    }
}
