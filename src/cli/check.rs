//! `syncgate check`.

mod finding;
mod kernel;
mod live;

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use ring::rand::SystemRandom;

use super::failure::Failure;
use super::run::needs;
use super::{ConfigFile, print, warn};
use crate::accounts::Accounts;
use crate::audit::PreparedTrail;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::control::AdminSecrets;
use crate::identity::Identities;
use crate::observe::check_access_file;
use crate::process::{self, ProcessError, RunAs};
use crate::server::ListenAddress;
use crate::store;
use crate::tls::Certificates;
use crate::upstream::{BackendCredentials, check_tls};
use finding::{Severity, document, text, worst};
use live::{ask_around, look_around};

/// Check the configuration and everything it refers to
///
/// Reads the configuration, the accounts, the certificates and their keys as `run` would, and reports
/// everything that is wrong. Started as root, it switches to the user of [process] and checks that this
/// user can read the files. Opens no listener, and without --live connects to nothing.
///
/// With --live it also looks at the certificates as a client would, at who can change the files, and asks the running
/// gateway, the backend's servers and the server of a shared token store, each for at most a few seconds. The exit
/// status then is 1 if there is a warning, and 2 if there is a problem.
#[derive(Debug, Args)]
pub(super) struct CheckCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// Print every setting, including defaults
    #[arg(long)]
    show: bool,
    /// Also look at what the gateway depends on as it is now
    #[arg(long)]
    live: bool,
    /// Print what was found as JSON
    #[arg(long, requires = "live", conflicts_with = "show")]
    json: bool,
}

impl CheckCommand {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let loaded = config::load(&self.config.path)?;
        warn(&loaded.warnings);
        // In the order of `run`: the token file with the rights of the start, all else with those left.
        let owner = process::target_user(&loaded.config.process);
        let numbers = owner.as_ref().ok().and_then(Option::as_ref);
        let numbers = numbers.map(RunAs::ids);
        let kept = [
            store::look(&loaded.config.tokens, numbers).map_err(Into::into),
            PreparedTrail::look(&loaded.config.audit, numbers).map_err(Into::into),
        ];
        if let Err(error) = owner {
            // Report everything else that is wrong too.
            let mut errors = vec![ProcessError::User(error).into()];
            let more = open_all(&loaded.config, &Clock::system(), kept);
            errors.extend(more.err().unwrap_or_default());
            return Err(Failure::Usage(errors));
        }
        let clock = Clock::system();
        let path = &self.config.path;
        let mut findings = match self.live {
            true => look_around(path, &loaded.config, &clock).map_err(Failure::other)?,
            false => Vec::new(),
        };
        let protections = process::protect(
            &loaded.config.process,
            &needs(&self.config.path, &loaded.config),
        )?;
        let facts = open_all(&loaded.config, &clock, kept).map_err(Failure::Usage)?;
        if self.live {
            let asked = ask_around(&loaded.config, &clock, &protections);
            findings.extend(asked.map_err(Failure::other)?);
        }
        if self.json {
            print(format!("{:#}\n", document(&findings)).as_bytes())?;
            return Ok(exit_code(worst(&findings)));
        }
        for missing in &protections.off {
            // Standard error being closed is not a failure of the command.
            let _ = writeln!(io::stderr(), "warning: {missing}");
        }
        let mut output = format!("{} is in order\n", self.config.path.display());
        for fact in facts {
            output.push_str(&format!("  {fact}\n"));
        }
        output.push_str(&format!("  process: {}\n", protections.on.join("; ")));
        if self.show {
            let settings = toml::to_string(&loaded.config).map_err(Failure::other)?;
            output.push('\n');
            output.push_str(&settings);
        }
        if self.live {
            output.push('\n');
            output.push_str(&text(&findings));
        }
        print(output.as_bytes())?;
        Ok(exit_code(worst(&findings)))
    }
}

/// The exit status of the command.
fn exit_code(worst: Severity) -> ExitCode {
    match worst {
        Severity::Ok => ExitCode::SUCCESS,
        Severity::Warning => 1.into(),
        Severity::Problem => 2.into(),
    }
}

/// Opens everything the configuration names that needs no socket, and returns a line on each; `kept` are the
/// lines on the token store and the audit trail.
///
/// # Errors
/// Everything that could not be opened.
fn open_all(
    config: &Config,
    clock: &Clock,
    kept: [Result<Option<String>, AnyError>; 2],
) -> Result<Vec<String>, Vec<AnyError>> {
    let mut facts = vec![listeners(config)];
    facts.extend(forwarding(config));
    let mut errors: Vec<AnyError> = Vec::new();
    match Certificates::open(&config.tls, clock) {
        Ok(_) => facts.push(counted(config.tls.certificates.len(), "certificate")),
        Err(error) => errors.push(error.into()),
    }
    match Accounts::open(&config.accounts.file, config.routes.clone()) {
        Ok(accounts) => {
            let table = accounts.table();
            warn(table.warnings());
            facts.push(counted(table.len(), "user"));
        }
        Err(error) => errors.push(error.into()),
    }
    match Identities::open(&config.identity) {
        Ok(_) if config.identity.key.is_none() => {}
        Ok(identities) => facts.push(counted(identities.published(), "identity key")),
        Err(error) => errors.push(error.into()),
    }
    for kept in kept {
        match kept {
            Ok(None) => {}
            Ok(Some(fact)) => facts.push(fact),
            Err(error) => errors.push(error),
        }
    }
    for (_, upstream) in config.upstreams() {
        if let Err(error) = check_tls(upstream, clock) {
            errors.push(error.into());
        }
    }
    if let Err(error) = BackendCredentials::open(&config.routes) {
        errors.push(error.into());
    }
    if let Some(file) = &config.log.access_file {
        match check_access_file(file) {
            Ok(()) => facts.push(format!("access records to {}", file.display())),
            Err(error) => errors.push(error.into()),
        }
    }
    if let Err(error) = AdminSecrets::open(&config.admin, &SystemRandom::new()) {
        errors.push(error.into());
    }
    if errors.is_empty() {
        Ok(facts)
    } else {
        Err(errors)
    }
}

fn listeners(config: &Config) -> String {
    let list = |addresses: &[ListenAddress]| {
        let addresses = addresses
            .iter()
            .map(|address| match address.proxy_protocol {
                true => format!("{} (PROXY protocol)", address.address),
                false => address.address.to_string(),
            });
        let addresses: Vec<_> = addresses.collect();
        addresses.join(", ")
    };
    let https = list(&config.listen.https);
    match config.listen.http.as_slice() {
        [] => format!("HTTPS on {https}"),
        http => format!(
            "HTTPS on {https}; plain HTTP, redirected or refused, on {}",
            list(http)
        ),
    }
}

/// Of each upstream, which paths lead where.
fn forwarding(config: &Config) -> impl Iterator<Item = String> {
    config.upstreams().map(|(name, upstream)| {
        let routes = config.routes.iter().filter(|it| it.upstream == name);
        let paths: Vec<_> = routes.map(|route| route.path.as_str()).collect();
        format!("{} to {upstream}", paths.join(", "))
    })
}

type AnyError = Box<dyn Error + Send + Sync>;

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
