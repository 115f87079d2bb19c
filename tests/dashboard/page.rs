//! The page in a real browser, which `browser/drive.js` drives; this file does what has to happen to the gateway.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{counted, harness};
use crate::started::Started;
use crate::support::{Ask, Client, Harness, run};

/// What the browser's driver asks for.
struct Scene {
    harness: Harness,
    client: Client,
}

impl Scene {
    async fn play(&mut self, asked: &Value) -> Value {
        if let Some(count) = asked["requests"].as_u64() {
            let before = counted(&self.harness).await;
            for _ in 0..count {
                assert_eq!(self.client.send(sync()).await.status, 200);
            }
            while counted(&self.harness).await < before + count {}
            self.harness.clock.advance(Duration::from_secs(10));
            return json!({});
        }
        if asked["send"] == true {
            return json!({ "status": self.client.send(sync()).await.status });
        }
        if asked["login"] == true {
            self.client = self.harness.signed_in().await;
            return json!({});
        }
        if asked["refused"] == true {
            let before = counted(&self.harness).await;
            let refused = self.harness.anonymous().send(sync()).await;
            while counted(&self.harness).await < before + 1 {}
            return json!({ "id": refused.header("x-request-id") });
        }
        let limit = match asked["configuration"].as_str() {
            Some("bad") => "as long as it takes",
            Some("good") => "20s",
            Some(_) | None => panic!("the driver asks for {asked}"),
        };
        self.harness.files_mut().set("limits.drain", limit);
        self.harness.files().write();
        json!({})
    }
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

#[test]
fn a_person_sees_finds_revokes_drains_and_reloads_in_a_browser() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        let mut scene = Scene { harness, client };
        let started = Started::before(&scene.harness, &[]);
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard/browser");
        assert!(
            place.join("node_modules/puppeteer-core").exists(),
            "scripts/install-test-tools.sh installs what drives the browser"
        );
        let mut driver = Command::new("node")
            .arg(place.join("drive.js"))
            .arg(&started.link)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = driver.stdin.take().unwrap();
        let questions = BufReader::new(driver.stdout.take().unwrap());
        for question in questions.lines() {
            let asked: Value = serde_json::from_str(&question.unwrap()).unwrap();
            let answer = scene.play(&asked).await;
            writeln!(answers, "{answer}").unwrap();
        }
        assert!(
            driver.wait().unwrap().success(),
            "the browser's driver says why"
        );
        assert!(started.ended().success());
    });
}
