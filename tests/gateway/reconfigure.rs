//! Another configuration while the gateway runs: it is in force as a whole from the next request on, or not at
//! all, and tokens, connections, counters and health stay.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::tls::Identity;
use crate::support::upstream::{Script, Stage, json};
use crate::support::{Ask, Child, Client, Harness, Upstream, refused, run, usually, within};

const RELOADED: &str = "the configuration was reloaded";

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// Somebody with the same token who connects to where the gateway listens now.
fn again(harness: &Harness, client: &Client) -> Client {
    Client {
        token: client.token.clone(),
        ..harness.anonymous()
    }
}

async fn status(client: &Client, target: &str) -> u16 {
    client.post(target, "{}").await.status
}

#[test]
fn routes_come_and_go_and_a_token_is_good_for_those_that_there_are() {
    run(async {
        let routes: [&[&str]; 3] = [
            &["path = \"/api/SyncData\""],
            &["path = \"/api/New\"", "path = \"/api/SyncData\""],
            &["path = \"/api/New\""],
        ];
        let mut harness = Harness::start(|files| files.routes(routes[0]));
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        for (routes, [old, new]) in routes.into_iter().zip([[200, 404], [200, 200], [404, 200]]) {
            let report = harness.reconfigure(|files| files.routes(routes));
            assert!(report.reloaded.contains(&RELOADED), "{report:?}");
            for (path, expected) in [("/api/SyncData", old), ("/api/New", new)] {
                let ask = client.with_token(Ask::post(path).json("{}"));
                let answer = connection.exchange(&ask).await;
                assert_eq!(answer.status, expected, "{path} of {routes:?}");
            }
        }
    });
}

/// Rights name routes: those of an account are compiled for the routes that there are.
#[test]
fn rights_go_by_the_routes_that_there_are() {
    run(async {
        let [a, b] = ["path = \"/api/A\"", "path = \"/api/B\""];
        let mut harness = Harness::start(|files| {
            files.routes(&[a, b]);
            files.users(&[("till-01", "allow = [{ route = \"/api/B\" }]")]);
        });
        let client = harness.signed_in().await;
        for routes in [[a, b], [b, a], [a, b]] {
            harness.reconfigure(|files| files.routes(&routes));
            assert_eq!(status(&client, "/api/A").await, 403, "{routes:?}");
            assert_eq!(status(&client, "/api/B").await, 200, "{routes:?}");
        }
        let before = harness.upstream.requests();
        let report = harness.reconfigure(|files| files.routes(&[a]));
        let reason = &report.refused.first().expect("a right without its route").1;
        assert!(reason.contains("users.toml"), "{reason}");
        assert_eq!(status(&client, "/api/B").await, 200);
        assert_eq!(harness.upstream.requests(), before + 1);
    });
}

#[test]
fn a_limit_holds_from_the_next_request_of_a_connection_on() {
    run(async {
        let mut harness = Harness::start(|files| files.set("limits.uri_size", "1KiB"));
        let client = harness.signed_in().await;
        let ask =
            client.with_token(Ask::post(&format!("/api/SyncData?{}", "x".repeat(2000))).json("{}"));
        for (limit, expected) in [("1KiB", 414), ("4KiB", 200), ("1KiB", 414)] {
            harness.reconfigure(|files| files.set("limits.uri_size", limit));
            let answer = client.connect().await.exchange(&ask).await;
            assert_eq!(answer.status, expected, "{limit}");
        }
        let mut connection = client.connect_h2().await;
        for (limit, expected) in [("1KiB", 414), ("4KiB", 200)] {
            harness.reconfigure(|files| files.set("limits.uri_size", limit));
            assert_eq!(connection.exchange(&ask).await.status, expected, "{limit}");
        }
    });
}

#[test]
fn a_backend_is_switched_and_what_is_in_flight_at_the_old_one_finishes() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut first = client.connect().await;
        first.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        let other = Upstream::tcp();
        let url = other.url().to_owned();
        harness.reconfigure(|files| files.set("upstream.url", &*url));
        assert_eq!(status(&client, "/api/SyncData").await, 200);
        assert_eq!((harness.upstream.requests(), other.requests()), (1, 1));
        harness.upstream.release();
        assert_eq!(first.answer().await.status, 200);
        let answer = first.exchange(&client.with_token(sync())).await;
        assert_eq!((answer.status, other.requests()), (200, 2));
        // Nothing leads there any more.
        harness.upstream.closed(1).await;
    });
}

