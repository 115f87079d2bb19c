//! Reloading the configuration and the files it names, or showing what that would change.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::audit::By;
use crate::control::{Preview, Reload, ReloadReport};
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;

/// Reloads as the body asks for. Returns what that is called beside the answer.
///
/// # Errors
/// When the body is malformed. That a file cannot be used is part of the answer.
pub(super) async fn apply(
    reload: &Arc<Reload>,
    body: &[u8],
    by: By,
) -> Result<(Reply, &'static str), Refusal> {
    let Options { dry_run } =
        serde_json::from_slice(body).map_err(|_| Refusal::AdminMalformed(OPTIONS))?;
    let reload = Arc::clone(reload);
    // Files are read, and a server may have to be told of tokens that end.
    let outcome = tokio::task::spawn_blocking(move || Outcome::of(&reload, dry_run, by));
    let outcome = outcome.await.map_err(|_| Refusal::Panicked)?;
    let done = match dry_run {
        true => "reload.dry_run",
        false => "reload",
    };
    Ok((Reply::document(&outcome), done))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Outcome {
    dry_run: bool,
    /// Settings of the configuration.
    changes: Vec<String>,
    warnings: String,
    reloaded: Vec<&'static str>,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    what: &'static str,
    reason: String,
}

impl Outcome {
    fn of(reload: &Reload, dry_run: bool, by: By) -> Self {
        let (preview, mut report) = (reload.preview(), ReloadReport::default());
        match (&preview, dry_run) {
            (_, false) => report = reload.all_by(by),
            (Ok(_), true) => {}
            (Err(reason), true) => report.refused.push((CONFIGURATION, reason.clone())),
        }
        let Preview { changes, warnings } = preview.unwrap_or_default();
        let refused = report.refused.into_iter();
        Self {
            dry_run,
            changes,
            warnings,
            reloaded: report.reloaded,
            refused: refused
                .map(|(what, reason)| Refused { what, reason })
                .collect(),
        }
    }
}

const OPTIONS: &str = "the body is an object, with dry_run as true or false";
const CONFIGURATION: &str = "the configuration cannot be used";
