//! Servers that take over from each other while tokens come and go: no revocation that was acknowledged
//! is lost, whichever token of a lineage it was asked for. Some servers are told to hand over, others are
//! killed. `SYNCGATE_FAILOVERS=200` makes it so many of each kind.

use std::cell::RefCell;
use std::time::Duration;

use syncgate::store::Selection;
use tokio::time::{Instant, sleep};
use toml::Value;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, call, id, server, until_within};
use crate::redis::{Redis, free_port, tell};
use crate::support::harness::password;
use crate::support::{Ask, Client, DEADLINE, Token, run};
use crate::topology::Sentinel;

/// Servers take their time to find each other again.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    until_within(4 * DEADLINE, what, holds).await;
}

fn failovers() -> usize {
    let number = std::env::var("SYNCGATE_FAILOVERS").ok();
    number.map_or(2, |number| number.parse().unwrap())
}

/// What was acknowledged.
#[derive(Default)]
struct Ledger {
    issued: RefCell<Vec<Client>>,
    revoked: RefCell<Vec<Client>>,
    refused: RefCell<usize>,
}

impl Ledger {
    /// Tokens are issued by one gateway, some renewed by another, and revoked by a third, one after the
    /// other, for ever.
    async fn come_and_go(&self, fleet: &Fleet, first: usize) {
        for number in first.. {
            let by = &fleet.gateways[number % 3];
            let client = by.anonymous();
            let login = Ask::login("till-01", &password("till-01"));
            let answer = client.send(login).await;
            if answer.status != 200 {
                *self.refused.borrow_mut() += 1;
                sleep(Duration::from_millis(5)).await;
                continue;
            }
            let token = answer.json()["token"]["accesstoken"]
                .as_str()
                .map(Token::new);
            let client = Client { token, ..client };
            if number % 4 == 0 {
                self.issued.borrow_mut().push(client);
                continue;
            }
            let known = fleet.bearer((number + 1) % 3, &client);
            call(&known).await;
            let mut lineage = vec![client];
            if number % 2 == 1 {
                match renewed(&known).await {
                    Some(fresh) => lineage.push(fresh),
                    None => *self.refused.borrow_mut() += 1,
                }
            }
            // Either end of the lineage ends all of it.
            let named = &lineage[number / 2 % lineage.len()];
            let ended = fleet
                .try_end((number + 2) % 3, Selection::One(id(named)))
                .await;
            match ended {
                Ok(_) => self.revoked.borrow_mut().extend(lineage),
                Err(_) => *self.refused.borrow_mut() += 1,
            }
        }
    }

    /// Fails when a token that was revoked goes on to pass anywhere. Says how many were issued and are gone.
    async fn check(&self, fleet: &Fleet) -> usize {
        for gateway in 0..3 {
            fleet.until_store_is(gateway, "serving").await;
        }
        let revoked = self.revoked.borrow().clone();
        for client in &revoked {
            for gateway in 0..3 {
                let known = fleet.bearer(gateway, client);
                // Who moved to the new server first does not know of what another revoked on the old one
                // a moment before, until that one has moved too (docs/shared-store.md, "Failover").
                let what = format!("gateway {gateway} to refuse the revoked {}", id(client));
                until(&what, async || call(&known).await.status == 401).await;
            }
        }
        let mut lost = 0;
        let issued = self.issued.borrow().clone();
        for client in &issued {
            let known = fleet.bearer(0, client);
            until("an answer", async || call(&known).await.status != 503).await;
            lost += usize::from(call(&known).await.status != 200);
        }
        lost
    }
}

/// The token that takes the place of a client's, where the gateway gives one.
async fn renewed(client: &Client) -> Option<Client> {
    let answer = client.send(Ask::post("/api/renewToken").sized("")).await;
    let token = match answer.status {
        200 => answer.json()["token"]["accesstoken"]
            .as_str()
            .map(Token::new),
        _ => return None,
    };
    Some(Client {
        token,
        ..client.clone()
    })
}

/// Lets one server after another take over, with tokens coming and going all the time.
async fn through_failovers(fleet: &Fleet, what: &str, mut fail_over: impl AsyncFnMut(usize)) {
    let (mut revoked, mut issued, mut lost, mut refused) = (0, 0, 0, 0);
    let mut longest = Duration::ZERO;
    for number in 0..failovers() {
        let ledger = Ledger::default();
        let begun = Instant::now();
        let over = async {
            until("tokens that come and go", async || {
                ledger.revoked.borrow().len() > 10
            })
            .await;
            fail_over(number).await;
            let before = ledger.revoked.borrow().len();
            until("tokens that come and go", async || {
                ledger.revoked.borrow().len() > before + 10
            })
            .await;
        };
        tokio::select! {
            () = over => {}
            () = ledger.come_and_go(fleet, 0) => {}
            () = ledger.come_and_go(fleet, 1) => {}
        }
        lost += ledger.check(fleet).await;
        longest = longest.max(begun.elapsed());
        revoked += ledger.revoked.borrow().len();
        issued += ledger.issued.borrow().len();
        refused += *ledger.refused.borrow();
    }
    println!(
        "{what}: {} failovers, {revoked} revocations acknowledged and none lost, {issued} tokens issued \
         and {lost} of them lost, {refused} refusals; the longest round took {longest:?}",
        failovers()
    );
}

