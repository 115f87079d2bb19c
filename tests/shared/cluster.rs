//! A cluster: its parts hold tokens together, fail, and are rearranged.

use std::process::Command;

use syncgate::store::Selection;
use toml::Value;

use crate::fleet::{Fleet, call, id, until, until_status};
use crate::redis::Redis;
use crate::support::harness::password;
use crate::support::tls::Identity;
use crate::support::{Ask, run};
use crate::topology::{ACL, Guard};

/// Three masters, and so many replicas for each.
pub struct Cluster {
    pub nodes: Vec<Redis>,
    /// What gateways have to say to be let in.
    guard: Option<Guard>,
}

impl Cluster {
    pub async fn start(replicas: usize) -> Self {
        Self::with(replicas, &[], None, None).await
    }

    /// One whose nodes know the gateways as a user with no more rights than it needs, over TLS where they
    /// have a certificate. Its names begin with `gate`.
    pub async fn guarded(replicas: usize, shown: Option<&Identity>) -> Self {
        let user = format!("--user {ACL} +cluster|slots +asking");
        let user: Vec<&str> = user.split(' ').filter(|word| !word.is_empty()).collect();
        Self::with(replicas, &user, shown, Some(Guard::new(shown))).await
    }

    /// The same, of which gateways trust another certificate.
    pub fn trusting(mut self, trusted: &Identity) -> Self {
        self.guard = Some(Guard::new(Some(trusted)));
        self
    }

    async fn with(
        replicas: usize,
        further: &[&str],
        shown: Option<&Identity>,
        guard: Option<Guard>,
    ) -> Self {
        let mut settings = further.to_vec();
        settings.extend([
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "{dir}/nodes.conf",
            "--cluster-node-timeout",
            "2000",
        ]);
        let nodes: Vec<Redis> = (0..3 + 3 * replicas)
            .map(|_| match shown {
                Some(shown) => Redis::over_tls(shown, &[&settings[..], &TLS_BUS].concat()),
                None => Redis::with(&settings),
            })
            .collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(Redis::address));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let created = create.output().unwrap();
        assert!(
            created.status.success(),
            "{}",
            String::from_utf8_lossy(&created.stdout)
        );
        let cluster = Self { nodes, guard };
        until("a cluster that agrees", async || {
            cluster.nodes.iter().all(|node| {
                let slots = node.tell(&["CLUSTER", "SLOTS"]);
                let known = cluster.nodes.iter();
                node.tell(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && known
                        .clone()
                        .all(|it| slots.contains(&format!(":{}\r\n", it.port)))
            })
        })
        .await;
        cluster
    }

    pub fn settings(&self) -> Vec<(&'static str, Value)> {
        let servers = [1, 0, 2].map(|node| self.nodes[node].address_for_gateways());
        let mut settings = vec![
            ("servers", Value::from(servers.to_vec())),
            ("mode", Value::from("cluster")),
            ("stale", Value::from("1h")),
        ];
        settings.extend(self.guard.iter().flat_map(Guard::settings));
        settings
    }

    /// The name that the nodes have for one of them.
    fn name(&self, node: usize) -> String {
        let answer = self.nodes[node].tell(&["CLUSTER", "MYID"]);
        answer.lines().nth(1).unwrap().to_owned()
    }

    /// The node that a key lies at, and the key's slot.
    fn place(&self, key: &str) -> (usize, String) {
        let answer = self.nodes[0].tell(&["CLUSTER", "KEYSLOT", key]);
        let slot = answer.trim_matches([':', '\r', '\n']).to_owned();
        let has = |node: &Redis| !node.tell(&["GET", key]).starts_with("-MOVED");
        let node = self.nodes.iter().position(has).unwrap();
        (node, slot)
    }
}