#[test]
fn connections_to_a_backend_that_is_not_concerned_are_kept() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        for limit in ["1MiB", "2MiB", "3MiB"] {
            harness.reconfigure(|files| files.set("limits.uri_size", limit));
            assert_eq!(status(&client, "/api/SyncData").await, 200);
        }
        assert_eq!(harness.upstream.requests(), 3);
        assert_eq!(harness.upstream.connections(), 1);
    });
}

/// A connection of a client outlives many configurations, and must not keep what they named.
#[test]
fn a_server_that_is_not_named_any_more_is_checked_no_more_while_clients_stay() {
    run(async {
        let check = "path = \"/check\"\ninterval = \"20ms\"\njitter = \"0s\"";
        let mut harness = Harness::start(|files| files.set_table("upstream.check", check));
        let client = harness.signed_in().await;
        let mut http1 = client.connect().await;
        let mut http2 = client.connect_h2().await;
        let ask = client.with_token(sync());
        assert_eq!(http1.exchange(&ask).await.status, 200);
        assert_eq!(http2.exchange(&ask).await.status, 200);
        let other = Upstream::tcp();
        let url = other.url().to_owned();
        harness.reconfigure(|files| files.set("upstream.url", &*url));
        within("the end of the checks", async {
            loop {
                let before = harness.upstream.requests();
                other.seen(other.requests() + 10).await;
                if harness.upstream.requests() == before {
                    break;
                }
            }
        })
        .await;
        assert_eq!(http1.exchange(&ask).await.status, 200);
        assert_eq!(http2.exchange(&ask).await.status, 200);
    });
}

#[test]
fn a_server_that_was_drained_stays_so_when_the_settings_around_it_change() {
    run(async {
        let spare = Upstream::tcp();
        let servers = |harness: &Upstream, weight: u32| {
            format!(
                "servers = [{{ url = \"{}\", name = \"a\", weight = {weight} }}, \
                 {{ url = \"{}\", name = \"b\" }}]",
                harness.url(),
                spare.url()
            )
        };
        let upstream = Upstream::tcp();
        let lines = servers(&upstream, 1);
        let mut harness = Harness::with(upstream, |files| {
            files.section("upstream", &lines);
            files.set("admin.socket", "admin.sock");
        });
        let client = harness.signed_in().await;
        let named = "{\"upstream\":\"default\",\"server\":\"a\"}";
        let drain = Ask::post("/upstreams/drain").json(named);
        assert_eq!(harness.ask_admin(&drain).await.status, 200);
        for weight in [2, 3] {
            let lines = servers(&harness.upstream, weight);
            harness.reconfigure(|files| files.section("upstream", &lines));
            for _ in 0..5 {
                assert_eq!(status(&client, "/api/SyncData").await, 200);
            }
        }
        assert_eq!((harness.upstream.requests(), spare.requests()), (0, 10));
        let shown = harness.ask_admin(&Ask::get("/upstreams")).await.json();
        assert_eq!(shown["upstreams"][0]["servers"][0]["state"], "drained");
        let enable = Ask::post("/upstreams/enable").json(named);
        assert_eq!(harness.ask_admin(&enable).await.status, 200);
        while harness.upstream.requests() == 0 {
            assert_eq!(status(&client, "/api/SyncData").await, 200);
        }
    });
}

/// The limit of a server holds for the requests of both configurations together, and whoever waits is served.
#[test]
fn requests_in_flight_and_those_that_wait_are_counted_across_a_reload() {
    run(async {
        let mut harness = Harness::start(|files| files.set("upstream.max_requests", 1));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut first = client.connect().await;
        first.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        let mut second = client.connect().await;
        second.send(&client.with_token(sync())).await;
        harness.reconfigure(|files| files.set("upstream.queue", 50));
        let mut third = client.connect().await;
        third.send(&client.with_token(sync())).await;
        assert_eq!(harness.upstream.requests(), 1);
        harness.upstream.release();
        for connection in [&mut first, &mut second, &mut third] {
            assert_eq!(connection.answer().await.status, 200);
        }
        assert_eq!(harness.upstream.requests(), 3);
    });
}

