//! What the backend is told of who calls, and how it can check it: signed identities, the published
//! key set, the backend's own credential; and how much a refused client is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use serde_json::{Value, json};
use syncgate::identity::key::{Algorithm, SigningKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use syncgate_test_support::harness::{Files, write};
use syncgate_test_support::wire::Head;
use syncgate_test_support::{Ask, Harness, run, within};

/// The second at which a harness's clock stands at first.
const START: i64 = 1_745_402_562;
const CUSTOMER: &str = r#"{"form":"setCustomer","data":[]}"#;

/// Writes a new key.
fn write_key(directory: &Path, name: &str, algorithm: Algorithm) {
    let pem = SigningKey::generate(algorithm, &SystemRandom::new()).unwrap();
    write(&directory.join(name), &pem, 0o600);
}

/// A gateway that signs, with the admin interface on TCP.
fn signing(algorithm: Algorithm, adjust: impl FnOnce(&mut Files)) -> Harness {
    Harness::start(|files| {
        write_key(files.directory(), "identity.key", algorithm);
        files.set("identity.key", "identity.key");
        files.set("admin.listen", "127.0.0.1:0");
        files.set("admin.hosts", &["admin", "a"][..]);
        adjust(files);
    })
}

/// What the admin interface answers: status, head and body.
async fn ask_admin<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> Admin {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    within(
        "the admin interface's answer",
        stream.read_to_end(&mut bytes),
    )
    .await
    .unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Admin {
        status: head[9..12].parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

struct Admin {
    status: u16,
    head: String,
    body: String,
}

impl Admin {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n")
}

async fn key_set(harness: &Harness) -> Value {
    let stream = TcpStream::connect(harness.admin().unwrap()).await.unwrap();
    let answer = ask_admin(stream, &get("/.well-known/jwks.json")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer
            .head
            .contains("content-type: application/jwk-set+json"),
        "{}",
        answer.head
    );
    answer.json()
}

/// The claims of a signed identity, if a key of the set verifies it.
fn verify(jws: &str, set: &Value) -> Option<Value> {
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!(header["typ"], "JWT");
    let keys = set["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == header["kid"])?;
    assert_eq!(key["alg"], header["alg"]);
    assert_eq!(key["use"], "sig");
    let coordinate = |name: &str| decode(key[name].as_str().unwrap());
    let verified = match header["alg"].as_str().unwrap() {
        "ES256" => {
            let point = [vec![4], coordinate("x"), coordinate("y")].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed.as_bytes(), &decode(signature))
        }
        "EdDSA" => UnparsedPublicKey::new(&ED25519, coordinate("x"))
            .verify(signed.as_bytes(), &decode(signature)),
        other => panic!("the algorithm {other}"),
    };
    verified.ok()?;
    Some(serde_json::from_slice(&decode(payload)).unwrap())
}

/// The head of the next request that the backend sees, made by `user` with `ask`.
async fn head_of(harness: &Harness, user: &str, ask: Ask) -> Head {
    let number = harness.upstream.requests() + 1;
    let answer = harness.signed_in_as(user).await.send(ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    harness.upstream.whole(number).await.head
}

fn customer() -> Ask {
    Ask::post("/api/SyncData").json(CUSTOMER)
}

#[test]
fn the_backend_gets_an_identity_that_the_published_keys_verify() {
    for algorithm in [Algorithm::Es256, Algorithm::Ed25519] {
        run(async {
            let harness = signing(algorithm, |files| {
                files.users(&[
                    ("till-01", "allow = \"*\""),
                    (
                        "shop-02",
                        "allow = [{ route = \"/api/SyncData\", forms = [\"set*\"] }]",
                    ),
                ]);
            });
            let set = key_set(&harness).await;
            assert_eq!(set["keys"].as_array().unwrap().len(), 1);
            let head = head_of(&harness, "till-01", customer()).await;
            let claims = verify(head.field("X-Auth-Identity").unwrap(), &set).unwrap();
            let expected = json!({
                "iss": "syncgate",
                "sub": "till-01",
                "aud": "backend",
                "route": "/api/SyncData",
                "jti": head.field("X-Request-Id").unwrap(),
                "iat": START,
                "exp": START + 30,
            });
            assert_eq!(claims, expected, "the form was not read");
            harness.clock.advance(Duration::from_secs(5));
            let head = head_of(&harness, "shop-02", customer()).await;
            let claims = verify(head.field("X-Auth-Identity").unwrap(), &set).unwrap();
            assert_eq!(claims["sub"], "shop-02");
            assert_eq!(claims["form"], "setCustomer");
            assert_eq!(claims["iat"], START + 5);
            assert_eq!(claims["exp"], START + 35);
        });
    }
}

#[test]
fn what_the_identity_says_and_where_can_be_set() {
    run(async {
        let harness = signing(Algorithm::Es256, |files| {
            files.set("identity.header", "X-Gate-Proof");
            files.set("identity.issuer", "https://gate.example");
            files.set("identity.audience", "erp");
            files.set("identity.lifetime", "5s");
            files.routes(&[
                "path = \"/api/SyncData\"",
                "path = \"/api/GetData\"\nidentity = false",
            ]);
        });
        let set = key_set(&harness).await;
        let head = head_of(&harness, "till-01", customer()).await;
        assert_eq!(head.field("X-Auth-Identity"), None);
        let claims = verify(head.field("X-Gate-Proof").unwrap(), &set).unwrap();
        assert_eq!(claims["iss"], "https://gate.example");
        assert_eq!(claims["aud"], "erp");
        assert_eq!(claims["exp"], START + 5);
        let ask = Ask::post("/api/GetData").json("{}");
        let head = head_of(&harness, "till-01", ask).await;
        assert_eq!(head.field("X-Gate-Proof"), None);
    });
}

#[test]
fn a_client_s_own_identity_never_passes() {
    let spoofed = || {
        let names = ["X-Auth-Identity", "x_auth_identity", "X-AUTH_Identity"];
        names
            .into_iter()
            .fold(customer(), |ask, name| ask.field(name, "spoofed"))
            .field("Connection", "X-Auth-Identity")
    };
    let seen = |head: &Head| {
        let folded = |name: &str| name.to_ascii_lowercase().replace('_', "-");
        let fields = head.fields.iter();
        let identities = fields.filter(|(name, _)| folded(name) == "x-auth-identity");
        identities
            .map(|(_, value)| value.clone())
            .collect::<Vec<_>>()
    };
    run(async {
        let signing = signing(Algorithm::Ed25519, |_| {});
        let set = key_set(&signing).await;
        let signed = seen(&head_of(&signing, "till-01", spoofed()).await);
        assert_eq!(signed.len(), 1);
        assert_eq!(verify(&signed[0], &set).unwrap()["sub"], "till-01");
        let silent = Harness::usual();
        let head = head_of(&silent, "till-01", spoofed()).await;
        assert_eq!(seen(&head), Vec::<String>::new(), "without a key");
    });
}

#[test]
fn a_key_can_be_changed_while_its_signatures_are_under_way() {
    run(async {
        let harness = signing(Algorithm::Es256, |files| {
            write_key(files.directory(), "next.key", Algorithm::Ed25519);
            let next = fs::read(files.directory().join("next.key")).unwrap();
            let next = SigningKey::from_pem(&next, &SystemRandom::new()).unwrap();
            write(
                &files.directory().join("next.pem"),
                &next.public().to_pem(),
                0o644,
            );
            files.set("identity.published", &["next.pem"][..]);
        });
        let first = key_set(&harness).await;
        assert_eq!(first["keys"].as_array().unwrap().len(), 2);
        let old = head_of(&harness, "till-01", customer()).await;
        let old = old.field("X-Auth-Identity").unwrap().to_owned();
        let directory = harness.files().directory();
        fs::rename(directory.join("next.key"), directory.join("identity.key")).unwrap();
        harness.reload();
        let new = head_of(&harness, "till-01", customer()).await;
        let new = new.field("X-Auth-Identity").unwrap().to_owned();
        let second = key_set(&harness).await;
        for set in [&first, &second] {
            for jws in [&old, &new] {
                assert!(verify(jws, set).is_some(), "{set}");
            }
        }
        assert_ne!(old.split('.').next(), new.split('.').next());
    });
}

#[test]
fn a_key_that_cannot_be_used_changes_nothing() {
    run(async {
        let harness = signing(Algorithm::Es256, |_| {});
        let before = key_set(&harness).await;
        let key = harness.files().directory().join("identity.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        harness.reload();
        let head = head_of(&harness, "till-01", customer()).await;
        assert!(verify(head.field("X-Auth-Identity").unwrap(), &before).is_some());
        assert_eq!(key_set(&harness).await, before);
    });
}

#[test]
fn a_gateway_does_not_start_with_a_key_that_others_can_read() {
    let refused = Harness::refuses_to_start(|files| {
        write_key(files.directory(), "identity.key", Algorithm::Es256);
        let key = files.directory().join("identity.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        files.set("identity.key", "identity.key");
    });
    assert!(refused.contains("chmod 600"), "{refused}");
    let refused = Harness::refuses_to_start(|files| {
        write(&files.directory().join("identity.key"), "no key", 0o600);
        files.set("identity.key", "identity.key");
    });
    assert!(refused.contains("no private key"), "{refused}");
}

#[test]
fn the_admin_interface_answers_in_the_envelope_and_only_what_it_has() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("admin.listen", "127.0.0.1:0");
            files.set("admin.hosts", &["admin", "a"][..]);
            files.set("admin.socket", "admin.sock");
        });
        let socket = harness.files().directory().join("admin.sock");
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let body = "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        let cases = [
            (get("/health"), 200, r#""success":true"#),
            (get("/.well-known/jwks.json"), 200, r#"{"keys":[]}"#),
            (get("/"), 404, "No such resource"),
            (get("/HEALTH"), 404, "No such resource"),
            (
                get("/health").replace("GET", "POST"),
                405,
                "Method not allowed",
            ),
            (body.to_owned(), 413, "The body is too large"),
        ];
        for (request, status, text) in &cases {
            let tcp = TcpStream::connect(harness.admin().unwrap()).await.unwrap();
            let answer = ask_admin(tcp, request).await;
            assert_eq!(answer.status, *status, "{request}");
            assert!(answer.body.contains(text), "{request}: {}", answer.body);
            assert!(answer.head.contains("connection: close"), "{request}");
            if *status >= 400 {
                assert_eq!(answer.json()["code"], *status, "{request}");
            }
            let unix = UnixStream::connect(&socket).await.unwrap();
            assert_eq!(ask_admin(unix, request).await.status, *status, "{request}");
        }
        drop(harness);
        assert!(!socket.exists());
    });
}

#[test]
fn more_admin_connections_than_there_are_places_wait_for_one() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("admin.listen", "127.0.0.1:0");
            files.set("admin.hosts", &["admin", "a"][..]);
        });
        let address = harness.admin().unwrap();
        let mut idle = Vec::new();
        for _ in 0..40 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let asking = tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            ask_admin(stream, &get("/health")).await.status
        });
        drop(idle);
        assert_eq!(within("a place", asking).await.unwrap(), 200);
    });
}

