//! Sentinels, clusters, TLS and users with a password.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use syncgate::store::Selection;
use toml::Value;

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
        assert_eq!(call(&fleet.bearer(1, &doomed)).await.status, 200);
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
        let port = free_port().to_string();
        let tls = "--tls-cert-file {dir}/redis.pem --tls-key-file {dir}/redis.key \
                   --tls-ca-cert-file {dir}/redis.pem --tls-auth-clients no";
        let arguments = format!("--tls-port {port} {tls} --user {ACL}");
        let redis = Redis::prepared(
            &arguments.split_whitespace().collect::<Vec<_>>(),
            |directory| identity.write(directory, "redis"),
        );
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| Value::from(directory.path().join(name).display().to_string());
        identity.write(directory.path(), "redis");
        secret(&directory.path().join("right"), "of-the-server\n");
        secret(&directory.path().join("wrong"), "something else\n");
        let settings = |password: &str| {
            [
                server(&format!("localhost:{port}")),
                ("tls", Value::from(true)),
                ("ca_file", path("redis.pem")),
                ("username", Value::from("gate")),
                ("password_file", path(password)),
                ("prefix", Value::from("gate")),
            ]
        };
        let fleet = Fleet::start(&settings("right"));
        let client = fleet.signed_in(0, "till-01").await;
        assert_eq!(call(&fleet.bearer(1, &client)).await.status, 200);
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
            let port = free_port().to_string();
            let tls = "--tls-cert-file {dir}/redis.pem --tls-key-file {dir}/redis.key \
                       --tls-ca-cert-file {dir}/redis.pem --tls-auth-clients no";
            let arguments = format!("--tls-port {port} {tls} --loglevel verbose");
            let redis = Redis::prepared(
                &arguments.split_whitespace().collect::<Vec<_>>(),
                |directory| shown.write(directory, "redis"),
            );
            let directory = tempfile::tempdir().unwrap();
            anchor.write(directory.path(), "trusted");
            let file = directory.path().join("trusted.pem");
            let fleet = Fleet::start(&[
                server(&format!("localhost:{port}")),
                ("tls", Value::from(true)),
                ("ca_file", Value::from(file.display().to_string())),
            ]);
            if expected == 200 {
                fleet.logs_in(0, "till-01").await;
                continue;
            }
            until("attempts to connect", async || {
                let log = redis.log();
                log.matches("Error accepting a client connection").count() >= 4
            })
            .await;
            let login = Ask::login("till-01", &password("till-01"));
            let answer = fleet.gateways[0].anonymous().send(login).await;
            assert_eq!(answer.status, expected, "{answer:?}");
            assert_eq!(redis.tell(&["DBSIZE"]), ":0\r\n", "nothing was written");
        }
    });
}

/// Certificates are replaced while gateways run: what the file holds at an attempt to connect counts.
#[test]
fn the_certificates_to_trust_are_read_again_for_each_connection() {
    run(async {
        let (shown, stranger) = (Identity::new(&["localhost"]), Identity::new(&["localhost"]));
        let port = free_port().to_string();
        let tls = "--tls-cert-file {dir}/redis.pem --tls-key-file {dir}/redis.key \
                   --tls-ca-cert-file {dir}/redis.pem --tls-auth-clients no";
        let arguments = format!("--tls-port {port} {tls} --loglevel verbose");
        let redis = Redis::prepared(
            &arguments.split_whitespace().collect::<Vec<_>>(),
            |directory| shown.write(directory, "redis"),
        );
        let directory = tempfile::tempdir().unwrap();
        stranger.write(directory.path(), "trusted");
        let file = directory.path().join("trusted.pem");
        let fleet = Fleet::start(&[
            server(&format!("localhost:{port}")),
            ("tls", Value::from(true)),
            ("ca_file", Value::from(file.display().to_string())),
        ]);
        until("attempts to connect", async || {
            let log = redis.log();
            log.matches("Error accepting a client connection").count() >= 4
        })
        .await;
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(fleet.gateways[0].anonymous().send(login).await.status, 503);
        shown.write(directory.path(), "trusted");
        fleet.logs_in(0, "till-01").await;
    });
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
