//! `syncgate healthcheck`: asks the running gateway whether it should get requests, for containers.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::admin_client::AdminClient;
use super::failure::Failure;
use super::{ConfigFile, print};

/// Ask the running gateway whether it should get requests
///
/// Prints what its checks found, and exits with 0 if it is ready, with or without warnings, and with 1
/// otherwise, also if it cannot be asked.
///
/// Uses the unix socket that the configuration names in `[admin] socket`, or else the address in
/// `[admin] listen`, where the gateway does not tell the reasons.
#[derive(Debug, Args)]
pub(super) struct HealthcheckCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// Only ask whether the process is alive
    #[arg(long)]
    live: bool,
}

impl HealthcheckCommand {
    /// Returns whether the answer is yes.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let target = if self.live { "/livez" } else { "/readyz" };
        let (status, shown) = AdminClient::for_health(&self.config)?.probe(target)?;
        let is_well = status == 200;
        let what = match (self.live, is_well) {
            (true, true) => "alive",
            (true, false) => "not alive",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        print(report(what, &shown).as_bytes())?;
        Ok(is_well)
    }
}

/// A line for the outcome, and one for each thing that is not well.
fn report(what: &str, shown: &Value) -> String {
    let mut text = format!("{what}\n");
    for check in shown["checks"].as_array().into_iter().flatten() {
        let part = |key: &str| check[key].as_str().unwrap_or("?");
        let (name, state) = (part("name"), part("state"));
        if state == "ok" {
            continue;
        }
        let reasons = check["reasons"].as_array().map_or(&[][..], Vec::as_slice);
        if reasons.is_empty() {
            let _ = writeln!(text, "{state}: {name}");
        }
        for reason in reasons {
            let _ = writeln!(text, "{state}: {name}: {}", reason.as_str().unwrap_or("?"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_well_has_a_line_for_each_reason() {
        let shown = json!({ "checks": [
            { "name": "draining", "state": "ok", "reasons": [] },
            { "name": "store", "state": "failed", "reasons": ["one", "two"] },
            { "name": "reload", "state": "warning", "reasons": [] },
        ] });
        let expected = "not ready\nfailed: store: one\nfailed: store: two\nwarning: reload\n";
        assert_eq!(report("not ready", &shown), expected);
        assert_eq!(report("alive", &json!({ "success": true })), "alive\n");
    }
}