#[test]
fn an_admin_address_that_others_can_reach_is_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8444"] {
        let refused = Harness::refuses_to_start(|files| files.set("admin.listen", address));
        assert!(refused.contains("other machines"), "{refused}");
    }
}

#[test]
fn the_backend_gets_its_own_credential_the_client_s_token_or_none() {
    run(async {
        let harness = Harness::start(|files| {
            write(
                &files.directory().join("backend.secret"),
                "Basic hunter2-backend-1\n",
                0o600,
            );
            files.routes(&[
                "path = \"/replace\"\nauthorization = \"replace\"\n\
                 authorization_file = \"backend.secret\"",
                "path = \"/keep\"\nauthorization = \"keep\"",
                "path = \"/strip\"\nauthorization = \"strip\"",
            ]);
        });
        let client = harness.signed_in().await;
        let token = client.token.as_ref().unwrap().secret();
        let post = async |path: &str| {
            let number = harness.upstream.requests() + 1;
            let answer = client.post(path, "{}").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let head = harness.upstream.whole(number).await.head;
            head.field("Authorization").map(str::to_owned)
        };
        // Compared, never shown.
        assert!(post("/replace").await.as_deref() == Some("Basic hunter2-backend-1"));
        assert!(post("/keep").await.as_deref() == Some(token));
        assert!(post("/strip").await.is_none());
        let secret = harness.files().directory().join("backend.secret");
        write(&secret, "Basic hunter2-backend-2\n", 0o600);
        harness.reload();
        assert!(post("/replace").await.as_deref() == Some("Basic hunter2-backend-2"));
        write(&secret, "two\nlines\n", 0o600);
        harness.reload();
        assert!(post("/replace").await.as_deref() == Some("Basic hunter2-backend-2"));
        // Noticed by itself, some time.
        write(&secret, "Basic hunter2-backend-3\n", 0o600);
        within("the new credential", async {
            while post("/replace").await.as_deref() != Some("Basic hunter2-backend-3") {}
        })
        .await;
    });
}

