//! Several upstreams, and several servers of one: which is chosen, and what becomes of one that fails.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use syncgate::upstream::Resolver;

use crate::support::harness::Files;
use crate::support::upstream::json;
use crate::support::{Answer, Ask, Client, Harness, Script, Stage, Upstream, run, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// A gateway before these servers, each with the rest of its line; `more` are further lines of `[upstream]`.
fn before(servers: &[(&str, &str)], more: &str) -> Harness {
    Harness::start(|files| configure(files, servers, more))
}

fn configure(files: &mut Files, servers: &[(&str, &str)], more: &str) {
    let servers: Vec<String> = servers
        .iter()
        .map(|(url, rest)| format!("{{ url = \"{url}\"{rest} }}"))
        .collect();
    let lines = format!("servers = [{}]\n{more}", servers.join(", "));
    files.section("upstream", &lines);
    files.set("admin.socket", "admin.sock");
}

/// The state of a server of the upstream `default`, and why.
async fn state(harness: &Harness, server: &str) -> (String, String) {
    let shown = harness.ask_admin(&Ask::get("/upstreams")).await.json();
    let servers = shown["upstreams"][0]["servers"].as_array().unwrap().clone();
    let found = servers.iter().find(|it| it["name"] == server);
    let text = |key: &str| found.unwrap()[key].as_str().unwrap().to_owned();
    (text("state"), text("reason"))
}

async fn until_state(harness: &Harness, server: &str, expected: &str) -> String {
    within(expected, async {
        loop {
            let (state, reason) = state(harness, server).await;
            if state == expected {
                return reason;
            }
        }
    })
    .await
}

async fn set(harness: &Harness, action: &str, server: &str) -> Answer {
    let body = format!("{{\"upstream\":\"default\",\"server\":\"{server}\"}}");
    let ask = Ask::post(&format!("/upstreams/{action}")).json(body);
    harness.ask_admin(&ask).await
}

/// Sends so many requests, one after the other, all of which are answered.
async fn assert_served(client: &Client, count: usize) {
    let mut connection = client.connect().await;
    for number in 0..count {
        let answer = connection.exchange(&client.with_token(sync())).await;
        assert_eq!(answer.status, 200, "request {number}: {answer:?}");
    }
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("5"));
    let proxy_status = answer.header("proxy-status").unwrap();
    assert!(
        proxy_status.contains("error=destination_unavailable"),
        "{proxy_status}"
    );
}

#[test]
fn each_route_leads_to_its_upstream() {
    run(async {
        let other = Upstream::tcp();
        let harness = Harness::start(|files| {
            files.section("upstreams", &format!("reports.url = \"{}\"", other.url()));
            files.routes(&[
                "path = \"/api/SyncData\"",
                "path = \"/api/GetData\"\nupstream = \"reports\"",
            ]);
        });
        let client = harness.signed_in().await;
        assert_eq!(client.post("/api/GetData", "{}").await.status, 200);
        let seen = other.whole(1).await.head;
        assert_eq!(seen.start, "POST /api/GetData HTTP/1.1");
        assert_eq!(seen.field("host"), Some(&*other.address().to_string()));
        assert_eq!(harness.upstream.requests(), 0);
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!((other.requests(), harness.upstream.requests()), (1, 1));
    });
}

#[test]
fn requests_are_shared_by_weight() {
    run(async {
        let (large, small) = (Upstream::tcp(), Upstream::tcp());
        let servers = [
            (large.url(), ", weight = 20"),
            (small.url(), ", weight = 1"),
        ];
        let harness = before(&servers, "");
        let client = harness.signed_in().await;
        // Not exactly, by chance; nor while one of them happens to be slower.
        within("more requests at the larger one", async {
            let mut before = (0, 0);
            loop {
                assert_served(&client, 100).await;
                let now = (large.requests(), small.requests());
                assert_eq!(now.0 + now.1, before.0 + before.1 + 100);
                if now.0 - before.0 > 5 * (now.1 - before.1) {
                    return;
                }
                before = now;
            }
        })
        .await;
    });
}

