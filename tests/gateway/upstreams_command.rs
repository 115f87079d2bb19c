//! `syncgate upstreams`, run as a program against a gateway that runs.

use std::process::{Command, Output, Stdio};

use crate::support::{Ask, Harness, run};

async fn upstreams(harness: &Harness, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = harness.files().directory().join("config.toml");
    // The gateway answers on threads of its own.
    let output: Output = tokio::task::block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_syncgate"))
            .arg("upstreams")
            .args(arguments)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn servers_are_listed_drained_and_enabled() {
    run(async {
        let harness = Harness::start(|files| files.set("admin.socket", "admin.sock"));
        let path = format!("default/{}", harness.upstream.address());
        let client = harness.signed_in().await;
        let sync = || Ask::post("/api/SyncData").json("{}");

        let (code, stdout, stderr) = upstreams(&harness, &[]).await;
        assert_eq!(code, Some(0), "{stderr}");
        assert!(
            stdout.contains(&path) && stdout.contains("since the start"),
            "{stdout}"
        );

        let (code, _, stderr) = upstreams(&harness, &["drain", &path]).await;
        assert_eq!(
            (code, &*stderr),
            (Some(0), "It gets no further requests.\n")
        );
        assert_eq!(client.send(sync()).await.status, 503);
        let (_, stdout, _) = upstreams(&harness, &["--json"]).await;
        let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(shown["upstreams"][0]["servers"][0]["state"], "drained");

        let (code, _, stderr) = upstreams(&harness, &["enable", &path]).await;
        assert_eq!((code, &*stderr), (Some(0), "It gets requests.\n"));
        assert_eq!(client.send(sync()).await.status, 200);

        let (code, _, stderr) = upstreams(&harness, &["drain", "default/x"]).await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains("there is no server default/x"), "{stderr}");
        let (code, _, stderr) = upstreams(&harness, &["drain", "x"]).await;
        assert_eq!(code, Some(64));
        assert!(stderr.contains("write UPSTREAM/SERVER"), "{stderr}");
    });
}
