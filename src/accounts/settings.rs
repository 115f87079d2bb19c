//! Pure: the section `[accounts]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::settings::document::Step;
use crate::settings::file::FileSetting;

/// `[accounts]`: where the accounts come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsSection {
    /// The account file.
    pub file: PathBuf,
}

impl AccountsSection {
    pub(crate) fn files(&mut self) -> Vec<FileSetting<'_>> {
        let missing = "`syncgate user add NAME` creates it with a first user";
        vec![FileSetting::read(
            ["accounts", "file"].map(Step::Key),
            &mut self.file,
            missing,
        )]
    }
}

impl Default for AccountsSection {
    fn default() -> Self {
        Self {
            file: PathBuf::from("users.toml"),
        }
    }
}