#[test]
fn a_gateway_does_not_start_without_the_credential_that_it_is_to_send() {
    let route = "path = \"/a\"\nauthorization = \"replace\"";
    let with_file = format!("{route}\nauthorization_file = \"backend.secret\"");
    let refused = Harness::refuses_to_start(|files| files.routes(&[route]));
    assert!(refused.contains("authorization_file"), "{refused}");
    let refused = Harness::refuses_to_start(|files| files.routes(&[&with_file]));
    assert!(refused.contains("there is no file"), "{refused}");
    for (text, mode, reason) in [
        ("Basic hunter2-x", 0o644, "chmod 600"),
        ("Basic hunter2-x\nBasic hunter2-y", 0o600, "one line"),
        ("", 0o600, "one line"),
    ] {
        let refused = Harness::refuses_to_start(|files| {
            write(&files.directory().join("backend.secret"), text, mode);
            files.routes(&[&with_file]);
        });
        assert!(refused.contains(reason), "the reason is not {reason}");
        assert!(!refused.contains("hunter2"), "the secret is told");
    }
}

/// What a refusal tells beyond its status and text: `WWW-Authenticate` and `Proxy-Status`.
async fn told(harness: &Harness, ask: Ask, user: Option<&str>) -> (u16, String, String) {
    let client = match user {
        Some(user) => harness.signed_in_as(user).await,
        None => harness.anonymous(),
    };
    let answer = client.send(ask).await;
    let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
    (
        answer.status,
        header("WWW-Authenticate"),
        header("Proxy-Status"),
    )
}

