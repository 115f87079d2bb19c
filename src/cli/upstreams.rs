//! `syncgate upstreams ...`: shows, drains and enables the servers of the running gateway.

use std::fmt::Write as _;
use std::str::FromStr;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::account_file::say;
use super::admin_client::{AdminAnswer, AdminClient};
use super::failure::Failure;
use super::{ConfigFile, print};

/// Show, drain and enable the servers of the running gateway's upstreams
///
/// Without a command, lists the servers: whether each gets requests and why, how many are in flight, and the
/// average time until a response began; and for each upstream how many requests wait for a server, if any do.
///
/// Uses the unix socket that the configuration names in `[admin] socket`; run it as root or as the user
/// that syncgate runs as. What is drained or enabled stays so until the gateway is restarted.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct UpstreamsCommand {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    Drain(Drain),
    Enable(Enable),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Send a server no further requests
///
/// Requests in flight finish. If no other server is up, requests get 503. Exit status 1 if there is no
/// such server.
#[derive(Debug, Args)]
struct Drain {
    #[command(flatten)]
    config: ConfigFile,
    /// The upstream and the server, as shown by `syncgate upstreams`
    #[arg(value_name = "UPSTREAM/SERVER")]
    server: ServerPath,
}

/// Send a server requests again that was drained or ejected
///
/// It starts slowly (`ejection.slow_start`). A server whose health checks fail stays down. Exit status 1
/// if there is no such server.
#[derive(Debug, Args)]
struct Enable {
    #[command(flatten)]
    config: ConfigFile,
    /// The upstream and the server, as shown by `syncgate upstreams`
    #[arg(value_name = "UPSTREAM/SERVER")]
    server: ServerPath,
}

/// A server by its upstream's name and its own.
#[derive(Debug, Clone)]
struct ServerPath {
    upstream: String,
    server: String,
}

impl FromStr for ServerPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((upstream, server)) if !upstream.is_empty() && !server.is_empty() => Ok(Self {
                upstream: upstream.to_owned(),
                server: server.to_owned(),
            }),
            Some(_) | None => {
                Err("write UPSTREAM/SERVER, for example default/127.0.0.1:8080".to_owned())
            }
        }
    }
}

impl UpstreamsCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.action {
            None => self.list.run(),
            Some(Action::Drain(Drain { config, server })) => {
                change(config, "/upstreams/drain", server)?;
                say("It gets no further requests.");
                Ok(())
            }
            Some(Action::Enable(Enable { config, server })) => {
                let shown = change(config, "/upstreams/enable", server)?;
                match state_of(&shown, server) {
                    Some("down") => say("It is enabled, but down: its health checks fail."),
                    Some(_) | None => say("It gets requests."),
                }
                Ok(())
            }
        }
    }
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let client = AdminClient::of(&self.config)?;
        let AdminAnswer::Done(shown) = client.ask(&Method::GET, "/upstreams", None)? else {
            return Err(Failure::other(NO_SENSE));
        };
        let text = match self.json {
            true => format!("{shown:#}\n"),
            false => table(&shown),
        };
        print(text.as_bytes())
    }
}

fn change(config: &ConfigFile, target: &str, server: &ServerPath) -> Result<Value, Failure> {
    let client = AdminClient::of(config)?;
    let ServerPath { upstream, server } = server;
    let body = json!({ "upstream": upstream, "server": server });
    match client.ask(&Method::POST, target, Some(&body))? {
        AdminAnswer::Done(shown) => Ok(shown),
        AdminAnswer::NotFound => Err(Failure::other(format!(
            "there is no server {upstream}/{server}; `syncgate upstreams` shows them"
        ))),
    }
}

/// Every server with its upstream.
fn servers(shown: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let upstreams = shown["upstreams"].as_array().into_iter().flatten();
    upstreams.flat_map(|upstream| {
        let servers = upstream["servers"].as_array().into_iter().flatten();
        servers.map(move |server| (upstream, server))
    })
}

fn state_of<'a>(shown: &'a Value, path: &ServerPath) -> Option<&'a str> {
    let mut all = servers(shown);
    let (_, server) = all.find(|(upstream, server)| {
        upstream["name"] == path.upstream.as_str() && server["name"] == path.server.as_str()
    })?;
    server["state"].as_str()
}

fn table(shown: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let rows = servers(shown).map(|(upstream, server)| {
        let name = format!("{}/{}", text(&upstream["name"]), text(&server["name"]));
        let backup = if server["backup"] == true {
            " (backup)"
        } else {
            ""
        };
        let latency = server["latency_us"]
            .as_u64()
            .map_or("-".to_owned(), |micros| {
                format!("{}.{:01} ms", micros / 1000, micros % 1000 / 100)
            });
        let [in_flight, failing] = ["in_flight", "failing"].map(|it| server[it].to_string());
        let state = text(&server["state"]) + backup;
        [
            name,
            state,
            in_flight,
            failing,
            latency,
            text(&server["reason"]),
        ]
    });
    let head = [
        "SERVER",
        "STATE",
        "IN FLIGHT",
        "FAILING",
        "LATENCY",
        "REASON",
    ];
    let head = head.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3, 4].map(|column| width(column).unwrap_or(0));
    let mut table = String::new();
    for [name, state, in_flight, failing, latency, reason] in &rows {
        let [one, two, three, four, five] = widths;
        let _ = writeln!(
            table,
            "{name:one$}  {state:two$}  {in_flight:three$}  {failing:four$}  {latency:five$}  {reason}"
        );
    }
    table + &waiting(shown)
}

/// A line for each upstream that requests wait for.
fn waiting(shown: &Value) -> String {
    let upstreams = shown["upstreams"].as_array().into_iter().flatten();
    let lines = upstreams.filter_map(|upstream| {
        let name = upstream["name"].as_str().unwrap_or("?");
        match upstream["waiting"].as_u64()? {
            0 => None,
            1 => Some(format!("1 request waits for a server of {name}\n")),
            waiting => Some(format!("{waiting} requests wait for a server of {name}\n")),
        }
    });
    lines.collect()
}

const NO_SENSE: &str = "unexpected answer: the gateway may run another version of syncgate";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_its_upstream() {
        for (text, expected) in [
            (
                "default/127.0.0.1:8080",
                Some(("default", "127.0.0.1:8080")),
            ),
            ("erp//run/erp.sock", Some(("erp", "/run/erp.sock"))),
            ("erp", None),
            ("erp/", None),
            ("/a", None),
        ] {
            let found = text.parse::<ServerPath>().ok();
            let found = found
                .as_ref()
                .map(|it| (it.upstream.as_str(), it.server.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_server() {
        let shown = json!({ "upstreams": [{ "name": "erp", "waiting": 12, "servers": [
            { "name": "a", "state": "up", "reason": "since the start", "in_flight": 12,
              "failing": 3, "latency_us": 1250, "backup": false },
            { "name": "spare", "state": "down", "reason": "x", "in_flight": 0,
              "failing": 0, "latency_us": null, "backup": true },
        ] }, { "name": "idle", "waiting": 0, "servers": [] }] });
        let expected = "\
SERVER     STATE          IN FLIGHT  FAILING  LATENCY  REASON
erp/a      up             12         3        1.2 ms   since the start
erp/spare  down (backup)  0          0        -        x
12 requests wait for a server of erp
";
        assert_eq!(table(&shown), expected);
    }
}