#[test]
fn what_was_used_of_a_rate_stays_used() {
    run(async {
        let mut harness = Harness::start(|files| {
            files.routes(&[
                "path = \"/api/SyncData\"\nrate = \"1/1m\"",
                "path = \"/api/B\"",
            ]);
            files.set("quotas.user_rate", "3/1h");
            files.set("quotas.user_burst", 3);
        });
        let client = harness.signed_in().await;
        assert_eq!(status(&client, "/api/SyncData").await, 200);
        harness.reconfigure(|files| {
            files.routes(&[
                "path = \"/api/B\"",
                "path = \"/api/SyncData\"\nrate = \"1/1m\"",
            ]);
        });
        assert_eq!(status(&client, "/api/SyncData").await, 429, "the route's");
        assert_eq!(status(&client, "/api/B").await, 200);
        assert_eq!(status(&client, "/api/B").await, 429, "the user's");
        harness.clock.advance(Duration::from_secs(3600));
        assert_eq!(status(&client, "/api/SyncData").await, 200);
    });
}

#[test]
fn failed_logins_stay_counted_and_are_judged_by_the_new_limit() {
    run(async {
        let mut harness = Harness::start(|files| {
            files.set("login.failures", 3);
            files.set("login.delay", "10s");
        });
        let client = harness.anonymous();
        let wrong = || Ask::login("till-01", "hunter2-wrong");
        for _ in 0..2 {
            assert_eq!(client.send(wrong()).await.status, 401);
        }
        harness.reconfigure(|files| files.set("login.failures", 2));
        assert_eq!(client.send(wrong()).await.status, 429);
        harness.reconfigure(|files| files.set("login.delay", "0s"));
        assert_eq!(client.send(wrong()).await.status, 401);
    });
}

#[test]
fn tokens_keep_the_lifetime_they_were_issued_with_and_new_ones_have_the_new_one() {
    run(async {
        let mut harness = Harness::start(|files| {
            files.set("tokens.lifetime", "1h");
            files.set("tokens.per_user", 2);
        });
        let old = harness.signed_in().await;
        harness.reconfigure(|files| {
            files.set("tokens.lifetime", "10m");
            files.set("tokens.per_user", 1);
            files.set("tokens.on_limit", "refuse");
        });
        let login = || Ask::login("shop-02", "hunter2-shop-02");
        let short = harness.signed_in_as("shop-02").await;
        assert_eq!(harness.anonymous().send(login()).await.status, 429);
        harness.clock.advance(Duration::from_secs(11 * 60));
        assert_eq!(status(&old, "/api/SyncData").await, 200);
        assert_eq!(status(&short, "/api/SyncData").await, 401);
        harness.clock.advance(Duration::from_secs(50 * 60));
        assert_eq!(status(&old, "/api/SyncData").await, 401);
    });
}

#[test]
fn listeners_come_and_go_and_connections_outlive_theirs() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        assert_eq!(
            connection.exchange(&client.with_token(sync())).await.status,
            200
        );
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let (first, second) = (harness.secure_addresses()[0], free());
        let added = ["127.0.0.1:0".to_owned(), second.to_string()];
        let added: Vec<_> = added.iter().map(String::as_str).collect();
        harness.reconfigure(|files| files.set("listen.https", &*added));
        assert_eq!(harness.secure_addresses(), [first, second]);
        for address in [first, second] {
            let there = Client {
                address,
                ..again(&harness, &client)
            };
            assert_eq!(status(&there, "/api/SyncData").await, 200, "{address}");
        }
        harness.reconfigure(|files| {
            files.set("listen.https", &added[1..]);
            files.set("listen.http", &["127.0.0.1:0"][..]);
        });
        assert_eq!(harness.secure_addresses(), [second]);
        assert_eq!(
            status(&again(&harness, &client), "/api/SyncData").await,
            200
        );
        let plain = harness.in_the_clear();
        let redirected = plain.connect_plain().await.exchange(&Ask::get("/x")).await;
        let location = redirected.header("location").unwrap_or_default();
        assert!(
            location.contains(&format!(":{}/", second.port())),
            "{location}"
        );
        refused(first).await;
        // It was accepted before.
        let answer = connection.exchange(&client.with_token(sync())).await;
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn a_listener_begins_to_demand_proxy_headers() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        harness.reconfigure(|files| files.behind_proxy("listen.https"));
        let client = again(&harness, &client);
        let config = crate::support::tls::client(
            &client.trusted,
            &["http/1.1"],
            rustls::ALL_VERSIONS,
            crate::support::tls::provider(),
        );
        assert!(
            client.connect_with(config).await.is_err(),
            "without a PROXY header"
        );
    });
}

