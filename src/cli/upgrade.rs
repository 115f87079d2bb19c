//! `syncgate upgrade`.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::admin_client::{AdminAnswer, AdminClient};
use super::failure::Failure;
use super::{ConfigFile, print};

/// Have a new process of the program take over from the running one, without an interruption
///
/// Asks the running gateway over its admin socket; SIGUSR2 does the same. The new process is started from the file
/// that the running one was started from, with the same arguments, and reads the configuration anew. It takes over
/// the listening sockets, all live tokens, and what is counted of failed logins and quotas; then the old one
/// answers what is in flight and ends. If the new one does not come up, the old one goes on as if nothing had
/// happened.
#[derive(Debug, Args)]
pub(super) struct UpgradeCommand {
    #[command(flatten)]
    config: ConfigFile,
}

impl UpgradeCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let client = AdminClient::of(&self.config)?;
        let answer = client.ask(&Method::POST, "/upgrade", Some(&json!({})))?;
        let AdminAnswer::Done(outcome) = answer else {
            return Err(Failure::other(
                "the running gateway is an older syncgate, which cannot do this; restart it",
            ));
        };
        if let Some(reason) = outcome["reason"].as_str() {
            return Err(Failure::other(reason.to_owned()));
        }
        print(report(&outcome["upgraded"]).as_bytes())
    }
}

fn report(upgraded: &Value) -> String {
    let program = |key: &str| {
        let version = upgraded[key]["version"].as_str().unwrap_or_default();
        format!("syncgate {version} (process {})", upgraded[key]["pid"])
    };
    format!(
        "{} took over from {}: {} tokens, in {} ms, of which logins and revocations waited for {} ms\n",
        program("to"),
        program("from"),
        upgraded["tokens"],
        upgraded["took_ms"],
        upgraded["frozen_ms"],
    )
}