#[test]
fn a_cluster_keeps_tokens_and_bounds_and_tells_of_revocations() {
    run(async {
        let cluster = Cluster::start(0).await;
        let fleet = Fleet::with(&cluster.settings(), &[("tokens.per_user", Value::from(4))]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        let mut clients = Vec::new();
        for number in 0..8 {
            clients.push(fleet.gateways[number % 3].signed_in_as("till-01").await);
        }
        for (number, client) in clients.iter().enumerate() {
            let expected = if number < 4 { 401 } else { 200 };
            for gateway in 0..3 {
                until_status(&fleet.bearer(gateway, client), expected, &[200]).await;
            }
        }
        until("what all gateways tell of the user", async || {
            cluster.nodes.iter().any(|node| {
                let keys = node.tell(&["KEYS", "syncgate:quota:*:user:till-01"]);
                let key = keys.lines().nth(2).unwrap_or_default();
                node.tell(&["HLEN", key]) == ":3\r\n"
            })
        })
        .await;
        assert_eq!(fleet.end(2, Selection::One(id(&clients[7]))).await, 1);
        assert_eq!(fleet.end(1, Selection::All).await, 3 + 3);
        for client in &clients {
            for gateway in 0..3 {
                until_status(&fleet.bearer(gateway, client), 401, &[200]).await;
            }
        }
    });
}

#[test]
fn when_a_node_dies_its_replica_goes_on_and_what_was_revoked_stays_so() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        let fleet = Fleet::start(&cluster.settings());
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        let (mut clients, mut doomed) = (Vec::new(), Vec::new());
        for number in 0..6 {
            clients.push(fleet.gateways[number % 3].signed_in_as("till-01").await);
            doomed.push(fleet.gateways[number % 3].signed_in_as("till-01").await);
        }
        for client in clients.iter().chain(&doomed) {
            assert_eq!(call(&fleet.bearer(1, client)).await.status, 200);
        }
        for client in &doomed {
            assert_eq!(fleet.end(2, Selection::One(id(client))).await, 1);
            until_status(&fleet.bearer(1, client), 401, &[200]).await;
        }
        cluster.nodes[0].kill();
        for client in &clients {
            assert_eq!(call(&fleet.bearer(1, client)).await.status, 200, "known");
        }
        let survivor = &cluster.nodes[1];
        until("a replica that has taken over", async || {
            let nodes = survivor.tell(&["CLUSTER", "NODES"]);
            let masters = nodes.lines().filter(|line| line.contains("master"));
            masters.filter(|line| !line.contains("fail")).count() == 3
        })
        .await;
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
            for client in &clients {
                until_status(&fleet.bearer(gateway, client), 200, &[503]).await;
            }
            for client in &doomed {
                until_status(&fleet.bearer(gateway, client), 401, &[503]).await;
            }
        }
        // The one that was gone comes back as a replica.
        cluster.nodes[0].restart();
        until("a node that follows", async || {
            cluster.nodes[0]
                .tell(&["INFO", "replication"])
                .contains("master_link_status:up")
        })
        .await;
        assert!(fleet.end(0, Selection::All).await >= clients.len());
        for client in &clients {
            until_status(&fleet.bearer(1, client), 401, &[200, 503]).await;
        }
    });
}

#[test]
fn tokens_come_and_go_while_a_slot_moves_to_another_node() {
    run(async {
        let cluster = Cluster::start(0).await;
        let fleet = Fleet::start(&cluster.settings());
        for gateway in 0..3 {
            fleet.logs_in(gateway, "till-01").await;
        }
        let client = fleet.signed_in(0, "till-01").await;
        // The slot of the user, then that of the token, at every stage of their moving.
        for key in [
            "syncgate:user:{till-01}:issued".to_owned(),
            format!("syncgate:token:{}", id(&client)),
        ] {
            let (from, slot) = cluster.place(&key);
            let to = (from + 1) % 3;
            let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
            let set = |node: &Redis, words: &[&str]| {
                let answer = node.tell(&[&["CLUSTER", "SETSLOT", &slot], words].concat());
                assert!(answer.starts_with("+OK"), "{answer}");
            };
            set(target, &["IMPORTING", &cluster.name(from)]);
            set(source, &["MIGRATING", &cluster.name(to)]);
            come_and_go(&fleet).await;
            let there = source.tell(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            for key in there.lines().filter(|line| line.starts_with("syncgate")) {
                let port = target.port.to_string();
                let moved = source.tell(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
                assert!(moved.starts_with("+OK"), "{key}: {moved}");
            }
            come_and_go(&fleet).await;
            until_status(&fleet.bearer(2, &client), 200, &[503]).await;
            for node in [target, source, &cluster.nodes[(from + 2) % 3]] {
                set(node, &["NODE", &cluster.name(to)]);
            }
            come_and_go(&fleet).await;
            assert_eq!(cluster.place(&key).0, to);
        }
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &client), 200, &[503]).await;
        }
        assert_eq!(fleet.end(1, Selection::One(id(&client))).await, 1);
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &client), 401, &[200, 503]).await;
        }
    });
}

/// A token is issued, found and revoked, each by another gateway. Those that are looking at the new
/// parts may say for a moment that they cannot.
async fn come_and_go(fleet: &Fleet) {
    let client = fleet.signed_in(0, "till-01").await;
    let known = fleet.bearer(1, &client);
    until_status(&known, 200, &[503]).await;
    assert_eq!(fleet.end(2, Selection::One(id(&client))).await, 1);
    until_status(&known, 401, &[200, 503]).await;
    let passed = fleet.gateways[1].upstream.requests();
    until_status(&known, 401, &[503]).await;
    assert_eq!(fleet.gateways[1].upstream.requests(), passed);
    let login = Ask::login("till-01", &password("till-01"));
    until("a login", async || {
        fleet.gateways[2]
            .anonymous()
            .send(login.clone())
            .await
            .status
            == 200
    })
    .await;
}

/// The nodes speak TLS with each other, and tell gateways of ports where they speak it too. The port of
/// their own is the one that `redis-cli` takes it for.
const TLS_BUS: [&str; 4] = ["--tls-cluster", "yes", "--cluster-port", "{bus}"];
