//! `syncgate man`.

use clap::{Args, Command, CommandFactory as _};

use super::failure::Failure;
use super::{CommandLine, print};

/// Print the manual page, with every command
///
/// Read it with: syncgate man | man -l -
#[derive(Debug, Args)]
pub(super) struct ManCommand {}

impl ManCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        print(&page(CommandLine::command()).map_err(Failure::other)?)
    }
}

/// One page for all: the program first, then each command in a section of its own.
fn page(mut program: Command) -> std::io::Result<Vec<u8>> {
    program.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(program.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in program.get_subcommands() {
        commands(command, &mut page)?;
    }
    man.render_extra_section(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

fn commands(command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let name = command
        .get_bin_name()
        .unwrap_or_else(|| command.get_name())
        .to_uppercase();
    let man = clap_mangen::Man::new(command.clone());
    let mut section = Vec::new();
    man.render_synopsis_section(&mut section)?;
    man.render_description_section(&mut section)?;
    man.render_options_section(&mut section)?;
    page.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
    // The sections of a command become parts of its one section.
    page.extend_from_slice(
        String::from_utf8_lossy(&section)
            .replace("\n.SH ", "\n.SS ")
            .as_bytes(),
    );
    for below in command.get_subcommands() {
        commands(below, page)?;
    }
    Ok(())
}