#[test]
fn a_server_that_is_busy_gets_no_request_while_another_is_idle() {
    run(async {
        let (busy, idle) = (Upstream::tcp(), Upstream::tcp());
        let names = [busy.address().to_string(), idle.address().to_string()];
        let servers = [(busy.url(), ""), (idle.url(), "")];
        let harness = before(&servers, "ejection.slow_start = \"0s\"");
        let client = harness.signed_in().await;
        assert_eq!(set(&harness, "drain", &names[1]).await.status, 200);
        busy.next(Script::Stall(Stage::BeforeResponse));
        let mut first = client.connect().await;
        first.send(&client.with_token(sync())).await;
        busy.stalled(1).await;
        assert_eq!(set(&harness, "enable", &names[1]).await.status, 200);
        assert_served(&client, 30).await;
        assert_eq!((busy.requests(), idle.requests()), (1, 30));
        busy.release();
        assert_eq!(first.answer().await.status, 200);
    });
}

#[test]
fn a_server_that_is_not_there_costs_no_request_and_is_ejected() {
    run(async {
        let (nobody, server) = (Upstream::nobody(), Upstream::tcp());
        let url = format!("http://{nobody}");
        let harness = before(&[(&url, ""), (server.url(), "")], "ejection.failures = 2");
        let client = harness.signed_in().await;
        let nobody = nobody.to_string();
        within("the ejection", async {
            while state(&harness, &nobody).await.0 != "ejected" {
                assert_served(&client, 5).await;
            }
        })
        .await;
        let (_, reason) = state(&harness, &nobody).await;
        assert_eq!(
            reason,
            "2 requests failed in a row, the last because it cannot be reached"
        );
        // Each request names the server that it reaches.
        let host = server.address().to_string();
        for number in 1..=server.requests() {
            assert_eq!(server.whole(number).await.head.field("host"), Some(&*host));
        }
        let health = harness.ask_admin(&Ask::get("/health")).await.json();
        assert_eq!(
            health["upstreams"],
            serde_json::json!([{ "name": "default", "available": 1, "servers": 2 }])
        );
    });
}

#[test]
fn what_one_worker_finds_out_all_of_them_know() {
    run(async {
        let (nobody, server) = (Upstream::nobody(), Upstream::tcp());
        let url = format!("http://{nobody}");
        let harness = Harness::start(|files| {
            configure(
                files,
                &[(&url, ""), (server.url(), "")],
                "ejection.failures = 6",
            );
            files.set("listen.workers", 3);
        });
        let client = harness.signed_in().await;
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(client.connect().await);
        }
        within("the ejection", async {
            while state(&harness, &nobody.to_string()).await.0 != "ejected" {
                for connection in &mut connections {
                    let answer = connection.exchange(&client.with_token(sync())).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            }
        })
        .await;
        let (_, reason) = state(&harness, &nobody.to_string()).await;
        assert!(reason.starts_with("6 requests failed in a row"), "{reason}");
    });
}

#[test]
fn a_server_that_dies_and_comes_back_gets_requests_again() {
    run(async {
        let (dying, other) = (Upstream::tcp(), Upstream::tcp());
        let address = dying.address();
        let servers = [(dying.url(), ""), (other.url(), "")];
        let harness = before(&servers, "ejection.failures = 1");
        let client = harness.signed_in().await;
        within("requests at both", async {
            while dying.requests() == 0 || other.requests() == 0 {
                assert_served(&client, 5).await;
            }
        })
        .await;
        drop(dying);
        within("the ejection", async {
            while state(&harness, &address.to_string()).await.0 != "ejected" {
                assert_served(&client, 5).await;
            }
        })
        .await;
        let revived = Upstream::revived(address);
        harness.clock.advance(Duration::from_secs(9));
        assert_served(&client, 20).await;
        assert_eq!(revived.requests(), 0, "its ejection lasts 10 s");
        harness.clock.advance(Duration::from_secs(1));
        until_state(&harness, &address.to_string(), "recovering").await;
        harness.clock.advance(Duration::from_secs(10));
        until_state(&harness, &address.to_string(), "up").await;
        within("a request at the revived server", async {
            while revived.requests() == 0 {
                assert_served(&client, 5).await;
            }
        })
        .await;
    });
}

