//! `syncgate check --live` of the server that gateways share.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::redis::Redis;
use crate::support::Upstream;
use crate::support::harness::Files;

/// The findings on the store: severity and message of each.
fn find(port: u16) -> Vec<(String, String)> {
    let (mut files, _) = Files::new(&format!("http://{}", Upstream::nobody()));
    files.set("tokens.store", "shared");
    files.set_table(
        "tokens.shared",
        &format!("servers = [\"127.0.0.1:{port}\"]"),
    );
    files.write();
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncgate"));
    command.args(["check", "--live", "--json", "--config", "config.toml"]);
    let output = command
        .current_dir(files.directory())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{shown}"));
    let findings = document["findings"].as_array().unwrap().iter();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    let about = findings.filter(|it| {
        let (subject, message) = (text(it, "subject"), text(it, "message"));
        subject.starts_with("token store") || message.contains("token store")
    });
    about
        .map(|it| (text(it, "severity"), text(it, "message")))
        .collect()
}

#[test]
fn the_server_of_a_shared_store_is_asked_for_its_version_its_clock_and_what_it_holds() {
    let server = Redis::start();
    let found = find(server.port);
    assert_eq!(found[0].0, "ok", "{found:?}");
    assert!(
        found[0].1.starts_with("reached: Redis ") || found[0].1.starts_with("reached: Valkey ")
    );
    let clock = format!("as that of token store 127.0.0.1:{}", server.port);
    assert_eq!(found[1], ("ok".to_owned(), clock));
    assert_eq!(server.tell(&["DBSIZE"]), ":0\r\n", "nothing was written");

    server.tell(&["SET", "syncgate:version", "999"]);
    let found = find(server.port);
    assert_eq!(found[0].0, "problem", "{found:?}");
    assert!(found[0].1.contains("another version: 999"), "{found:?}");

    let port = server.port;
    drop(server);
    let found = find(port);
    assert_eq!(found[0].0, "problem", "{found:?}");
    assert!(found[0].1.contains("cannot be connected to"), "{found:?}");
}