#[test]
fn one_switch_keeps_the_reasons_of_401_and_403_from_clients() {
    let unknown = || customer().field("Authorization", "Bearer nonsense");
    let start = |detail: bool| {
        Harness::start(|files| {
            files.set("answers.detail", detail);
            files.users(&[
                ("till-01", "allow = [{ route = \"/api/GetData\" }]"),
                (
                    "shop-02",
                    "allow = [{ route = \"/api/SyncData\", forms = [\"get*\"] }]",
                ),
            ]);
        })
    };
    run(async {
        let open = start(true);
        let (status, challenge, proxy) = told(&open, unknown(), None).await;
        assert_eq!(status, 401);
        assert!(challenge.contains("52 characters"), "{challenge}");
        assert!(proxy.contains("52 characters"), "{proxy}");
        let (_, _, route) = told(&open, customer(), Some("till-01")).await;
        let (_, _, form) = told(&open, customer(), Some("shop-02")).await;
        assert_ne!(route, form, "which right is missing");

        let closed = start(false);
        assert_eq!(
            told(&closed, unknown(), None).await,
            (
                401,
                "Bearer realm=\"syncgate\", error=\"invalid_token\", \
                 error_description=\"Token is invalid or expired\""
                    .to_owned(),
                "syncgate; error=http_request_denied; details=\"Token is invalid or expired\""
                    .to_owned(),
            )
        );
        let (_, challenge, _) = told(&closed, customer(), None).await;
        assert_eq!(challenge, "Bearer realm=\"syncgate\"");
        for user in ["till-01", "shop-02"] {
            assert_eq!(
                told(&closed, customer(), Some(user)).await,
                (
                    403,
                    "Bearer realm=\"syncgate\", error=\"insufficient_scope\", \
                     error_description=\"No access to the resource\""
                        .to_owned(),
                    "syncgate; error=http_request_denied; details=\"No access to the resource\""
                        .to_owned(),
                ),
                "{user}"
            );
        }
        // What is no matter of rights is explained as ever.
        let (status, _, proxy) = told(&closed, Ask::get("/api/SyncData"), None).await;
        assert_eq!(status, 405);
        assert!(proxy.contains("method not allowed"), "{proxy}");
    });
}

