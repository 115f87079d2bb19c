//! The command line: the commands, one file each, and how failures are reported.

mod account_file;
mod admin_client;
mod audit;
mod audit_list;
mod check;
mod dashboard;
mod demo;
mod demo_client;
mod explain;
mod explain_report;
mod failure;
mod hash;
mod healthcheck;
mod identity_key;
mod init;
mod launcher;
mod man;
mod password;
mod reload;
mod run;
mod selftest;
mod signals;
mod token_list;
mod tokens;
mod upgrade;
mod upstreams;
mod user;
mod user_list;
mod user_rights;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::process::panics::log_locations_only;
use crate::settings::Problems;
use failure::Failure;

/// An authenticating reverse proxy: HTTPS and tokens in front of a backend that has neither
///
/// Clients send user name and password once, to POST /api/getToken, and receive a token. With the token
/// they call the backend's paths; syncgate checks every call and forwards it.
#[derive(Debug, Parser)]
#[command(name = "syncgate", version, after_help = AFTER_HELP, arg_required_else_help = true)]
#[command(
    max_term_width = 100,
    propagate_version = false,
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
To try it out:        syncgate demo
To set it up:         syncgate init, syncgate check, syncgate run

Exit status: 0 on success, 64 if the configuration or the command line is wrong, 1 for
any other error (check --live: 1 for a warning, 2 for a problem; healthcheck: 1 for any; explain: 1 if the request would be refused, 2 for any other error; audit: 1 if the trail was changed, 2 for any other
error; selftest: 1 if a
check failed, 2 if it could not run).";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoCommand),
    Init(init::InitCommand),
    Check(check::CheckCommand),
    Explain(explain::ExplainCommand),
    Run(run::RunCommand),
    Dashboard(dashboard::DashboardCommand),
    Reload(reload::ReloadCommand),
    Upgrade(upgrade::UpgradeCommand),
    Selftest(selftest::SelftestCommand),
    User(user::UserCommand),
    Tokens(tokens::TokensCommand),
    Upstreams(upstreams::UpstreamsCommand),
    Audit(audit::AuditCommand),
    Healthcheck(healthcheck::HealthcheckCommand),
    Hash(hash::HashCommand),
    IdentityKey(identity_key::IdentityKeyCommand),
    Completions(CompletionsCommand),
    Man(man::ManCommand),
    #[command(hide = true)]
    Launcher(launcher::LauncherCommand),
}

/// The configuration a command uses.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file; paths in it are relative to its own directory
    #[arg(
        long = "config",
        short = 'c',
        value_name = "FILE",
        env = "SYNCGATE_CONFIG",
        hide_env_values = true
    )]
    #[arg(default_value = "config.toml")]
    pub(crate) path: PathBuf,
}

/// Print a completion script for a shell
///
/// For bash, write the output to ~/.local/share/bash-completion/completions/syncgate; for zsh, to
/// a file named _syncgate in a directory of $fpath; for fish, to
/// ~/.config/fish/completions/syncgate.fish.
#[derive(Debug, Args)]
struct CompletionsCommand {
    /// The shell
    shell: Shell,
}

impl CompletionsCommand {
    fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut CommandLine::command(),
            "syncgate",
            &mut script,
        );
        print(&script)
    }
}

/// Runs the command given on the command line.
#[must_use]
pub fn main() -> ExitCode {
    // First of all, since any command may hold a password.
    log_locations_only();
    if let Err(error) = signals::outlive_file_size_limit() {
        let _ = writeln!(io::stderr(), "warning: signals cannot be received: {error}");
    }
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help and version come this way too, and are no failure.
            let failed = error.use_stderr();
            let _ = error.print();
            return if failed {
                failure::USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match command_line.command {
        Command::Demo(command) => command.run(),
        Command::Init(command) => command.run(),
        Command::Check(command) => return status(command.run()),
        Command::Explain(command) => return explain(&command),
        Command::Run(command) => command.run(),
        Command::Dashboard(command) => command.run(),
        Command::Reload(command) => command.run(),
        Command::Upgrade(command) => command.run(),
        Command::Selftest(command) => command.run(),
        Command::User(command) => command.run(),
        Command::Tokens(command) => command.run(),
        Command::Upstreams(command) => command.run(),
        Command::Audit(command) => return audit(&command),
        Command::Healthcheck(command) => return healthcheck(&command),
        Command::Hash(command) => command.run(),
        Command::IdentityKey(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Launcher(command) => command.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            failure.exit_code()
        }
    }
}

/// The exit status is an answer, and container engines know two of them.
fn healthcheck(command: &healthcheck::HealthcheckCommand) -> ExitCode {
    match command.run() {
        Ok(is_well) => u8::from(!is_well).into(),
        Err(failure) => {
            report(&failure);
            ExitCode::FAILURE
        }
    }
}

/// The exit status is an answer.
fn audit(command: &audit::AuditCommand) -> ExitCode {
    match command.run() {
        Ok(is_whole) => u8::from(!is_whole).into(),
        Err(failure) => {
            report(&failure);
            explain::exit_code(&failure)
        }
    }
}

/// The exit status is an answer.
fn status(outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        report(&failure);
        failure.exit_code()
    })
}

/// The exit status is an answer.
fn explain(command: &explain::ExplainCommand) -> ExitCode {
    match command.run() {
        Ok(passes) => u8::from(!passes).into(),
        Err(failure) => {
            report(&failure);
            explain::exit_code(&failure)
        }
    }
}

fn report(failure: &Failure) {
    let _ = writeln!(
        io::stderr(),
        "{}",
        failure.report(io::stderr().is_terminal())
    );
}

/// Prints the warnings, if there are any.
fn warn(warnings: &Problems) {
    if warnings.is_empty() {
        return;
    }
    let mut output = io::stderr().lock();
    let report = match output.is_terminal() {
        true => warnings.styled(),
        false => warnings.to_string(),
    };
    // Standard error being closed is not a failure of the command.
    let _ = writeln!(output, "{report}\n");
}

/// Writes to standard output. A reader that has gone away, such as `head`, is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::other(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn everything_is_explained_and_no_argument_takes_a_secret() {
        let mut program = CommandLine::command();
        program.build();
        let mut commands = vec![&program];
        while let Some(command) = commands.pop() {
            let name = command.get_bin_name().unwrap_or_default();
            assert!(command.get_about().is_some(), "{name}");
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(argument.get_help().is_some(), "{name}: {id}");
                let secret = ["password", "secret", "token"]
                    .iter()
                    .any(|word| id.contains(word));
                let takes_value = argument.get_action().takes_values();
                assert!(!(secret && takes_value), "{name}: {id}");
            }
            commands.extend(command.get_subcommands());
        }
    }
}