#[test]
fn more_connections_are_served_and_fewer() {
    run(async {
        let mut harness = Harness::start(|files| files.set("limits.connections", 2));
        let client = harness.signed_in().await;
        for limit in [2, 4, 1, 3] {
            harness.reconfigure(|files| files.set("limits.connections", limit));
            let mut open = Vec::new();
            for _ in 0..limit {
                let mut connection = client.connect().await;
                let answer = connection.exchange(&client.with_token(sync())).await;
                assert_eq!(answer.status, 200, "{limit}");
                open.push(connection);
            }
            assert_eq!(status(&client, "/api/SyncData").await, 503, "{limit}");
            drop(open);
            // The gateway hears of it in its own time.
            within("the end of a connection", async {
                while status(&client, "/api/SyncData").await == 503 {}
            })
            .await;
        }
    });
}

#[test]
fn other_certificates_are_shown_and_the_header_of_tls_follows() {
    run(async {
        let mut harness = Harness::usual();
        let other = Identity::new(&["other.test"]);
        other.write(harness.files().directory(), "other");
        let report = harness.reconfigure(|files| {
            files.certificates(&["other"]);
            files.set("tls.hsts", "max-age=5");
        });
        assert_eq!(report.refused, []);
        let client = Client {
            trusted: vec![other.certificate.clone()],
            name: "other.test".to_owned(),
            ..harness.anonymous()
        };
        let answer = client.post("/api/SyncData", "{}").await;
        assert_eq!(
            answer.header("strict-transport-security"),
            Some("max-age=5")
        );
    });
}

