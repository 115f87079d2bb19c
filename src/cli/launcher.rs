//! `syncgate launcher`, which `syncgate run` starts for itself.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::signals;
use crate::process::launcher;

/// Start the gateway's program when the gateway asks for it; only the gateway itself runs this
#[derive(Debug, Args)]
pub(super) struct LauncherCommand {
    /// The program to start
    #[arg(long)]
    program: PathBuf,
    /// Its arguments
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl LauncherCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        // Who signals all processes of this name means the gateway.
        signals::outlive_reloads().map_err(Failure::other)?;
        launcher::serve(&self.program, &self.arguments).map_err(Failure::other)
    }
}