#[test]
fn a_server_that_dies_again_on_probation_is_ejected_for_longer() {
    run(async {
        let (nobody, server) = (Upstream::nobody(), Upstream::tcp());
        let url = format!("http://{nobody}");
        let harness = before(&[(&url, ""), (server.url(), "")], "ejection.failures = 3");
        let client = harness.signed_in().await;
        let nobody = nobody.to_string();
        for (seconds, reason) in [(10, "3 requests"), (20, "a request")] {
            within("the ejection", async {
                while state(&harness, &nobody).await.0 != "ejected" {
                    // Towards the end of the slow start it gets many, but the clock stands still.
                    assert_served(&client, 5).await;
                }
            })
            .await;
            let (_, why) = state(&harness, &nobody).await;
            assert!(why.starts_with(reason), "{why}");
            harness.clock.advance(Duration::from_secs(seconds));
            until_state(&harness, &nobody, "recovering").await;
            harness.clock.advance(Duration::from_secs(9));
        }
    });
}

#[test]
fn a_backup_gets_requests_only_while_no_other_is_available() {
    run(async {
        let (usual, backup) = (Upstream::tcp(), Upstream::tcp());
        let name = usual.address().to_string();
        let servers = [(usual.url(), ""), (backup.url(), ", backup = true")];
        let harness = before(&servers, "");
        let client = harness.signed_in().await;
        assert_served(&client, 10).await;
        assert_eq!((usual.requests(), backup.requests()), (10, 0));
        set(&harness, "drain", &name).await;
        assert_served(&client, 10).await;
        assert_eq!((usual.requests(), backup.requests()), (10, 10));
        set(&harness, "enable", &name).await;
        assert_served(&client, 10).await;
        assert_eq!((usual.requests(), backup.requests()), (20, 10));
    });
}

#[test]
fn the_requests_of_a_user_stay_on_one_server_while_it_is_there() {
    run(async {
        let all = [Upstream::tcp(), Upstream::tcp(), Upstream::tcp()];
        let servers = all.each_ref().map(|it| (it.url(), ""));
        let more = "sticky = \"user\"\nejection.slow_start = \"0s\"";
        let harness = before(&servers, more);
        let client = harness.signed_in().await;
        let counts = || all.each_ref().map(Upstream::requests);
        assert_served(&client, 10).await;
        let home = counts().iter().position(|count| *count == 10).unwrap();
        let name = all[home].address().to_string();
        set(&harness, "drain", &name).await;
        assert_served(&client, 10).await;
        let away = (0..3).find(|&it| it != home && counts()[it] == 10);
        assert!(away.is_some(), "{:?}", counts());
        set(&harness, "enable", &name).await;
        assert_served(&client, 10).await;
        assert_eq!(counts()[home], 20);
    });
}

#[test]
fn when_checks_find_every_server_down_requests_are_503_at_once() {
    run(async {
        let server = Upstream::tcp();
        server.always(Script::Answer(json(500, "{}")));
        let more =
            "check.path = \"/health?deep=1\"\ncheck.interval = \"10ms\"\ncheck.jitter = \"5ms\"";
        let harness = before(&[(server.url(), "")], more);
        let name = server.address().to_string();
        let reason = until_state(&harness, &name, "down").await;
        assert_eq!(reason, "the health check failed: it responded 500");
        let check = server.whole(1).await.head;
        assert_eq!(check.start, "GET /health?deep=1 HTTP/1.1");
        assert_eq!(check.field("host"), Some(&*name));
        let client = harness.signed_in().await;
        assert_unavailable(&client.send(sync()).await);
        let mut http2 = client.connect_h2().await;
        assert_unavailable(&http2.exchange(&client.with_token(sync())).await);
        server.always(Script::Echo);
        let reason = until_state(&harness, &name, "recovering").await;
        assert_eq!(reason, "the health check succeeds");
        assert_served(&client, 1).await;
    });
}