/// What the verifier of `examples/backend/aspnet-core` makes of the values of the header.
fn verifier(audience: &str, path: &str, now: i64, set: &Path, values: &[String]) -> Vec<String> {
    let mut child = std::process::Command::new("mono")
        .arg(compiled_verifier())
        .args([audience, path, &now.to_string()])
        .arg(set)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("mono, which `make tools` installs");
    let lines = values.join("\n") + "\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn compiled_verifier() -> &'static Path {
    static COMPILED: OnceLock<PathBuf> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("identity-{}.exe", std::process::id()));
        let output = std::process::Command::new("mcs")
            .args([
                "-warnaserror",
                "-r:System.Numerics",
                "-r:System.Runtime.Serialization",
                "-r:System.Xml.Linq",
            ])
            .arg(format!("-out:{}", fresh.display()))
            .arg(here.join("examples/backend/aspnet-core/IdentityVerifier.cs"))
            .arg(here.join("tests/identity/Check.cs"))
            .output()
            .expect("mcs, which `make tools` installs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        fresh
    })
}

#[test]
fn the_example_backend_takes_what_the_gateway_signed_and_nothing_else() {
    run(async {
        let rights = "allow = [{ route = \"/api/SyncData\", forms = [\"set*\"] }]";
        let harness = signing(Algorithm::Es256, |files| {
            files.users(&[("till-01", rights)])
        });
        let other = signing(Algorithm::Es256, |_| {});
        let jws = async |harness: &Harness| {
            let head = head_of(harness, "till-01", customer()).await;
            head.field("X-Auth-Identity").unwrap().to_owned()
        };
        let (genuine, foreign) = (jws(&harness).await, jws(&other).await);
        let [header, payload, signature] = genuine.split('.').collect::<Vec<_>>()[..] else {
            panic!("a compact JWS has three parts");
        };
        let claims = URL_SAFE_NO_PAD.decode(payload).unwrap();
        let forged = String::from_utf8(claims)
            .unwrap()
            .replace("till-01", "admin");
        let forged = URL_SAFE_NO_PAD.encode(forged);
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let values = [
            genuine.clone(),
            format!("{header}.{forged}.{signature}"),
            format!("{header}.{payload}.{}", foreign.rsplit('.').next().unwrap()),
            format!("{header}.{payload}.{}", "A".repeat(86)),
            format!("{header}.{payload}."),
            format!("{header}.{payload}"),
            format!("{none}.{payload}."),
            format!("{genuine}.x"),
            foreign,
            "nonsense".to_owned(),
            String::new(),
            genuine.clone(),
        ];
        let set = harness.files().directory().join("keys.json");
        fs::write(&set, key_set(&harness).await.to_string()).unwrap();
        let yes = "till-01 /api/SyncData setCustomer";
        let mut expected = vec!["refused"; values.len()];
        expected[0] = yes;
        expected[values.len() - 1] = yes;
        let found = verifier("backend", "/api/SyncData", START, &set, &values);
        assert_eq!(found, expected);
        let one = std::slice::from_ref(&genuine);
        for (audience, path, now, expected) in [
            ("backend", "/api/SyncData", START + 34, yes),
            ("backend", "/api/SyncData", START + 35, "refused"),
            ("backend", "/api/SyncData", START - 6, "refused"),
            ("backend", "/api/GetData", START, "refused"),
            ("another", "/api/SyncData", START, "refused"),
        ] {
            let found = verifier(audience, path, now, &set, one);
            assert_eq!(found, [expected], "{audience} {path} {}", now - START);
        }
    });
}