#[test]
fn another_account_file_ends_the_tokens_of_users_who_are_not_in_it() {
    run(async {
        for store in ["memory", "durable"] {
            let mut harness = Harness::start(|files| files.set("tokens.store", store));
            let (gone, stays) = (
                harness.signed_in().await,
                harness.signed_in_as("shop-02").await,
            );
            let directory = harness.files().directory().to_owned();
            let users = crate::support::harness::users_toml(&[("shop-02", "allow = \"*\"")]);
            crate::support::harness::write(&directory.join("others.toml"), &users, 0o600);
            harness.reconfigure(|files| files.set("accounts.file", "others.toml"));
            assert_eq!(status(&gone, "/api/SyncData").await, 401);
            assert_eq!(status(&stays, "/api/SyncData").await, 200);
            // The file that counts is the one that is watched.
            let both = [("shop-02", "allow = []"), ("till-01", "allow = \"*\"")];
            let users = crate::support::harness::users_toml(&both);
            crate::support::harness::write(&directory.join("others.toml"), &users, 0o600);
            harness.reload();
            assert_eq!(status(&gone, "/api/SyncData").await, 401, "for good");
            assert_eq!(status(&stays, "/api/SyncData").await, 403);
            harness.reconfigure(|files| files.set("accounts.file", "users.toml"));
            assert_eq!(status(&gone, "/api/SyncData").await, 401, "for good");
            assert_eq!(status(&stays, "/api/SyncData").await, 200);
        }
    });
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing_and_is_tried_until_it_can() {
    run(async {
        let mut harness = Harness::start(|files| files.set("limits.uri_size", "1KiB"));
        let client = harness.signed_in().await;
        let long = || Ask::post(&format!("/api/SyncData?{}", "x".repeat(2000))).json("{}");
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap().to_string();
        type Change = Box<dyn Fn(&mut crate::support::harness::Files)>;
        let broken: [(Change, Change, &str); 4] = [
            (
                Box::new(|files| files.set("limits.uri_sze", "1KiB")),
                Box::new(|files| files.remove("limits.uri_sze")),
                "did you mean `uri_size`?",
            ),
            (
                Box::new(|files| files.set("accounts.file", "nothing.toml")),
                Box::new(|files| files.set("accounts.file", "users.toml")),
                "nothing.toml",
            ),
            (
                Box::new(|files| files.certificates(&["server", "nothing"])),
                Box::new(|files| files.certificates(&["server"])),
                "nothing.pem",
            ),
            (
                Box::new(move |files| files.set("listen.https", &["127.0.0.1:0", &*taken][..])),
                Box::new(|files| files.set("listen.https", &["127.0.0.1:0"][..])),
                "cannot listen on",
            ),
        ];
        for (breaks, mends, expected) in broken {
            let report = harness.reconfigure(|files| {
                files.set("limits.uri_size", "4KiB");
                breaks(files);
            });
            let (what, reason) = report.refused.first().expect("refused");
            assert!(what.contains("the previous one stays in force"), "{what}");
            assert!(reason.contains(expected), "{reason}");
            let refused = harness.server().reload().refusals();
            assert!(
                refused.iter().any(|(_, it)| it.contains(expected)),
                "{refused:?}"
            );
            assert_eq!(client.send(long()).await.status, 414, "{expected}");
            let report = harness.reconfigure(|files| mends(files));
            assert_eq!(report.refused, [], "{expected}");
            assert_eq!(harness.server().reload().refusals(), []);
            assert_eq!(client.send(long()).await.status, 200, "{expected}");
            harness.reconfigure(|files| files.set("limits.uri_size", "1KiB"));
        }
        drop(held);
    });
}

#[test]
fn what_needs_a_restart_is_named_with_its_line_and_stays() {
    run(async {
        let mut harness = Harness::start(|files| files.set("admin.socket", "admin.sock"));
        let client = harness.signed_in().await;
        let ask = |dry_run: bool| Ask::post("/reload").json(format!("{{\"dry_run\":{dry_run}}}"));
        let nothing = harness.ask_admin(&ask(true)).await.json();
        assert_eq!(nothing["changes"].as_array().unwrap().len(), 0, "{nothing}");
        assert_eq!(nothing["warnings"], "", "{nothing}");
        harness.reconfigure(|_| {});
        let files = harness.files_mut();
        files.set("listen.workers", 2);
        files.set("tokens.store", "durable");
        files.set("limits.uri_size", "7KiB");
        let path = files.write();
        for dry_run in [true, false] {
            let answer = harness.ask_admin(&ask(dry_run)).await.json();
            let warnings = answer["warnings"].as_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            for (key, value) in [("listen.workers", "workers"), ("tokens.store", "store")] {
                let line = text
                    .lines()
                    .position(|line| line.starts_with(value))
                    .unwrap()
                    + 1;
                assert!(warnings.contains(key), "{warnings}");
                assert!(
                    warnings.contains(&format!("config.toml:{line}:")),
                    "{line}: {warnings}"
                );
            }
            assert!(warnings.contains("until a restart"), "{warnings}");
            assert_eq!(answer["refused"].as_array().unwrap().len(), 0, "{answer}");
        }
        assert_eq!(harness.server().loads().len(), 1);
        assert_eq!(status(&client, "/api/SyncData").await, 200);
        let long = Ask::post(&format!("/api/SyncData?{}", "x".repeat(7200))).json("{}");
        assert_eq!(client.send(long).await.status, 414, "the rest is in force");
        assert!(!harness.files().directory().join("tokens.redb").exists());
    });
}

#[test]
fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    run(async {
        let mut harness = Harness::start(|files| files.set("admin.socket", "admin.sock"));
        let client = harness.signed_in().await;
        // The watcher would take it over by itself.
        let preview = Ask::post("/reload").json("{\"dry_run\":true}");
        for body in ["", "{\"dry\":true}", "{\"dry_run\":1}"] {
            let answer = harness.ask_admin(&Ask::post("/reload").json(body)).await;
            assert_eq!(answer.status, 400, "{body}");
        }
        harness
            .files_mut()
            .routes(&["path = \"/api/New\"\nmax_body = \"1KiB\""]);
        // Also what only another file has to say of it.
        harness
            .files()
            .users(&[("till-01", "allow = [{ route = \"/api/SyncData\" }]")]);
        harness.reload();
        harness.files().write();
        let answer = harness.ask_admin(&preview).await.json();
        let reason = answer["refused"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("users.toml:"), "{reason}");
        harness.files_mut().set("limits.uri_size", "oops");
        harness.files().write();
        let answer = harness.ask_admin(&preview).await.json();
        let reason = answer["refused"][0]["reason"].as_str().unwrap();
        assert!(
            reason.contains("config.toml:") && reason.contains("oops"),
            "{reason}"
        );
        assert_eq!(status(&client, "/api/SyncData").await, 200);
        assert_eq!(status(&client, "/api/New").await, 404);
    });
}