#[test]
fn a_check_that_hangs_or_breaks_takes_a_server_down() {
    run(async {
        for (script, timeout, expected) in [
            (
                Script::Stall(Stage::BeforeResponse),
                "50ms",
                "no response within 50ms",
            ),
            (
                Script::Close(Stage::BeforeResponse),
                "1m",
                "it closed the connection",
            ),
            (
                Script::Answer(b"HTP/1.1 200\r\n\r\n".to_vec()),
                "1m",
                "its response is malformed",
            ),
        ] {
            let server = Upstream::tcp();
            server.always(script);
            let more = format!(
                "check.path = \"/\"\ncheck.interval = \"10ms\"\ncheck.timeout = \"{timeout}\""
            );
            let harness = before(&[(server.url(), "")], &more);
            let reason = until_state(&harness, &server.address().to_string(), "down").await;
            assert!(reason.contains(expected), "{reason}");
        }
    });
}

#[test]
fn servers_that_respond_503_are_ejected_but_never_all_of_them() {
    run(async {
        let all = [Upstream::tcp(), Upstream::tcp()];
        let full = json(503, "{}");
        all.iter()
            .for_each(|it| it.always(Script::Answer(full.clone())));
        let servers = all.each_ref().map(|it| (it.url(), ""));
        let harness = before(
            &servers,
            "ejection.failures = 2\nejection.max_ejected = \"100%\"",
        );
        let client = harness.signed_in().await;
        for _ in 0..20 {
            let answer = client.send(sync()).await;
            assert_eq!(answer.status, 503, "the backend's own");
            assert_eq!(answer.header("proxy-status"), None);
        }
        let mut states = Vec::new();
        for server in &all {
            states.push(state(&harness, &server.address().to_string()).await.0);
        }
        states.sort();
        assert_eq!(states, ["ejected", "up"]);
    });
}

#[test]
fn a_single_server_without_checks_is_never_taken_away() {
    run(async {
        let address = Upstream::nobody();
        let url = format!("http://{address}");
        let more = "ejection.failures = 1\nejection.max_ejected = \"100%\"";
        let harness = before(&[(&url, "")], more);
        let client = harness.signed_in().await;
        for _ in 0..5 {
            assert_eq!(client.send(sync()).await.status, 502);
        }
        assert_eq!(state(&harness, &address.to_string()).await.0, "up");
        let server = Upstream::revived(address);
        assert_served(&client, 1).await;
        assert_eq!(server.requests(), 1);
    });
}

/// How many requests failed at a server since the last that succeeded, as it is shown.
async fn failing(harness: &Harness, server: &str) -> u64 {
    let shown = harness.ask_admin(&Ask::get("/upstreams")).await.json();
    let servers = shown["upstreams"][0]["servers"].as_array().unwrap();
    let found = servers.iter().find(|it| it["name"] == server);
    found.unwrap()["failing"].as_u64().unwrap()
}

#[test]
fn what_fails_at_a_single_server_is_shown() {
    run(async {
        let address = Upstream::nobody();
        let harness = before(&[(&format!("http://{address}"), "")], "");
        let client = harness.signed_in().await;
        for count in 0..3 {
            assert_eq!(failing(&harness, &address.to_string()).await, count);
            assert_eq!(client.send(sync()).await.status, 502);
        }
        let _revived = Upstream::revived(address);
        assert_served(&client, 1).await;
        assert_eq!(failing(&harness, &address.to_string()).await, 0);
    });
}

#[test]
fn requests_that_fail_at_a_single_server_take_it_down_if_checks_can_bring_it_back() {
    run(async {
        let server = Upstream::tcp();
        server.always(Script::Answer(json(503, "{}")));
        // The check succeeds all the while, but is made only once.
        let more = "check.path = \"/\"\ncheck.status = [503]\ncheck.interval = \"1h\"\n\
            check.fall = 2\nejection.failures = 3";
        let harness = before(&[(server.url(), "")], more);
        let name = server.address().to_string();
        server.whole(1).await;
        let client = harness.signed_in().await;
        within("the server to be down", async {
            while state(&harness, &name).await.0 != "down" {
                assert_eq!(client.send(sync()).await.status, 503);
            }
        })
        .await;
        let (_, reason) = state(&harness, &name).await;
        assert!(
            reason.starts_with("the health check failed: ")
                && reason.ends_with("requests failed in a row, the last because it responded 503"),
            "{reason}"
        );
        let before = server.requests();
        assert_unavailable(&client.send(sync()).await);
        assert_eq!(server.requests(), before);
    });
}

