//! `syncgate reload`.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::admin_client::{AdminAnswer, AdminClient};
use super::failure::Failure;
use super::{ConfigFile, print};

/// Reload the configuration and the files that it names
///
/// Asks the running gateway over its admin socket, and shows what changed. What cannot be used is refused as a
/// whole: the last good state stays in force. The gateway also reloads by itself when a file changes, and on
/// SIGHUP.
#[derive(Debug, Args)]
pub(super) struct ReloadCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// Show what a reload of the configuration would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl ReloadCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let client = AdminClient::of(&self.config)?;
        let body = json!({ "dry_run": self.dry_run });
        let AdminAnswer::Done(outcome) = client.ask(&Method::POST, "/reload", Some(&body))? else {
            return Err(Failure::other(
                "the running gateway is an older syncgate, which cannot do this; restart it",
            ));
        };
        print(report(&outcome).as_bytes())?;
        let mut refused = list(&outcome["refused"]).map(|it| {
            let text = |key: &str| it[key].as_str().unwrap_or_default();
            format!("{}:\n{}", text("what"), text("reason"))
        });
        match refused.next() {
            Some(first) => {
                let rest = refused.fold(first, |all, next| all + "\n" + &next);
                Err(Failure::usage(rest))
            }
            None if list(&outcome["changes"]).next().is_none() => {
                print(b"No setting differs from the one in force.\n")
            }
            None => Ok(()),
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn report(outcome: &Value) -> String {
    let lines = |key: &str| list(&outcome[key]).filter_map(Value::as_str);
    let mut report = String::new();
    for line in lines("changes").chain(lines("reloaded")) {
        report += line;
        report.push('\n');
    }
    if let Some(warnings) = outcome["warnings"].as_str().filter(|it| !it.is_empty()) {
        report += warnings;
        report.push('\n');
    }
    report
}