#[test]
fn answers_tell_what_they_are_allowed_to() {
    usually(async |mut harness: Harness| {
        let refused = |harness: &Harness| {
            let client = harness.anonymous();
            async move {
                let answer = client.post("/api/SyncData", "{}").await;
                answer.header("proxy-status").unwrap_or_default().len()
            }
        };
        let told = refused(&harness).await;
        harness.reconfigure(|files| files.set("answers.detail", false));
        assert!(refused(&harness).await < told);
    });
}

/// Requests all the time, over kept connections and new ones, while the configuration changes and breaks.
#[test]
fn no_request_fails_and_no_token_is_lost_while_it_is_reloaded_again_and_again() {
    run(async {
        let spare = Upstream::tcp();
        let mut harness = Harness::start(|files| files.set("listen.workers", 2));
        let spare_url = spare.url().to_owned();
        let usual_url = harness.upstream.url().to_owned();
        harness.upstream.always(Script::Answer(json(200, "{}")));
        spare.always(Script::Answer(json(200, "{}")));
        let client = harness.signed_in().await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let load: Vec<_> = (0..4)
            .map(|number| {
                let (client, stopped) = (again(&harness, &client), stopped.clone());
                tokio::spawn(async move {
                    let mut connection = client.connect().await;
                    let mut sent = 0;
                    while !*stopped.borrow() {
                        if number % 2 == 0 {
                            connection = client.connect().await;
                        }
                        let answer = connection.exchange(&client.with_token(sync())).await;
                        assert_eq!(answer.status, 200, "{answer:?}");
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        for round in 0..50 {
            harness.reconfigure(|files| {
                files.set(
                    "upstream.url",
                    if round % 3 == 0 {
                        &*spare_url
                    } else {
                        &*usual_url
                    },
                );
                files.set("limits.connections", 100 + round);
                files.set("quotas.user_requests", 100 + round);
                files.set("accounts.file", "users.toml");
                let more = format!("path = \"/api/Route{round}\"");
                files.routes(&[&*more, "path = \"/api/SyncData\""]);
                if round % 2 == 1 {
                    files.set("accounts.file", "broken.toml");
                }
            });
            tokio::task::yield_now().await;
        }
        stop.send(true).unwrap();
        for task in load {
            assert!(task.await.unwrap() > 0);
        }
        assert!(harness.upstream.requests() > 0 && spare.requests() > 0);
    });
}

fn command(arguments: &[&str], config: &std::path::Path) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_syncgate"));
    command.args(arguments).arg("--config").arg(config);
    command.output().unwrap()
}

#[test]
fn the_command_shows_what_changes_and_a_changed_file_is_taken_by_itself() {
    run(async {
        let mut child = Child::start(|files| files.set("admin.socket", "admin.sock")).await;
        let client = child.signed_in().await;
        let config = child.files().directory().join("config.toml");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let same = command(&["reload", "--dry-run"], &config);
        assert!(same.status.success(), "{}", text(&same.stderr));
        assert!(
            text(&same.stdout).contains("No setting differs"),
            "{}",
            text(&same.stdout)
        );
        child.files_mut().set("limits.uri_size", "1KiB");
        child.files_mut().set("listen.workers", 3);
        child.files().write();
        let done = command(&["reload"], &config);
        let shown = text(&done.stdout);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(shown.contains("the configuration was reloaded"), "{shown}");
        assert!(shown.contains("`listen.workers` cannot change"), "{shown}");
        let long = Ask::post(&format!("/api/SyncData?{}", "x".repeat(2000))).json("{}");
        assert_eq!(client.send(long.clone()).await.status, 414);
        child.files_mut().set("limits.uri_size", "4KiB");
        child.files_mut().set("listen.workers", 1);
        child.files().write();
        child
            .until("the change in the log", |line| {
                (line.contains("limits.uri_size") && line.contains("-> \\\"4")).then_some(())
            })
            .await;
        assert_eq!(client.send(long.clone()).await.status, 200);
        child.files_mut().set("limits.uri_size", "oops");
        child.files().write();
        let broken = command(&["reload"], &config);
        assert_eq!(broken.status.code(), Some(64));
        assert!(
            text(&broken.stderr).contains("uri_size"),
            "{}",
            text(&broken.stderr)
        );
        child
            .until("the report in the log", |line| {
                line.contains("the previous one stays in force")
                    .then_some(())
            })
            .await;
        assert_eq!(client.send(long).await.status, 200);
    });
}

#[test]
fn a_confined_process_says_which_ports_it_cannot_use_and_uses_those_that_were_named() {
    run(async {
        let (named, other) = (Upstream::tcp(), Upstream::tcp());
        let port = |upstream: &Upstream| i64::from(upstream.address().port());
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let ports = [port(&named), i64::from(free.port())].map(toml::Value::Integer);
        let mut child = Child::start(|files| {
            files.set("process.reload_ports", toml::Value::Array(ports.to_vec()));
        })
        .await;
        let client = child.signed_in().await;
        let reload = |child: &Child| {
            child.files().write();
            child.signal(rustix::process::Signal::HUP);
        };
        child.files_mut().set("upstream.url", other.url());
        reload(&child);
        let refused = format!("cannot connect to port {}", port(&other));
        child
            .until("the refused port", |line| {
                line.contains(&refused).then_some(())
            })
            .await;
        child.files_mut().set("upstream.url", named.url());
        let address = free.to_string();
        child
            .files_mut()
            .set("listen.https", &["127.0.0.1:0", &*address][..]);
        reload(&child);
        child
            .until("the new configuration", |line| {
                line.contains("the configuration was reloaded")
                    .then_some(())
            })
            .await;
        let there = Client {
            address: free,
            token: client.token.clone(),
            ..child.anonymous()
        };
        assert_eq!(status(&there, "/api/SyncData").await, 200);
        assert_eq!((named.requests(), other.requests()), (1, 0));
    });
}

#[test]
fn a_pipe_in_the_place_of_the_configuration_is_refused_and_blocks_nobody() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let path = harness.files().write();
        let pipe = path.with_extension("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        std::fs::rename(&pipe, &path).unwrap();
        let report = harness.reload();
        let (_, reason) = report.refused.first().expect("refused");
        assert!(reason.contains("is not a file"), "{reason}");
        assert_eq!(status(&client, "/api/SyncData").await, 200);
        std::fs::remove_file(&path).unwrap();
        let report = harness.reconfigure(|files| files.set("limits.uri_size", "2KiB"));
        assert_eq!(report.refused, []);
    });
}

#[test]
fn the_level_of_the_log_changes_and_access_records_begin_and_end() {
    run(async {
        let mut child = Child::start(|files| files.set("log.access", false)).await;
        let client = child.signed_in().await;
        assert_eq!(client.send(Ask::get("/before")).await.status, 404);
        let reload = |child: &mut Child, level: &str, access: bool| {
            child.files_mut().set("log.level", level);
            child.files_mut().set("log.access", access);
            child.files().write();
            child.signal(rustix::process::Signal::HUP);
        };
        reload(&mut child, "debug", true);
        child
            .until("another level", |line| {
                line.contains("log.level").then_some(())
            })
            .await;
        // Before this there was no record of any request.
        assert_eq!(client.send(Ask::new("PUT", "/after")).await.status, 404);
        assert_eq!(child.access_record(1).await["method"], "PUT");
        let broken = tokio::net::TcpStream::connect(child.https).await.unwrap();
        drop(broken);
        child
            .until("a line of the new level", |line| {
                line.contains("TLS handshake failed").then_some(())
            })
            .await;
    });
}
