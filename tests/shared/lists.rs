//! What operators and the backend are told of tokens, whichever gateway they ask.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use syncgate::store::Selection;
use toml::Value;

use crate::fleet::{Fleet, call, id, server, until};
use crate::redis::Redis;
use crate::support::{Answer, Ask, Client, Harness, run};

fn fleet(redis: &Redis) -> Fleet {
    let admin = [
        ("admin.socket", Value::from("admin.sock")),
        ("admin.listen", Value::from("127.0.0.1:0")),
    ];
    Fleet::with(&[server(&redis.address())], &admin)
}

async fn asked(gateway: &Harness, path: &str) -> Answer {
    gateway.ask_admin(&Ask::get(path)).await
}

/// The ids that a gateway lists with this query, page by page.
async fn listed(gateway: &Harness, query: &str) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let answer = asked(gateway, &format!("/tokens?{query}{after}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        for token in page["tokens"].as_array().unwrap() {
            ids.push(token["id"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('+', "%2B")),
            None => return ids,
        }
    }
}

#[test]
fn every_gateway_lists_and_shows_the_tokens_of_all() {
    run(async {
        let redis = Redis::start();
        let fleet = fleet(&redis);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "till-01").await;
        }
        fleet.end(0, Selection::All).await;
        let mut clients = Vec::new();
        for number in 0..9 {
            let name = ["till-01", "shop-02"][number % 2];
            clients.push((name, fleet.gateways[number % 2].signed_in_as(name).await));
        }
        let ids = |of: &str| -> BTreeSet<String> {
            let of = clients.iter().filter(|(name, _)| name.starts_with(of));
            of.map(|(_, client)| id(client).to_string()).collect()
        };
        // The last of the gateways has seen none of them.
        for gateway in &fleet.gateways {
            for limit in [1, 2, 5, 100] {
                for (user, of) in [
                    ("", ""),
                    ("&user=till-01", "till-01"),
                    ("&user=shop-02", "shop-02"),
                ] {
                    let found = listed(gateway, &format!("limit={limit}{user}")).await;
                    let distinct: BTreeSet<_> = found.iter().cloned().collect();
                    assert_eq!(found.len(), distinct.len(), "{limit}{user}");
                    assert_eq!(distinct, ids(of), "{limit}{user}");
                }
            }
            assert!(listed(gateway, "user=nobody").await.is_empty());
        }
        let client = &clients[0].1;
        let path = format!("/tokens/{}", id(client));
        assert_eq!(call(client).await.status, 200);
        let here = asked(&fleet.gateways[0], &path).await.json();
        assert_eq!(
            (&here["user"], &here["requests"]),
            (&"till-01".into(), &1.into())
        );
        let mut there = asked(&fleet.gateways[2], &path).await.json();
        assert_eq!(
            (&there["last_used"], &there["requests"]),
            (&().into(), &0.into())
        );
        there["last_used"] = here["last_used"].clone();
        there["requests"] = here["requests"].clone();
        assert_eq!(there, here, "all else is known everywhere");

        assert_eq!(fleet.end(1, Selection::One(id(client))).await, 1);
        for gateway in &fleet.gateways {
            assert_eq!(asked(gateway, &path).await.status, 404);
            assert!(!listed(gateway, "").await.contains(&id(client).to_string()));
        }
    });
}

#[test]
fn a_list_that_cannot_be_whole_is_refused() {
    run(async {
        let mut redis = Redis::start();
        let fleet = fleet(&redis);
        let client = fleet.signed_in(0, "till-01").await;
        let gateway = &fleet.gateways[0];
        let answer = asked(gateway, "/tokens?after=0123456789abcdef0123").await;
        assert_eq!(answer.status, 400, "a place in a list of another kind");
        redis.kill();
        let show = format!("/tokens/{}", id(&client));
        for path in ["/tokens", "/tokens?user=till-01", &show] {
            until("an answer that says so", async || {
                let answer = asked(gateway, path).await;
                answer.status == 503 && answer.text().contains("The token store cannot be reached")
            })
            .await;
        }
        assert_eq!(call(&client).await.status, 200, "known here all the same");
        let said = tokens_list(gateway);
        assert_eq!((said.status.code(), &*said.stdout), (Some(1), &b""[..]));
        let text = String::from_utf8(said.stderr).unwrap();
        assert!(
            text.contains("503 The token store cannot be reached"),
            "{text}"
        );
    });
}

fn tokens_list(gateway: &Harness) -> Output {
    let config = gateway.files().directory().join("config.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncgate"));
    command.args(["tokens", "list", "--config"]).arg(config);
    tokio::task::block_in_place(|| command.output()).unwrap()
}

#[test]
fn the_backend_is_told_of_tokens_of_other_gateways() {
    run(async {
        let redis = Redis::start();
        let directory = tempfile::tempdir().unwrap();
        let secret = "hunter2-introspection-0123456789abcdef";
        let path = directory.path().join("introspection.secret");
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let admin = [
            ("admin.listen", Value::from("127.0.0.1:0")),
            (
                "admin.introspection_secret_file",
                Value::from(path.display().to_string()),
            ),
        ];
        let fleet = Fleet::with(&[server(&redis.address())], &admin);
        fleet.logs_in(1, "shop-02").await;
        let client = fleet.signed_in(0, "till-01").await;
        let about = |client: &Client| {
            let token = client.token.as_ref().unwrap().secret();
            let token = token.replace('+', "%2B").replace('/', "%2F");
            Ask::post("/introspect")
                .field("Content-Type", "application/x-www-form-urlencoded")
                .field("Authorization", &format!("Bearer {secret}"))
                .sized(format!("token={token}"))
        };
        let told = fleet.gateways[1].ask_admin_over_tcp(&about(&client)).await;
        assert_eq!(told.json()["username"], "till-01", "{told:?}");
        fleet.end(0, Selection::One(id(&client))).await;
        until("that it has ended", async || {
            let told = fleet.gateways[1].ask_admin_over_tcp(&about(&client)).await;
            told.status == 200 && told.json()["active"] == false
        })
        .await;
    });
}
