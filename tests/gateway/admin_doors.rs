//! The admin interface as any user of the machine, or any page in its browser, reaches it.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::introspection::with_secret;
use crate::support::client::{Agreed, Stream};
use crate::support::{Ask, Child, Connection, Harness, redact, run};

const HALF: &[u8] = b"GET /health HTTP/1.1\r\nHost: ";
/// As many as one peer may have without a request.
const MOST: usize = 16;

fn connection(stream: impl Stream + 'static, host: &str) -> Connection {
    Connection::new(Box::new(stream), host, Agreed::default())
}

async fn over_tcp(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address).await.unwrap();
    connection(stream, &address.to_string())
}

async fn over_the_socket(harness: &Harness) -> Connection {
    let path = harness.files().directory().join("admin.sock");
    connection(UnixStream::connect(path).await.unwrap(), "admin")
}

/// Opens as many connections as one peer may have, half a head on each.
async fn halves(connect: impl AsyncFn() -> Connection) -> Vec<Connection> {
    let mut halves = Vec::new();
    for _ in 0..MOST {
        let mut connection = connect().await;
        connection.write(HALF).await;
        halves.push(connection);
    }
    halves
}

// Sixteen connections that sent nothing kept everybody else waiting until they had been given up.
#[test]
fn silent_connections_keep_nobody_waiting() {
    run(async {
        let harness = Harness::start(with_secret);
        let address = harness.admin().unwrap();
        let tcp = async || over_tcp(address).await;
        let socket = async || over_the_socket(&harness).await;

        let mut silent = halves(tcp).await;
        let answer = harness.ask_admin_over_tcp(&Ask::get("/health")).await;
        assert_eq!(answer.status, 200);
        // The last of them is still there: nobody waited for it to be given up.
        let last = silent.last_mut().unwrap();
        last.write(format!("{address}\r\n\r\n").as_bytes()).await;
        assert_eq!(last.answer().await.status, 200);

        let mut silent = halves(socket).await;
        let answer = harness.ask_admin(&Ask::get("/tokens")).await;
        assert_eq!(answer.status, 200);
        let last = silent.last_mut().unwrap();
        last.write(b"admin\r\n\r\n").await;
        assert_eq!(last.answer().await.status, 200);
    });
}

#[test]
fn a_peer_with_too_many_silent_connections_loses_its_oldest() {
    run(async {
        let harness = Harness::start(with_secret);
        let address = harness.admin().unwrap();
        let mut silent = halves(async || over_tcp(address).await).await;
        let mut next = over_tcp(address).await;
        next.write(HALF).await;
        let (bytes, _) = silent[0].remainder().await;
        assert!(bytes.is_empty(), "closed without a word");
        for connection in [&mut silent[1], &mut next] {
            let rest = format!("{address}\r\n\r\n");
            connection.write(rest.as_bytes()).await;
            assert_eq!(connection.answer().await.status, 200);
        }
    });
}

