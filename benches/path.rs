//! The steps of a request that do no I/O, each by itself.

use std::fs::{self, Permissions};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use ring::rand::SystemRandom;
use syncgate::access::permit::AccessDecision;
use syncgate::access::{bearer, permit};
use syncgate::accounts::Accounts;
use syncgate::clock::{Clock, UnixMillis};
use syncgate::connection::{ClientConnection, Http1, SlotKind, State, Transport};
use syncgate::gateway::record::{AccessLog, AccessRecord};
use syncgate::limits::Limits;
use syncgate::login::password_cache::PasswordCache;
use syncgate::message::headers::{AuthorizationHeader, KeptHeaders};
use syncgate::message::headers::{Identity, for_upstream};
use syncgate::observe::{AccessSink, Style};
use syncgate::origin::Source;
use syncgate::password::Password;
use syncgate::password::hash_password;
use syncgate::request_id::RequestIds;
use syncgate::route::{Destination, RouteSection, Routes};
use syncgate::session::{AccountId, PasswordMark};
use syncgate::session::{Login, Session};
use syncgate::store::{TokenStore, TokensSection};
use syncgate::token::{IssuedToken, TokenDigest};
use syncgate::upstream::Attempts;
use tempfile::TempDir;
use tokio::time::Instant;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn token() -> IssuedToken {
    IssuedToken::generate(&SystemRandom::new()).expect("random numbers")
}

/// Good for as long as any.
fn session(account: AccountId, mark: PasswordMark) -> Session {
    let login = Login {
        account,
        mark,
        source: Source::of(PEER),
        at: UnixMillis::EPOCH.seconds(),
    };
    Session::begin(login, Duration::MAX)
}

fn client() -> ClientConnection {
    let server_name = None;
    ClientConnection::new(
        SocketAddr::from((PEER, 50_123)).into(),
        Transport::Tls { server_name },
        SlotKind::Served,
        State::Http1(Http1::default()),
        &Limits::default(),
    )
}

/// What a client of this API sends.
fn request_headers(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (ACCEPT, "application/json, text/plain, */*"),
        (CONTENT_TYPE, "application/json"),
        (AUTHORIZATION, authorization),
        (USER_AGENT, "axios/1.7.2"),
        (CONTENT_LENGTH, "1024"),
        (CONNECTION, "keep-alive"),
        (
            HeaderName::from_static("accept-encoding"),
            "gzip, deflate, br",
        ),
    ] {
        headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
    }
    headers
}

fn read_bearer(c: &mut Criterion) {
    let token = token();
    let mut group = c.benchmark_group("bearer");
    for (name, value) in [
        ("scheme", format!("Bearer {}", token.expose())),
        ("bare", token.expose().to_owned()),
        ("malformed", format!("Bearer {}", &token.expose()[..51])),
    ] {
        let headers = request_headers(&value);
        group.bench_function(name, |b| {
            b.iter(|| {
                bearer::presented(black_box(&headers))
                    .map(|token| token.digest())
                    .is_ok()
            });
        });
    }
    group.finish();
}

fn look_up_token(c: &mut Criterion) {
    let mut group = c.benchmark_group("token_lookup");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let now = UnixMillis::EPOCH;
    for tokens in [10_000, 1_000_000] {
        let section = TokensSection {
            per_user: NonZeroUsize::MAX,
            ..TokensSection::default()
        };
        let store = TokenStore::in_memory(&section);
        let digests: Vec<TokenDigest> = (0..tokens)
            .map(|_| {
                let digest = token().digest();
                let session = session(AccountId::new(0), PasswordMark::from_bytes([7; 8]));
                runtime
                    .block_on(store.issue(digest, session, now))
                    .expect("room");
                digest
            })
            .collect();
        // A large odd stride visits all of them in an order that no cache foresees.
        let mut at = 0;
        group.bench_function(BenchmarkId::new("live", tokens), |b| {
            b.iter(|| {
                at = (at + 7_919_001) % digests.len();
                store.find(black_box(digests[at]), now)
            });
        });
        let unknown = token().digest();
        group.bench_function(BenchmarkId::new("unknown", tokens), |b| {
            b.iter(|| store.find(black_box(unknown), now));
        });
    }
    group.finish();
}

fn rewrite_headers(c: &mut Criterion) {
    let headers = request_headers(&format!("Bearer {}", token().expose()));
    let ids = RequestIds::new();
    let now = Clock::system().now();
    let host = HeaderValue::from_static("erp.example");
    let signed_header = HeaderName::from_static("x-auth-identity");
    let client = client();
    let mut head = Vec::new();
    c.bench_function("headers_for_upstream", |b| {
        b.iter(|| {
            let identity = Identity {
                user: HeaderValue::from_static("till-01"),
                request_id: ids.next(now).to_header(),
                forwarded: &client.forwarded(Some("gateway.example")),
                trace: (ids.random(), ids.random()),
                signed_header: &signed_header,
                kept: &KeptHeaders::default(),
                signed: None,
                credential: None,
            };
            head.clear();
            let rule = AuthorizationHeader::Strip;
            for_upstream(&headers, rule, &host, &identity, |name, value| {
                head.extend_from_slice(name.as_str().as_bytes());
                head.extend_from_slice(value.as_bytes());
            });
            head.len()
        });
    });
}

