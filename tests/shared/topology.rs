//! Sentinels, clusters, TLS and users with a password.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use syncgate::store::Selection;
use toml::Value;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::{Redis, free_port, tell};
use crate::support::harness::password;
use crate::support::tls::Identity;
use crate::support::{Ask, Child, run};

#[test]
fn a_revoked_token_stays_revoked_when_a_replica_takes_over() {
    run(async {
        let mut master = Redis::start();
        let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        let port = free_port();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\n\
             sentinel monitor gate 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds gate 500\nsentinel failover-timeout gate 3000\n",
            master.port
        );
        let sentinel = Sentinel::start(port, &settings);
        until("a replica that follows", async || {
            replica
                .tell(&["INFO", "replication"])
                .contains("master_link_status:up")
                && tell(port, &["SENTINEL", "REPLICAS", "gate"])
                    .is_some_and(|answer| answer.contains(&replica.port.to_string()))
        })
        .await;
        let fleet = Fleet::start(&[
            server(&format!("127.0.0.1:{port}")),
            ("mode", Value::from("sentinel")),
            ("sentinel_name", Value::from("gate")),
            ("stale", Value::from("1h")),
        ]);
        let client = fleet.signed_in(0, "till-01").await;
        let doomed = fleet.signed_in(0, "till-01").await;
        fleet.logs_in(1, "till-01").await;
        fleet.logs_in(2, "till-01").await;
        until_status(&fleet.bearer(1, &doomed), 200, &[503]).await;
        assert_eq!(fleet.end(2, Selection::One(id(&doomed))).await, 1);
        master.kill();
        assert_eq!(call(&client).await.status, 200, "known tokens go on");
        // Until the sentinel has made the replica the master.
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
            until_status(&fleet.bearer(gateway, &client), 200, &[503]).await;
            until_status(&fleet.bearer(gateway, &doomed), 401, &[503]).await;
        }
        assert!(
            replica
                .tell(&["INFO", "replication"])
                .contains("role:master")
        );
        drop(sentinel);
    });
}