// Sixteen connections that were accepted behind a request had it closed before it was read at all, though
// it was there: nothing was read while there was another connection to accept.
#[test]
fn a_burst_of_connections_does_not_close_one_whose_request_is_there() {
    run(async {
        let child = Child::start(with_secret).await;
        let address = admin_of(&child).await;
        child.stop();
        // The kernel takes these, in their order.
        let mut asking = over_tcp(address).await;
        asking.send(&Ask::get("/health")).await;
        let mut silent = Vec::new();
        for _ in 0..3 * MOST {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        child.signal(rustix::process::Signal::CONT);
        assert_eq!(asking.answer().await.status, 200);
    });
}

// A page whose name was made to lead to 127.0.0.1 could read whatever a browser of this machine can.
#[test]
fn over_tcp_a_request_for_another_host_or_of_another_origin_is_refused() {
    run(async {
        let harness = Harness::start(|files| {
            with_secret(files);
            files.set("admin.hosts", &["admin.internal"][..]);
        });
        let address = harness.admin().unwrap();
        let port = address.port();
        let health = || Ask::get("/health");
        let own = format!("http://{address}");
        for (ask, status) in [
            (health(), 200),
            (health().host(&format!("localhost:{port}")), 200),
            (health().host("admin.internal"), 200),
            (health().host(&format!("admin.internal:{port}")), 200),
            (health().field("Origin", &own), 200),
            (health().field("Sec-Fetch-Site", "none"), 200),
            (health().host(&format!("rebound.example:{port}")), 403),
            (health().host("rebound.example"), 403),
            (health().host("127.0.0.1:1"), 403),
            (health().host("127.0.0.1"), 403),
            (health().host(""), 403),
            (health().field("Host", &address.to_string()), 403),
            (health().field("Origin", "https://rebound.example"), 403),
            (health().field("Origin", "null"), 403),
            (health().field("Origin", &own).field("Origin", "null"), 403),
            (health().field("Sec-Fetch-Site", "cross-site"), 403),
            (Ask::get("http://rebound.example/health"), 403),
            // Whatever is asked for, and whether it is there or not.
            (Ask::get("/tokens").host("rebound.example"), 403),
            (
                Ask::post("/introspect").host("rebound.example").sized(""),
                403,
            ),
            (Ask::new("OPTIONS", "/health").field("Origin", "null"), 403),
        ] {
            let answer = harness.ask_admin_over_tcp(&ask).await;
            let what = (&ask.method, &ask.target, &ask.host, &ask.fields);
            assert_eq!(answer.status, status, "{what:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        // No page reaches the socket.
        let ask = Ask::get("/health").host("anything.example");
        assert_eq!(harness.ask_admin(&ask).await.status, 200);
    });
}

/// The address of the admin interface, as the log tells it.
async fn admin_of(child: &Child) -> SocketAddr {
    let text = child
        .until("the address of the admin interface", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let text = line["admin"].as_str()?;
            Some(
                text.trim_start_matches("Some(")
                    .trim_end_matches(')')
                    .to_owned(),
            )
        })
        .await;
    text.parse().unwrap()
}

#[test]
fn a_token_in_a_path_or_a_method_is_never_logged() {
    run(async {
        let child = Child::start(|files| {
            with_secret(files);
            files.set("log.level", "trace");
        })
        .await;
        let address = admin_of(&child).await;
        let client = child.signed_in().await;
        let token = client.token.as_ref().unwrap().secret().to_owned();
        let in_a_path = token.replace('+', "%2B").replace('/', "%2F");
        // Without what no method may hold.
        let in_a_method: String = token.chars().filter(char::is_ascii_alphanumeric).collect();
        for ask in [
            Ask::get(&format!("/tokens/{in_a_path}")),
            Ask::get(&format!("/tokens/{token}")),
            Ask::get(&format!("/{token}")),
            Ask::get(&format!("/tokens?after={in_a_path}")),
            Ask::get(&format!("/tokens?user={in_a_path}")),
            Ask::new("DELETE", &format!("/tokens/{token}")),
            Ask::new(&in_a_method, "/tokens"),
            Ask::get("/health").field("Origin", &format!("http://{in_a_path}")),
        ] {
            over_tcp(address).await.exchange(&ask).await;
            child.ask_admin(&ask).await;
        }
        child.ask_admin(&Ask::get("/health")).await;
        child.signal(rustix::process::Signal::TERM);
        let (_, lines) = child.exit().await;
        let start = &in_a_method[4..12];
        for line in &lines {
            let told = line.contains(&token[..12]) || line.contains(start);
            assert!(!told, "{}", redact(line));
        }
        assert!(
            lines
                .iter()
                .any(|line| line.contains("/tokens/{id}") || line.contains("unknown"))
        );
    });
}

#[test]
fn what_any_user_of_the_machine_can_ask_does_not_fill_the_log() {
    run(async {
        let child = Child::start(with_secret).await;
        let address = admin_of(&child).await;
        for _ in 0..30 {
            for (ask, status) in [
                (Ask::get("/health"), 200),
                (Ask::get("/nowhere"), 404),
                (Ask::get("/health").host("rebound.example"), 403),
                (Ask::post("/introspect").sized(""), 401),
            ] {
                let answer = over_tcp(address).await.exchange(&ask).await;
                assert_eq!(answer.status, status);
            }
        }
        child.ask_admin(&Ask::get("/tokens")).await;
        child.signal(rustix::process::Signal::TERM);
        let (_, lines) = child.exit().await;
        let about = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(
            about("\"admin request\""),
            1,
            "that on the socket: {lines:?}"
        );
        // One a minute; a test may run over the turn of one.
        let told = about("admin requests were refused");
        assert!((1..=2).contains(&told), "{lines:?}");
    });
}