/// Accounts with every kind of right, and a password whose hash is of the usual cost.
fn accounts(directory: &TempDir) -> Accounts {
    let hash = hash_password(&Password::new("open sesame".to_owned())).expect("hashed");
    let users = [
        ("everything", r#""*""#),
        (
            "routes",
            r#"[{ route = "/api/SyncData" }, { route = "/api/GetData" }]"#,
        ),
        (
            "forms",
            r#"[{ route = "/api/SyncData", forms = ["setCustomer", "setInvoice"] }]"#,
        ),
    ];
    let users = users
        .map(|(name, allow)| format!("[users.{name}]\npassword = \"{hash}\"\nallow = {allow}\n"));
    let path = directory.path().join("users.toml");
    fs::write(&path, users.concat()).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("private");
    Accounts::open(&path, RouteSection::defaults()).expect("usable accounts")
}

fn parts() -> Parts {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/api/SyncData".parse().expect("a path");
    *request.headers_mut() = request_headers("x");
    request.into_parts().0
}

fn decide_rights(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let accounts = accounts(&directory);
    let routes = Routes::new(&RouteSection::defaults());
    let now = Clock::system().now();
    let mut group = c.benchmark_group("rights");
    group.bench_function("route", |b| {
        b.iter(|| {
            routes
                .find(black_box(&Method::POST), black_box("/api/SyncData"))
                .is_ok()
        });
    });
    let Ok(Destination::Forward(route)) = routes.find(&Method::POST, "/api/SyncData") else {
        panic!("a default route");
    };
    for name in ["everything", "routes", "forms"] {
        let account = accounts.find(name).expect("an account");
        let session = session(account.id(), account.password_mark());
        group.bench_function(BenchmarkId::new("authorize", name), |b| {
            b.iter_batched(
                parts,
                |parts| {
                    let user = permit::authenticate(Ok(session), &accounts, now).expect("live");
                    let user = permit::admit(user, PEER.into(), now).expect("no networks");
                    match permit::authorize(&user, route, parts).expect("a right") {
                        AccessDecision::Permitted(permit) => permit,
                        AccessDecision::DependsOnForm(undecided) => undecided
                            .decide(Ok(black_box("setInvoice")))
                            .expect("a right"),
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn write_access_record(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let account = accounts(&directory).find("everything");
    let clock = Clock::system();
    let ids = RequestIds::new();
    let mut record = AccessRecord {
        id: ids.next(clock.now()),
        at: clock.now(),
        started: Instant::now(),
        client: None,
        version: Version::HTTP_11,
        method: Some(Method::POST),
        is_login: false,
        route: Some("/api/SyncData".into()),
        token: None,
        account,
        status: Some(StatusCode::OK),
        reason: None,
        would_refuse: None,
        origin_refused: false,
        cause: None,
        relayed: true,
        attempts: Attempts::default(),
        delivery: None,
        replay_of: None,
        duration: Duration::ZERO,
        own: Some(Duration::from_micros(56)),
        upstream: Some(Duration::from_micros(1234)),
        request_body: None,
        bytes_in: 1024,
        bytes_out: 120,
        complete: true,
    };
    let client = client();
    let mut group = c.benchmark_group("access_record");
    for (name, style) in [
        ("json", Style::Json),
        ("text", Style::Text),
        ("common", Style::Common),
    ] {
        let sink = AccessSink::new(std::io::sink(), style);
        let log = AccessLog::new(Some(sink), Arc::default());
        group.bench_function(name, |b| {
            b.iter(|| log.record(black_box(&mut record), &client));
        });
    }
    group.finish();
}

/// What a login costs with its password known from a moment ago, beside the hash that it saves.
fn check_password(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let account = accounts(&directory).find("everything").expect("an account");
    let now = Clock::system().now();
    let minute = Duration::from_secs(60);
    let known = PasswordCache::new(minute, &SystemRandom::new()).expect("random numbers");
    let password = Password::new("open sesame".to_owned());
    known.insert(known.mac(Some(&account), &password), now);
    let mut group = c.benchmark_group("password");
    group.bench_function("known", |b| {
        b.iter(|| {
            let mac = known.mac(Some(&account), black_box(&password));
            assert!(known.contains(&mac, now));
        });
    });
    group.sample_size(20);
    group.bench_function("hash", |b| b.iter(|| hash_password(black_box(&password))));
    group.finish();
}

criterion_group! {
    name = path;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = read_bearer, look_up_token, rewrite_headers, decide_rights, write_access_record,
        check_password
}
criterion_main!(path);