pub struct Sentinel {
    pub port: u16,
    process: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Sentinel {
    pub fn start(port: u16, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentinel.conf");
        fs::write(&file, settings).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdout(log);
        let process = command.stderr(std::process::Stdio::null()).spawn();
        let sentinel = Self {
            port,
            process: process.unwrap(),
            _directory: directory,
        };
        for _ in 0..1000 {
            if tell(port, &["PING"]).is_some() {
                return sentinel;
            }
            crate::redis::pause();
        }
        panic!("the sentinel does not answer");
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_server_can_demand_tls_and_a_password() {
    run(async {
        let identity = Identity::new(&["localhost", "127.0.0.1"]);
        let user = format!("--user {ACL}");
        let redis = Redis::over_tls(&identity, &user.split_whitespace().collect::<Vec<_>>());
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| Value::from(directory.path().join(name).display().to_string());
        identity.write(directory.path(), "redis");
        secret(&directory.path().join("right"), "of-the-server\n");
        secret(&directory.path().join("wrong"), "something else\n");
        let settings = |password: &str| {
            [
                by_name(&redis),
                ("tls", Value::from(true)),
                ("ca_file", path("redis.pem")),
                ("username", Value::from("gate")),
                ("password_file", path(password)),
                ("prefix", Value::from("gate")),
            ]
        };
        let fleet = Fleet::start(&settings("right"));
        let client = fleet.signed_in(0, "till-01").await;
        // It may not have connected yet.
        until_status(&fleet.bearer(1, &client), 200, &[503]).await;
        assert_eq!(fleet.end(2, Selection::One(id(&client))).await, 1);
        until_status(&fleet.bearer(1, &client), 401, &[200]).await;
        assert!(redis.tell(&["GET", "gate:version"]).contains('3'));
        // Quotas in common need no other rights either.
        let quotas = || redis.tell(&["KEYS", "gate:quota:*:user:till-01"]);
        until("a user told of", async || quotas().lines().count() == 3).await;
        let key = quotas().lines().nth(2).unwrap_or_default().to_owned();
        redis.tell(&["HSET", &key, "0123456789abcdef", "1 1 1 1 1 1"]);
        until("the end of what is old", async || {
            redis
                .tell(&["HEXISTS", &key, "0123456789abcdef"])
                .contains(":0")
        })
        .await;
        assert_eq!(redis.tell(&["ACL", "LOG"]), "*0\r\n");

        let fleet = Fleet::start(&settings("wrong"));
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(fleet.gateways[0].anonymous().send(login).await.status, 503);
    });
}

#[test]
fn a_server_with_another_certificate_or_anothers_name_is_not_spoken_to() {
    run(async {
        let trusted = Identity::new(&["localhost"]);
        let elsewhere = Identity::new(&["elsewhere.test"]);
        let stranger = Identity::new(&["localhost"]);
        // What the server shows, what the gateway trusts, and whether that is a match.
        for (shown, anchor, expected) in [
            (&trusted, &trusted, 200),
            (&stranger, &trusted, 503),
            (&elsewhere, &elsewhere, 503),
        ] {
            let redis = Redis::over_tls(shown, &VERBOSE);
            let directory = tempfile::tempdir().unwrap();
            anchor.write(directory.path(), "trusted");
            let file = directory.path().join("trusted.pem");
            let fleet = Fleet::start(&[
                by_name(&redis),
                ("tls", Value::from(true)),
                ("ca_file", Value::from(file.display().to_string())),
            ]);
            if expected == 200 {
                fleet.logs_in(0, "till-01").await;
                continue;
            }
            failed_handshakes(&redis).await;
            let login = Ask::login("till-01", &password("till-01"));
            let answer = fleet.gateways[0].anonymous().send(login).await;
            assert_eq!(answer.status, expected, "{answer:?}");
            assert_eq!(redis.tell(&["DBSIZE"]), ":0\r\n", "nothing was written");
        }
    });
}

/// Certificates are replaced while gateways run: what the file holds at an attempt to connect counts.
#[test]
fn the_trusted_certificates_are_reloaded_for_each_connection() {
    run(async {
        let (shown, stranger) = (Identity::new(&["localhost"]), Identity::new(&["localhost"]));
        let redis = Redis::over_tls(&shown, &VERBOSE);
        let directory = tempfile::tempdir().unwrap();
        stranger.write(directory.path(), "trusted");
        let file = directory.path().join("trusted.pem");
        let fleet = Fleet::start(&[
            by_name(&redis),
            ("tls", Value::from(true)),
            ("ca_file", Value::from(file.display().to_string())),
        ]);
        failed_handshakes(&redis).await;
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(fleet.gateways[0].anonymous().send(login).await.status, 503);
        shown.write(directory.path(), "trusted");
        fleet.logs_in(0, "till-01").await;
    });
}

/// The server's TLS port by the name in its certificate.
fn by_name(redis: &Redis) -> (&'static str, Value) {
    server(
        &redis
            .address_for_gateways()
            .replace("127.0.0.1", "localhost"),
    )
}

/// Waits until the server has seen some handshakes fail.
async fn failed_handshakes(redis: &Redis) {
    until("attempts to connect", async || {
        let log = redis.log();
        log.matches("Error accepting a client connection").count() >= 4
    })
    .await;
}

/// Logs failed handshakes.
const VERBOSE: [&str; 2] = ["--loglevel", "verbose"];

/// What a gateway has to say to be let in by servers that know it as a user, and perhaps over TLS.
pub struct Guard {
    directory: tempfile::TempDir,
    speaks_tls: bool,
}

impl Guard {
    /// With the certificate to trust, where the servers speak TLS.
    pub fn new(trusted: Option<&Identity>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        secret(&directory.path().join("password"), "of-the-server\n");
        if let Some(trusted) = trusted {
            trusted.write(directory.path(), "trusted");
        }
        Self {
            directory,
            speaks_tls: trusted.is_some(),
        }
    }

    pub fn settings(&self) -> Vec<(&'static str, Value)> {
        let path = |name: &str| Value::from(self.directory.path().join(name).display().to_string());
        let mut settings = vec![
            ("username", Value::from("gate")),
            ("password_file", path("password")),
            ("prefix", Value::from("gate")),
        ];
        if self.speaks_tls {
            settings.push(("tls", Value::from(true)));
            settings.push(("ca_file", path("trusted.pem")));
        }
        settings
    }
}

/// A server that a sentinel watches, which knows the gateways as a user.
pub struct Watched {
    pub redis: Redis,
    port: u16,
    guard: Guard,
    _sentinel: Sentinel,
}

impl Watched {
    /// With the certificate that both show, where they speak TLS.
    pub fn start(shown: Option<&Identity>) -> Self {
        let user = format!("--user {ACL}");
        let user: Vec<&str> = user.split(' ').filter(|word| !word.is_empty()).collect();
        let redis = match shown {
            Some(shown) => Redis::over_tls(shown, &user),
            None => Redis::with(&user),
        };
        let (plain, tls) = (free_port(), free_port());
        let guard = Guard::new(shown);
        let mut settings = format!("port {plain}\nbind 127.0.0.1\n");
        if let Some(shown) = shown {
            let directory = guard.directory.path();
            shown.write(directory, "sentinel");
            let path = directory.join("sentinel");
            let path = path.display();
            settings.push_str(&format!(
                "tls-port {tls}\ntls-replication yes\ntls-auth-clients no\n\
                 tls-cert-file {path}.pem\ntls-key-file {path}.key\ntls-ca-cert-file {path}.pem\n"
            ));
        }
        let at = redis.address_for_gateways();
        let (_, at) = at.split_once(':').unwrap();
        settings.push_str(&format!("sentinel monitor gate 127.0.0.1 {at} 1\n"));
        Self {
            redis,
            port: if shown.is_some() { tls } else { plain },
            guard,
            _sentinel: Sentinel::start(plain, &settings),
        }
    }

    /// The same, of which gateways trust another certificate.
    fn trusting(mut self, trusted: &Identity) -> Self {
        self.guard = Guard::new(Some(trusted));
        self
    }

    pub fn settings(&self) -> Vec<(&'static str, Value)> {
        let mut settings = vec![
            server(&format!("127.0.0.1:{}", self.port)),
            ("mode", Value::from("sentinel")),
            ("sentinel_name", Value::from("gate")),
            ("stale", Value::from("1h")),
        ];
        settings.extend(self.guard.settings());
        settings
    }
}

#[test]
fn a_cluster_over_tls_is_spoken_to_as_a_user_and_only_with_its_own_certificate() {
    run(async {
        for (shown, trusted, expected) in certificates() {
            let cluster = Cluster::guarded(0, Some(&shown)).await.trusting(&trusted);
            let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.port).collect();
            speaks_or_not(&cluster.settings(), &ports, expected).await;
        }
    });
}

#[test]
fn a_sentinel_over_tls_is_spoken_to_as_a_user_and_only_with_its_own_certificate() {
    run(async {
        for (shown, trusted, expected) in certificates() {
            let watched = Watched::start(Some(&shown)).trusting(&trusted);
            speaks_or_not(&watched.settings(), &[watched.redis.port], expected).await;
        }
    });
}

/// What servers show, what gateways trust, and what a login gets: the right one, a stranger's of the same
/// name, and one for another name.
fn certificates() -> [(Identity, Identity, u16); 3] {
    let right = || Identity::new(&["localhost", "127.0.0.1"]);
    let (own, elsewhere) = (right(), Identity::new(&["elsewhere.test"]));
    [
        (own.clone(), own, 200),
        (right(), right(), 503),
        (elsewhere.clone(), elsewhere, 503),
    ]
}

/// Tokens are issued and revoked over these servers; or none is, and nothing was written there.
async fn speaks_or_not(settings: &[(&str, Value)], servers: &[u16], expected: u16) {
    let fleet = Fleet::start(settings);
    if expected == 200 {
        let client = fleet.signed_in(0, "till-01").await;
        fleet.logs_in(1, "till-01").await;
        until_status(&fleet.bearer(1, &client), 200, &[503]).await;
        assert_eq!(fleet.end(2, Selection::One(id(&client))).await, 1);
        until_status(&fleet.bearer(1, &client), 401, &[200]).await;
        for port in servers {
            assert_eq!(tell(*port, &["ACL", "LOG"]).as_deref(), Some("*0\r\n"));
        }
        return;
    }
    let login = Ask::login("till-01", &password("till-01"));
    let answer = fleet.gateways[0].anonymous().send(login).await;
    assert_eq!(answer.status, expected, "{answer:?}");
    fleet.until_store_is(0, "connecting").await;
    for port in servers {
        assert_eq!(tell(*port, &["DBSIZE"]).as_deref(), Some(":0\r\n"));
    }
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The rights that docs/shared-store.md names.
pub const ACL: &str = "gate on >of-the-server ~gate:* &* -@all +hello +ping +client|tracking +get +set +del +time \
                   +getrange +setrange +pttl +pexpire +eval +zadd +zrem +zcard +zscore \
                   +zrange +zrangebyscore +zrangebylex +hmget +hget +hdel +hset +hincrby \
                   +hgetall";

#[test]
fn a_confined_process_reaches_the_server_and_reads_its_password() {
    run(async {
        let redis = Redis::with(&["--requirepass", "of-the-server"]);
        let child = Child::start(|files| {
            secret(&files.directory().join("redis.secret"), "of-the-server\n");
            let servers = Value::from(vec![format!("localhost:{}", redis.port)]);
            let shared = [
                ("servers".to_owned(), servers),
                ("password_file".to_owned(), Value::from("redis.secret")),
            ];
            files.set("tokens.store", "shared");
            files.set(
                "tokens.shared",
                Value::Table(toml::Table::from_iter(shared)),
            );
        })
        .await;
        let client = child.anonymous();
        until("a login", async || {
            let login = Ask::login("till-01", &password("till-01"));
            client.send(login).await.status == 200
        })
        .await;
    });
}
