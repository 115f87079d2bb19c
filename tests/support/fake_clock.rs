//! A clock of its own for a gateway in a child process, by Debian's `faketime`.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The time of day that a process sees. How long the machine has been up stays as it is.
pub struct FakeClock {
    directory: TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// A clock that differs by so much from that of the machine: `+48h`.
    pub fn new(difference: &str) -> Self {
        let mut places = fs::read_dir("/usr/lib").unwrap().map(|place| {
            let place = place.unwrap().path();
            // The one for programs of several threads.
            place.join("faketime/libfaketimeMT.so.1")
        });
        let found = places.find(|library| library.exists());
        let clock = Self {
            directory: tempfile::tempdir().unwrap(),
            library: found.expect("faketime (scripts/install-test-tools.sh installs it)"),
        };
        clock.set(difference);
        clock
    }

    /// Sets it to another difference, which the process sees at once.
    pub fn set(&self, difference: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, difference).unwrap();
        fs::rename(&new, self.file()).unwrap();
    }

    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }
}