#[test]
fn no_acknowledged_revocation_is_lost_when_sentinels_change_the_server() {
    run(async {
        let first = Redis::start();
        let second = Redis::with(&["--replicaof", "127.0.0.1", &first.port.to_string()]);
        let ports = [first.port, second.port];
        let mut servers = [first, second];
        let port = free_port();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\n\
             sentinel monitor gate 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds gate 1000\nsentinel failover-timeout gate 3000\n",
            ports[0]
        );
        let sentinel = Sentinel::start(port, &settings);
        let replica_follows = async || {
            until("a replica that follows", async || {
                let follows = |port: &u16| {
                    let told = tell(*port, &["INFO", "replication"]);
                    told.is_some_and(|told| {
                        told.contains("role:slave") && told.contains("master_link_status:up")
                    })
                };
                let replicas = tell(sentinel.port, &["SENTINEL", "REPLICAS", "gate"]);
                let known = replicas.is_some_and(|told| {
                    told.contains("flags\r\n$5\r\nslave")
                        && told.contains("master-link-status\r\n$2\r\nok")
                });
                ports.iter().any(follows) && known
            })
            .await;
        };
        replica_follows().await;
        let fleet = Fleet::start(&[
            server(&format!("127.0.0.1:{port}")),
            ("mode", Value::from("sentinel")),
            ("sentinel_name", Value::from("gate")),
        ]);
        fleet.logs_in(0, "till-01").await;
        through_failovers(&fleet, "sentinels", async |number| {
            replica_follows().await;
            let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "gate"];
            let before = tell(port, &ask).expect("a sentinel that answers");
            let named = |server: &&mut Redis| before.contains(&server.port.to_string());
            let mut killed = servers.iter_mut().find(named).filter(|_| number % 2 == 1);
            if let Some(master) = &mut killed {
                master.kill();
            }
            let is_killed = killed.is_some();
            until("another server", async || {
                // One that is under way is not begun again; one that was given up is.
                if !is_killed {
                    tell(port, &["SENTINEL", "FAILOVER", "gate"]);
                }
                tell(port, &ask).is_some_and(|answer| answer != before)
            })
            .await;
            if let Some(master) = killed {
                master.restart();
            }
        })
        .await;
    });
}

#[test]
fn no_acknowledged_revocation_is_lost_when_nodes_of_a_cluster_take_over() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        let fleet = Fleet::start(&cluster.settings());
        fleet.logs_in(0, "till-01").await;
        through_failovers(&fleet, "a cluster", async |number| {
            until("replicas that follow", async || {
                replicas(&cluster).len() == 3
            })
            .await;
            let next = replicas(&cluster)[number % 3];
            let told = cluster.nodes[next].tell(&["INFO", "replication"]);
            let master = told
                .lines()
                .find_map(|line| line.strip_prefix("master_port:"));
            let master = master.map(str::trim).expect("a master");
            let is_master = |node: &Redis| node.port.to_string() == master;
            let master = cluster.nodes.iter().position(is_master).expect("a node");
            match number % 3 {
                1 => cluster.nodes[master].kill(),
                way => {
                    let way = ["FORCE", "", "TAKEOVER"][way];
                    cluster.nodes[next].tell(&["CLUSTER", "FAILOVER", way]);
                }
            }
            until("a node that has taken over", async || {
                let told = cluster.nodes[next].tell(&["INFO", "replication"]);
                told.contains("role:master")
            })
            .await;
            if number % 3 == 1 {
                cluster.nodes[master].restart();
            }
            until("a cluster that agrees", async || {
                let good =
                    |node: &Redis| node.tell(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
                replicas(&cluster).len() == 3 && cluster.nodes.iter().all(good)
            })
            .await;
        })
        .await;
    });
}

/// Which nodes of a cluster follow another.
fn replicas(cluster: &Cluster) -> Vec<usize> {
    let follows = |node: &Redis| {
        let told = node.tell(&["INFO", "replication"]);
        told.contains("role:slave") && told.contains("master_link_status:up")
    };
    let nodes = cluster.nodes.iter().enumerate();
    nodes
        .filter(|(_, node)| follows(node))
        .map(|(number, _)| number)
        .collect()
}
