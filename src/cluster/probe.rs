//! One connection to a server that gateways share, to find out whether it could be used. Nothing is written there.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, PushInfo, Value, cmd};
use tokio::time::timeout;

use super::connect::{Connector, LinkError, Node};
use super::link::Layout;
use super::settings::{ServerAddress, SharedMode, SharedSection};
use crate::clock::Clock;

/// What a server is found to be.
#[derive(Debug)]
pub(crate) struct ProbedServer {
    /// What it calls itself: `redis` or `valkey`, with its version. `None` if it does not say.
    pub(crate) version: Option<String>,
    /// The version of the data that gateways left there, if there is any.
    pub(crate) data: Option<String>,
    /// How far the gateway's clock is ahead of its own, in seconds.
    pub(crate) ahead: Option<i64>,
}

/// Asks each server, or each sentinel, that the section names; `within` bounds each.
///
/// # Errors
/// Those of a server that cannot be used.
pub(crate) async fn probe(
    section: &SharedSection,
    layout: &Layout,
    clock: &Clock,
    within: Duration,
) -> Vec<(ServerAddress, Result<ProbedServer, LinkError>)> {
    let mut found = Vec::new();
    for address in &section.servers {
        let asked = ask(section, address, layout, clock);
        let asked = timeout(within, asked).await;
        let asked = asked.unwrap_or_else(|_| Err(LinkError::Slow(address.clone())));
        found.push((address.clone(), asked));
    }
    found
}

async fn ask(
    section: &SharedSection,
    address: &ServerAddress,
    layout: &Layout,
    clock: &Clock,
) -> Result<ProbedServer, LinkError> {
    let connector = Connector::open(section)?;
    let node = match section.mode {
        SharedMode::Single | SharedMode::Cluster => {
            let unheard = Arc::new(|_: PushInfo| Ok::<_, redis::aio::SendError>(()));
            connector.connect(address, unheard).await?
        }
        SharedMode::Sentinel => connector.connect_plainly(address).await?,
    };
    let mut info = cmd("INFO");
    info.arg("server");
    let info = text(&node, &info).await?.unwrap_or_default();
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(key, _)| *key == name);
        found.map(|(_, value)| value.trim().to_owned())
    };
    let valkey = field("valkey_version").map(|version| format!("Valkey {version}"));
    let redis = || field("redis_version").map(|version| format!("Redis {version}"));
    let data = match section.mode {
        SharedMode::Single => {
            let mut data = cmd("GETRANGE");
            data.arg(&layout.version_key).arg(0).arg(15);
            text(&node, &data).await?.filter(|data| !data.is_empty())
        }
        // It is on another node, or behind the sentinel.
        SharedMode::Sentinel | SharedMode::Cluster => None,
    };
    let ahead = match node.query(&cmd("TIME")).await? {
        Value::Array(parts) => parts
            .first()
            .and_then(number)
            .map(|seconds| clock.now().timestamp().as_second() - seconds),
        _ => None,
    };
    Ok(ProbedServer {
        version: valkey.or_else(redis),
        data,
        ahead,
    })
}

async fn text(node: &Node, command: &Cmd) -> Result<Option<String>, LinkError> {
    Ok(match node.query(command).await? {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    })
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        Value::Int(number) => Some(*number),
        _ => None,
    }
}
