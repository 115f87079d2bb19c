//! `/history`: what the gateway did in the last hour and the last day.

use std::time::Duration;

use serde_json::{Value, json};

use crate::described::assert_described;
use crate::support::upstream::json as json_answer;
use crate::support::{Ask, Harness, Script, run, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

pub fn harness() -> Harness {
    Harness::start(|files| {
        files.set("admin.socket", "admin.sock");
        files.set("admin.listen", "127.0.0.1:0");
    })
}

async fn history(harness: &Harness, query: &str) -> Value {
    let answer = harness
        .ask_admin(&Ask::get(&format!("/history{query}")))
        .await;
    assert_described("GET", "/history", "200", &answer);
    answer.json()
}

fn points(history: &Value) -> Vec<Value> {
    history["points"].as_array().unwrap().clone()
}

/// How many requests are over.
pub async fn counted(harness: &Harness) -> u64 {
    let metrics = harness.ask_admin(&Ask::get("/metrics")).await.text();
    let samples = metrics
        .lines()
        .filter(|line| line.starts_with("syncgate_requests_total"));
    let counts = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}

/// Lets ten seconds pass, once the records of all requests so far are counted.
async fn ten_seconds(harness: &Harness, requests: u64) {
    within("all requests to be counted", async {
        while counted(harness).await < requests {}
    })
    .await;
    harness.clock.advance(Duration::from_secs(10));
}

#[test]
fn each_ten_seconds_have_a_point_with_what_happened_in_them() {
    run(async {
        let harness = harness();
        assert_eq!(points(&history(&harness, "").await), Vec::<Value>::new());
        let client = harness.signed_in().await;
        harness
            .upstream
            .next(Script::Answer(json_answer(503, "{}")));
        client.send(sync()).await;
        client.send(sync()).await;
        ten_seconds(&harness, 3).await;
        let first = points(&history(&harness, "").await);
        let refused = harness.anonymous().send(sync()).await;
        assert_eq!(refused.status, 401);
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!(first[0]["at"], "2025-04-23T10:02:52Z");
        assert_eq!(first[0]["seconds"], 10);
        let requests = &first[0]["requests"];
        assert_eq!(requests["requests"], 3);
        assert_eq!(
            (&requests["refused"], &requests["failed"]),
            (&json!(0), &json!(1))
        );
        let (p50, p99) = (
            &requests["gateway_us"]["p50"],
            &requests["gateway_us"]["p99"],
        );
        assert!(p50.as_u64().unwrap() <= p99.as_u64().unwrap());
        assert_eq!(first[0]["upstream"]["responses"], 2);
        assert_eq!(
            (&first[0]["logins"], &first[0]["tokens"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(first[0]["refusals"], json!({}));
        ten_seconds(&harness, 4).await;
        let two = points(&history(&harness, "").await);
        assert_eq!(two[0], first[0]);
        assert_eq!(two[1]["refusals"], json!({ "token_missing": 1 }));
        assert_eq!(two[1]["upstream"]["duration_us"], Value::Null);
        let later = history(&harness, "?after=2025-04-23T10:02:52Z").await;
        assert_eq!(points(&later), two[1..]);
        // Five minutes of the day are not over yet.
        assert!(points(&history(&harness, "?span=day").await).is_empty());
        harness.clock.advance(Duration::from_secs(300));
        let day = history(&harness, "?span=day").await;
        assert_eq!(day["interval_s"], 300);
        assert_eq!(points(&day)[0]["requests"]["requests"], 4);
        assert_eq!(points(&day)[0]["seconds"], 320);
    });
}

#[test]
fn each_route_and_each_server_has_its_own() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        client.send(sync()).await;
        client.send(Ask::post("/api/GetData").json("{}")).await;
        client.send(Ask::post("/api/GetData").json("{}")).await;
        client.send(Ask::get("/made-up-by-a-client")).await;
        ten_seconds(&harness, 5).await;
        let all = history(&harness, "").await;
        let names = |key: &str| -> Vec<String> {
            let names = all[key].as_array().unwrap().iter();
            names
                .map(|it| it["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let routes = ["/api/GetData", "/api/SyncData", "/api/getToken", "none"];
        assert_eq!(names("routes"), routes);
        assert_eq!(all["routes"][0]["requests"], 2);
        assert_eq!(all["routes"][3]["refused"], 1);
        let server = &names("servers")[0];
        let of_server = history(&harness, &format!("?server={server}")).await;
        assert_eq!(points(&of_server)[0]["upstream"]["responses"], 3);
        assert_eq!(points(&of_server)[0]["requests"], Value::Null);
        let of_route = history(&harness, "?route=/api/GetData").await;
        assert_eq!(points(&of_route)[0]["requests"]["requests"], 2);
        assert_eq!(points(&of_route)[0]["requests"]["bytes_in"], 4);
        let of_nobody = history(&harness, "?route=/nowhere").await;
        assert_eq!(points(&of_nobody)[0]["requests"], Value::Null);
    });
}

#[test]
fn it_is_on_the_socket_alone_and_understands_its_parameters_or_refuses() {
    run(async {
        let harness = harness();
        let over_tcp = harness.ask_admin_over_tcp(&Ask::get("/history")).await;
        assert_eq!(over_tcp.status, 404);
        let client = harness.signed_in().await;
        assert_eq!(client.send(Ask::get("/history")).await.status, 404);
        for (ask, status) in [
            (Ask::get("/history?span=year"), 400),
            (Ask::get("/history?after=yesterday"), 400),
            (Ask::get("/history?route=a&server=b"), 400),
            (Ask::post("/history").json("{}"), 405),
        ] {
            assert_eq!(
                harness.ask_admin(&ask).await.status,
                status,
                "{}",
                ask.target
            );
        }
    });
}