// The ejection of a server was over as soon as the clock of the machine was set, either way.
#[test]
fn the_time_of_day_changes_no_server_s_state() {
    run(async {
        let (nobody, server) = (Upstream::nobody(), Upstream::tcp());
        let url = format!("http://{nobody}");
        let harness = before(&[(&url, ""), (server.url(), "")], "ejection.failures = 1");
        let client = harness.signed_in().await;
        let nobody = nobody.to_string();
        within("the ejection", async {
            while state(&harness, &nobody).await.0 != "ejected" {
                assert_served(&client, 5).await;
            }
        })
        .await;
        for hours in [1, -1] {
            let now = harness.clock.now().timestamp();
            harness
                .clock
                .set(now + jiff::SignedDuration::from_hours(hours));
            for _ in 0..50 {
                assert_eq!(state(&harness, &nobody).await.0, "ejected");
            }
        }
        harness.clock.advance(Duration::from_secs(10));
        until_state(&harness, &nobody, "recovering").await;
    });
}

#[test]
fn a_server_that_hangs_loses_only_the_requests_in_flight_there() {
    run(async {
        let (hanging, other) = (Upstream::tcp(), Upstream::tcp());
        hanging.always(Script::Stall(Stage::BeforeResponse));
        let servers = [(hanging.url(), ""), (other.url(), "")];
        let more = "response_timeout = \"200ms\"\nejection.failures = 1";
        let harness = before(&servers, more);
        let client = harness.signed_in().await;
        let name = hanging.address().to_string();
        let mut lost = 0;
        within("the ejection", async {
            while state(&harness, &name).await.0 != "ejected" {
                let answer = client.send(sync()).await;
                lost += usize::from(answer.status == 504);
                assert!(matches!(answer.status, 200 | 504), "{answer:?}");
            }
        })
        .await;
        assert_eq!((lost, hanging.requests()), (1, 1));
        assert_served(&client, 10).await;
        assert_eq!(
            hanging.requests(),
            1,
            "a request is not sent to a second server"
        );
    });
}

#[test]
fn a_drained_server_finishes_what_it_has() {
    run(async {
        let (drained, other) = (Upstream::tcp(), Upstream::tcp());
        let name = drained.address().to_string();
        let servers = [(drained.url(), ""), (other.url(), ", backup = true")];
        let harness = before(&servers, "");
        let client = harness.signed_in().await;
        drained.next(Script::Stall(Stage::MidResponseBody));
        let mut first = client.connect().await;
        first.send(&client.with_token(sync())).await;
        drained.stalled(1).await;
        let shown: Value = set(&harness, "drain", &name).await.json();
        assert_eq!(shown["upstreams"][0]["servers"][0]["state"], "drained");
        assert_eq!(shown["upstreams"][0]["servers"][0]["in_flight"], 1);
        assert_served(&client, 3).await;
        assert_eq!((drained.requests(), other.requests()), (1, 3));
        drained.release();
        assert_eq!(first.answer().await.status, 200);
        set(&harness, "drain", &other.address().to_string()).await;
        assert_unavailable(&client.send(sync()).await);
    });
}

/// What names lead to, for tests to change.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    fn lead_to(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    /// A gateway before `http://erp.test`, which leads to these.
    fn gateway(&self, more: &str) -> Harness {
        let names = self.clone();
        let resolver = Resolver::asking(move |host, port| {
            assert_eq!((host, port), ("erp.test", 81));
            match &**names.0.lock().unwrap() {
                [] => Err(std::io::Error::other("no such host")),
                addresses => Ok(addresses.to_vec()),
            }
        });
        Harness::with_names(resolver, |files| {
            configure(files, &[("http://erp.test:81", "")], more);
        })
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_and_old_connections_are_closed() {
    run(async {
        let (old, new) = (Upstream::tcp(), Upstream::tcp());
        let names = Names::default();
        names.lead_to(&[old.address()]);
        let harness = names.gateway("resolve = \"1s\"");
        let client = harness.signed_in().await;
        assert_served(&client, 2).await;
        assert_eq!(old.whole(1).await.head.field("host"), Some("erp.test:81"));
        names.lead_to(&[new.address()]);
        old.closed(1).await;
        assert_served(&client, 2).await;
        assert_eq!((old.requests(), new.requests()), (2, 2));
        // What cannot be resolved any more stays where it was.
        names.lead_to(&[]);
        assert_served(&client, 2).await;
    });
}

#[test]
fn of_several_addresses_all_are_used_and_a_dead_one_costs_nothing() {
    run(async {
        let (one, other, dead) = (Upstream::tcp(), Upstream::tcp(), Upstream::nobody());
        let names = Names::default();
        names.lead_to(&[dead, one.address(), other.address()]);
        // Without idle connections each request opens one.
        let harness = names.gateway("max_idle = 0");
        assert_served(&harness.signed_in().await, 12).await;
        assert!(one.requests() >= 4 && other.requests() >= 4);
        assert_eq!(one.requests() + other.requests(), 12);
    });
}

#[test]
fn a_name_that_cannot_be_resolved_is_a_502_until_it_can() {
    run(async {
        let (server, names) = (Upstream::tcp(), Names::default());
        let harness = names.gateway("");
        let client = harness.signed_in().await;
        let answer = client.send(sync()).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        let proxy_status = answer.header("proxy-status").unwrap();
        assert!(
            proxy_status.contains("error=destination_unavailable"),
            "{proxy_status}"
        );
        names.lead_to(&[server.address()]);
        within("the name to be resolved", async {
            while client.send(sync()).await.status != 200 {}
        })
        .await;
        let shown = harness.ask_admin(&Ask::get("/upstreams")).await.json();
        let addresses = &shown["upstreams"][0]["servers"][0]["addresses"];
        assert_eq!(
            *addresses,
            serde_json::json!([server.address().to_string()])
        );
    });
}

#[test]
fn only_the_unix_socket_shows_and_changes_servers() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("admin.listen", "127.0.0.1:0");
            files.set("admin.socket", "admin.sock");
        });
        let name = harness.upstream.address().to_string();
        let body = format!("{{\"upstream\":\"default\",\"server\":\"{name}\"}}");
        for ask in [
            Ask::get("/upstreams"),
            Ask::post("/upstreams/drain").json(&*body),
            Ask::post("/upstreams/enable").json(&*body),
        ] {
            assert_eq!(harness.ask_admin_over_tcp(&ask).await.status, 404);
        }
        for (body, status) in [
            ("{\"upstream\":\"default\",\"server\":\"x\"}", 404),
            ("{\"upstream\":\"x\",\"server\":\"x\"}", 404),
            ("{\"server\":\"x\"}", 400),
            ("", 400),
        ] {
            let ask = Ask::post("/upstreams/drain").json(body);
            assert_eq!(harness.ask_admin(&ask).await.status, status, "{body}");
        }
        let plain = Ask::post("/upstreams/drain").sized(&*body);
        assert_eq!(harness.ask_admin(&plain).await.status, 415);
        assert_eq!(state(&harness, &name).await.0, "up");
    });
}

/// Waits until so many requests wait for a server.
async fn until_waiting(harness: &Harness, count: usize) {
    within("requests in the queue", async {
        loop {
            let shown = harness.ask_admin(&Ask::get("/upstreams")).await.json();
            if shown["upstreams"][0]["waiting"] == count {
                return;
            }
        }
    })
    .await;
}

fn limited(more: &str) -> Harness {
    let harness = Harness::start(|files| {
        files.set("upstream.max_requests", 1);
        files.set("listen.workers", 2);
        files.set("admin.socket", "admin.sock");
        for line in more.lines() {
            let (key, value) = line.split_once(" = ").unwrap();
            let value: toml::Table = format!("it = {value}").parse().unwrap();
            files.set(key, value["it"].clone());
        }
    });
    harness
        .upstream
        .always(Script::Stall(Stage::BeforeResponse));
    harness
}

#[test]
fn users_take_turns_for_a_server_that_is_full() {
    run(async {
        let harness = limited("");
        let (one, other) = (
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        );
        let asks = [
            (&one, "1a"),
            (&one, "1b"),
            (&one, "1c"),
            (&other, "2a"),
            (&other, "2b"),
        ];
        let mut connections = Vec::new();
        for (number, (client, body)) in asks.into_iter().enumerate() {
            let mut connection = client.connect().await;
            let ask = Ask::post("/api/SyncData").json(body);
            connection.send(&client.with_token(ask)).await;
            match number {
                0 => harness.upstream.stalled(1).await,
                _ => until_waiting(&harness, number).await,
            }
            connections.push(connection);
        }
        assert_eq!(harness.upstream.requests(), 1);
        let mut order = Vec::new();
        for number in 1..=5 {
            harness.upstream.stalled(number).await;
            let seen = harness.upstream.whole(number).await;
            order.push(String::from_utf8(seen.body).unwrap());
            assert_eq!(harness.upstream.requests(), number, "one at a time");
            harness.upstream.release();
        }
        assert_eq!(order, ["1a", "1b", "2a", "1c", "2b"]);
        for mut connection in connections {
            assert_eq!(connection.answer().await.status, 200);
        }
    });
}

#[test]
fn a_request_that_finds_the_queue_full_or_waits_too_long_is_503() {
    run(async {
        for more in ["upstream.queue = 0", "upstream.queue_wait = \"50ms\""] {
            let harness = limited(more);
            let client = harness.signed_in().await;
            let mut first = client.connect().await;
            first.send(&client.with_token(sync())).await;
            harness.upstream.stalled(1).await;
            let answer = client.send(sync()).await;
            assert_eq!(answer.status, 503, "{more}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            let proxy_status = answer.header("proxy-status").unwrap();
            assert!(
                proxy_status.contains("error=connection_limit_reached"),
                "{proxy_status}"
            );
            harness.upstream.release();
            assert_eq!(first.answer().await.status, 200);
            harness.upstream.always(Script::Echo);
            assert_served(&client, 2).await;
            assert_eq!(harness.upstream.requests(), 3);
        }
    });
}

#[test]
fn requests_that_wait_for_a_server_are_503_as_soon_as_there_is_none() {
    run(async {
        let harness = limited("upstream.queue_wait = \"1h\"");
        let client = harness.signed_in().await;
        let mut first = client.connect().await;
        first.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        let mut waiting = Vec::new();
        for number in 1..=2 {
            let mut connection = client.connect().await;
            connection.send(&client.with_token(sync())).await;
            until_waiting(&harness, number).await;
            waiting.push(connection);
        }
        set(&harness, "drain", &harness.upstream.address().to_string()).await;
        for mut connection in waiting {
            assert_unavailable(&connection.answer().await);
        }
        harness.upstream.release();
        assert_eq!(first.answer().await.status, 200);
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn whoever_leaves_the_queue_or_the_server_makes_room() {
    run(async {
        let harness = limited("");
        let client = harness.signed_in().await;
        let mut connections = Vec::new();
        for waiting in 0..3 {
            let mut connection = client.connect().await;
            connection.send(&client.with_token(sync())).await;
            match waiting {
                0 => harness.upstream.stalled(1).await,
                _ => until_waiting(&harness, waiting).await,
            }
            connections.push(connection);
        }
        // The second, which waits, and then the first, which is at the server.
        drop(connections.remove(1));
        until_waiting(&harness, 1).await;
        drop(connections.remove(0));
        harness.upstream.stalled(2).await;
        harness.upstream.release();
        harness.upstream.release();
        assert_eq!(connections.remove(0).answer().await.status, 200);
        assert_eq!(harness.upstream.requests(), 2);
    });
}
