//! The header fields that the backend sees (contract, section 4).

use crate::support::wire::Head;
use crate::support::{Ask, Client, Harness, run, usually};

/// Names that only the gateway may set, and spellings that a backend could take for them.
const SPOOFS: [&str; 28] = [
    "X-Auth-User",
    "x-auth-user",
    "X-AUTH-USER",
    "X_Auth_User",
    "X_AUTH-USER",
    "x-auth_user",
    "X-Request-Id",
    "X_Request_Id",
    "X-Forwarded-For",
    "X_Forwarded_For",
    "X-Forwarded-Proto",
    "X_FORWARDED_PROTO",
    "X-Forwarded-Host",
    "X_Forwarded-Host",
    "Forwarded",
    "FORWARDED",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Real-IP",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Proxy-Foo",
    "Authorization_",
    "Any_Other",
    "_",
    "Content_Length",
    "Transfer_Encoding",
    "Host_",
];

const SPOOFED: &str = "spoofed-by-client";

async fn both(client: &Client, ask: &Ask) {
    let ask = client.with_token(ask.clone());
    let answer = client.connect().await.exchange(&ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = client.connect_h2().await.exchange(&ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The heads of one request that was sent over each protocol.
async fn heads(harness: &Harness, ask: &Ask) -> Vec<Head> {
    let before = harness.upstream.requests();
    both(&harness.signed_in().await, ask).await;
    let mut heads = Vec::new();
    for number in [before + 1, before + 2] {
        heads.push(harness.upstream.whole(number).await.head);
    }
    heads
}

fn names(head: &Head) -> Vec<String> {
    head.fields
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect()
}

#[test]
fn the_backend_is_told_the_user_the_peer_the_host_and_the_scheme() {
    usually(async |harness: Harness| {
        for head in heads(&harness, &Ask::post("/api/SyncData").json("{}")).await {
            assert_eq!(head.field("x-auth-user"), Some("till-01"));
            assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(head.field("x-forwarded-proto"), Some("https"));
            assert_eq!(head.field("x-forwarded-host"), Some("gateway.test"));
            let forwarded = head
                .field("forwarded")
                .expect("RFC 7239")
                .to_ascii_lowercase();
            let mut parts: Vec<&str> = forwarded.split(';').map(str::trim).collect();
            parts.sort_unstable();
            assert_eq!(parts.len(), 3, "{forwarded}");
            assert_eq!(parts[0], "for=127.0.0.1");
            assert_eq!(parts[1].replace('"', ""), "host=gateway.test");
            assert_eq!(parts[2], "proto=https");
        }
    });
}

#[test]
fn each_user_is_named_to_the_backend_by_the_token() {
    usually(async |harness: Harness| {
        for name in ["till-01", "shop-02"] {
            let client = harness.signed_in_as(name).await;
            client.post("/api/SyncData", "{}").await;
            let seen = harness.upstream.whole(harness.upstream.requests()).await;
            assert_eq!(seen.head.field("x-auth-user"), Some(name));
        }
    });
}

#[test]
fn x_request_id_is_a_fresh_uuid_of_version_7() {
    usually(async |harness: Harness| {
        let heads = heads(&harness, &Ask::post("/api/SyncData").json("{}")).await;
        let ids: Vec<&str> = heads
            .iter()
            .map(|head| head.field("x-request-id").unwrap())
            .collect();
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            let id = uuid::Uuid::parse_str(id).expect("a UUID");
            assert_eq!(id.get_version_num(), 7);
        }
    });
}

#[test]
fn nothing_the_client_says_passes_for_a_header_of_the_gateway() {
    usually(async |harness: Harness| {
        let mut ask = Ask::post("/api/SyncData").json("{}");
        for name in SPOOFS {
            ask = ask.field(name, SPOOFED);
        }
        for head in heads(&harness, &ask).await {
            let passed: Vec<&str> = head
                .fields
                .iter()
                .filter(|(_, value)| value.contains(SPOOFED))
                .map(|(name, _)| name.as_str())
                .collect();
            assert!(passed.is_empty(), "{passed:?} came through");
            for own in [
                "x-auth-user",
                "x-request-id",
                "x-forwarded-for",
                "forwarded",
            ] {
                let folded = names(&head)
                    .iter()
                    .filter(|name| name.replace('_', "-") == own)
                    .count();
                assert_eq!(folded, 1, "{own}");
            }
        }
    });
}

/// Names by which other stacks are told by a proxy who the client is, where it is or what it asks
/// for; of most families one stands for all.
const OF_OTHER_PROXIES: &[&str] = &[
    "Proxy",
    "X-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "Fastly-Client-IP",
    "Fly-Client-IP",
    "Client-IP",
    "X-Cluster-Client-IP",
    "X-Real-IP",
    "X-Original-For",
    "X-Original-Host",
    "X-Original-Proto",
    "X-Original-URL",
    "X-Originating-IP",
    "X-Rewrite-URL",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Forwarded",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-User",
    "X-Remote-User",
    "X-Remote-Addr",
    "Remote-User",
    "Remote-Addr",
    "X-User",
    "X-Authenticated-User",
    "X-Auth-Request-User",
    "X-WebAuth-User",
    "X-Goog-Authenticated-User-Email",
    "X-Amzn-Oidc-Identity",
    "X-Envoy-External-Address",
    "X-MS-CLIENT-PRINCIPAL",
    "X-MS-CLIENT-PRINCIPAL-NAME",
    "X-MS-CLIENT-PRINCIPAL-ID",
    "MS-ASPNETCORE-TOKEN",
    "MS-ASPNETCORE-CLIENTCERT",
    "MS-ASPNETCORE-WINAUTHTOKEN",
    "X-ARR-ClientCert",
    "X-ARR-SSL",
    "X-ARR-LOG-ID",
    "X-SSL-Client-Cert",
    "X-SSL-Client-Verify",
    "SSL-Client-Cert",
    "Client-Cert",
    "Front-End-Https",
    "WL-Proxy-Client-IP",
    "X-Waws-Unencoded-Url",
    "X-Middleware-Subrequest",
    "Incap-Client-IP",
    "X-Sucuri-ClientIP",
    "CloudFront-Viewer-Address",
    "CloudFront-Forwarded-Proto",
    "Akamai-Client-IP",
    "X-Akamai-Edgescape",
    "X-Nf-Client-Connection-Ip",
    "X-Vercel-Forwarded-For",
    "X-CDN-Src-IP",
    "X-Custom-IP-Authorization",
    "X-Forward-For",
    "X-MS-Proxy",
    "X-CF-Forwarded-Url",
    "Shib-Identity-Provider",
    "X-Shib-User",
    "eppn",
    "Mellon-User",
    "CAS-User",
    "OAM-Remote-User",
    "X-Oidc-Username",
    "X-Saml-User",
    "X-Hasura-Role",
    "X-Tls-Client-Subject",
    "TLS-Client-Cert",
    "X-Auth-Email",
    "X-Auth-Groups",
    "X-Auth-Roles",
    "X-Auth-Name",
    "X-Auth-Subject",
    "X-Auth-Userid",
    "X-Auth-Username",
    "X-Email",
    "X-Groups",
    "X-Roles",
    "X-Preferred-Username",
];

/// Whose value says that the client wrote it.
fn passed(head: &Head) -> Vec<&str> {
    let fields = head.fields.iter();
    let spoofed = fields.filter(|(_, value)| value.contains(SPOOFED));
    spoofed.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn names_that_other_stacks_trust_do_not_reach_the_backend() {
    usually(async |harness: Harness| {
        let mut ask = Ask::post("/api/SyncData").json("{}");
        for name in OF_OTHER_PROXIES {
            ask = ask.field(name, SPOOFED);
        }
        for head in heads(&harness, &ask).await {
            assert_eq!(passed(&head), [""; 0]);
        }
    });
}

#[test]
fn names_that_only_begin_alike_are_the_client_s_own() {
    usually(async |harness: Harness| {
        let own = [
            "x-api-key",
            "x-requested-with",
            "x-correlation-id",
            "x-user-agent",
            "x-client-version",
            "x-sslong",
            "client-version",
            "cfo",
            "proxyless",
            "remote",
            "x-b3-traceid",
            "soapaction",
            "x-auth-token",
            "x-auth-key",
            "x-tlsx",
            "cloud",
            "x-emails",
            "x-1",
            "2fa",
        ];
        let mut ask = Ask::post("/api/SyncData").json("{}");
        for name in own {
            ask = ask.field(name, SPOOFED);
        }
        for head in heads(&harness, &ask).await {
            assert_eq!(passed(&head), own);
        }
    });
}

#[test]
fn only_letters_digits_and_hyphens_make_a_name_that_is_forwarded() {
    usually(async |harness: Harness| {
        let mut ask = Ask::post("/api/SyncData").json("{}");
        for character in "!#$%&'*+.^_`|~".chars() {
            for name in ["X-Auth-User", "X-Forwarded-For", "X-Any-Other"] {
                let all = name.replace('-', &character.to_string());
                let one = name.replacen('-', &character.to_string(), 1);
                ask = ask.field(&all, SPOOFED).field(&one, SPOOFED);
            }
        }
        for head in heads(&harness, &ask).await {
            assert_eq!(passed(&head), [""; 0]);
        }
    });
}

#[test]
fn a_route_keeps_the_headers_that_it_lists_and_no_other_does() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&[
                "path = \"/api/SyncData\"\nkeep_headers = [\"X-Client-IP\", \"shop_number\"]",
                "path = \"/api/GetData\"",
            ]);
        });
        let names = [
            "x-client-ip",
            "shop_number",
            "shop.number",
            "x-client-ips",
            "x-real-ip",
        ];
        for (path, kept) in [
            (
                "/api/SyncData",
                &["x-client-ip", "shop_number", "x-client-ips"][..],
            ),
            ("/api/GetData", &["x-client-ips"]),
        ] {
            let mut ask = Ask::post(path).json("{}");
            for name in names {
                ask = ask.field(name, SPOOFED);
            }
            for head in heads(&harness, &ask).await {
                assert_eq!(passed(&head), kept, "{path}");
            }
        }
        // The proxy that sets it may well pass on a client's Connection.
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData")
            .field("Connection", "X-Client-IP, Shop_Number")
            .field("X-Client-IP", SPOOFED)
            .field("Shop_Number", SPOOFED)
            .json("{}");
        assert_eq!(client.send(ask).await.status, 200);
        let seen = harness.upstream.whole(harness.upstream.requests()).await;
        assert_eq!(passed(&seen.head), ["x-client-ip", "shop_number"]);
    });
}

#[test]
fn cookies_arrive_in_one_field_whatever_they_came_in() {
    usually(async |harness: Harness| {
        for (cookies, one) in [
            (&["a=1"][..], "a=1"),
            (&["a=1; b=2", "c=3"], "a=1; b=2; c=3"),
            (&["a=1", "b=2", "a=3"], "a=1; b=2; a=3"),
        ] {
            let mut ask = Ask::post("/api/SyncData").json("{}");
            for cookie in cookies {
                ask = ask.field("Cookie", cookie).field("X-Between", "1");
            }
            for head in heads(&harness, &ask).await {
                assert_eq!(head.all("cookie"), [one]);
            }
        }
    });
}

#[test]
fn a_client_cannot_have_the_gateways_headers_removed_by_naming_them_in_connection() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData")
            .field(
                "Connection",
                "X-Auth-User, X-Request-Id, X-Forwarded-For, Forwarded",
            )
            .field(
                "Connection",
                "Authorization, Host, Content-Length, Content-Type, keep-alive",
            )
            .json("{}");
        assert_eq!(client.send(ask).await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.field("x-auth-user"), Some("till-01"));
        assert!(seen.head.field("x-request-id").is_some());
        assert_eq!(seen.head.field("x-forwarded-for"), Some("127.0.0.1"));
        assert!(seen.head.field("forwarded").is_some());
        assert!(seen.head.field("host").is_some());
        assert_eq!(seen.head.field("content-type"), Some("application/json"));
        assert_eq!(seen.body, b"{}");
    });
}

#[test]
fn hop_by_hop_headers_and_those_named_in_connection_end_at_the_gateway() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData")
            .field("Connection", "X-Hop ,\tx-HOP-too")
            .field("Connection", "Upgrade, HTTP2-Settings")
            .field("X-Hop", "1")
            .field("X-Hop-Too", "1")
            .field("Keep-Alive", "timeout=5")
            .field("TE", "trailers")
            .field("Trailer", "X-Sum")
            .field("Upgrade", "h2c")
            .field("HTTP2-Settings", "AAMAAABkAAQAAP__")
            .field("Proxy-Authorization", "Basic eDp5")
            .field("Proxy-Connection", "keep-alive")
            .field("X-End-To-End", "1")
            .json("{}");
        let answer = client.send(ask).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = harness.upstream.whole(1).await;
        for name in [
            "x-hop",
            "x-hop-too",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "http2-settings",
            "proxy-authorization",
            "proxy-connection",
            "transfer-encoding",
        ] {
            assert_eq!(seen.head.field(name), None, "{name}");
        }
        assert!(
            seen.head
                .field("connection")
                .is_none_or(|value| value == "keep-alive")
        );
        assert_eq!(seen.head.field("x-end-to-end"), Some("1"));
    });
}

#[test]
fn authorization_stays_at_the_gateway_unless_a_route_keeps_it() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&[
                "path = \"/api/SyncData\"",
                "path = \"/api/GetData\"\nauthorization = \"keep\"",
            ]);
        });
        let client = harness.signed_in().await;
        client.post("/api/SyncData", "{}").await;
        client.post("/api/GetData", "{}").await;
        assert!(
            harness
                .upstream
                .whole(1)
                .await
                .head
                .field("authorization")
                .is_none()
        );
        let kept = harness.upstream.whole(2).await;
        let same = kept.head.field("authorization") == client.token.as_ref().map(|t| t.secret());
        assert!(same, "the header was not kept as it came");
        let bytes = harness.upstream.bytes(1);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(
            text.matches("SGT1").count(),
            1,
            "the token went where it must not"
        );
    });
}

#[test]
fn end_to_end_headers_arrive_in_the_clients_order_and_number() {
    usually(async |harness: Harness| {
        let fields = [
            ("User-Agent", "till/1.0"),
            ("Accept", "application/json"),
            ("X-B", "1"),
            ("X-A", "2"),
            ("Accept-Language", "de, en;q=0.5"),
            ("X-B", "3"),
            ("Cookie", "a=1; b=2"),
            ("Content-Type", "application/json"),
            ("If-Match", "\"x\""),
            ("X-Empty", ""),
            ("Idempotency-Key", "77"),
        ];
        let ask = fields.iter().fold(
            Ask::post("/api/SyncData").sized("{}"),
            |ask, (name, value)| ask.field(name, value),
        );
        let client = harness.signed_in().await;
        assert_eq!(client.send(ask).await.status, 200);
        let head = harness.upstream.whole(1).await.head;
        for name in [
            "User-Agent",
            "Accept",
            "X-A",
            "X-B",
            "Cookie",
            "X-Empty",
            "Idempotency-Key",
        ] {
            let sent: Vec<&str> = fields
                .iter()
                .filter(|(field, _)| *field == name)
                .map(|(_, value)| *value)
                .collect();
            assert_eq!(head.all(name), sent, "{name}");
        }
        let sent: Vec<String> = fields
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        let arrived: Vec<String> = names(&head)
            .into_iter()
            .filter(|name| sent.contains(name))
            .collect();
        let mut first_seen: Vec<String> = sent.clone();
        first_seen.dedup();
        let position = |list: &[String], name: &str| list.iter().position(|field| field == name);
        let order = |list: &[String]| {
            let mut names: Vec<String> = first_seen.clone();
            names.sort();
            names.dedup();
            names.sort_by_key(|name| position(list, name));
            names
        };
        assert_eq!(order(&arrived), order(&sent));
    });
}

#[test]
fn host_is_the_upstreams_own_unless_configured() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        client.post("/api/SyncData", "{}").await;
        let authority = harness.upstream.url().strip_prefix("http://").unwrap();
        assert_eq!(
            harness.upstream.whole(1).await.head.field("host"),
            Some(authority)
        );

        let harness = Harness::start(|files| files.set("upstream.host", "erp.internal"));
        for head in heads(&harness, &Ask::post("/api/SyncData").json("{}")).await {
            assert_eq!(head.field("host"), Some("erp.internal"));
            assert_eq!(head.field("x-forwarded-host"), Some("gateway.test"));
        }
    });
}

#[test]
fn a_valid_traceparent_is_continued() {
    usually(async |harness: Harness| {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let ask = Ask::post("/api/SyncData")
            .field("traceparent", &format!("00-{trace}-{parent}-01"))
            .field("tracestate", "vendor=1")
            .json("{}");
        for head in heads(&harness, &ask).await {
            let value = head.field("traceparent").unwrap();
            let parts: Vec<&str> = value.split('-').collect();
            assert_eq!(
                (parts[0], parts[1], parts[3]),
                ("00", trace, "01"),
                "{value}"
            );
            assert_ne!(parts[2], parent, "the gateway is a hop of its own");
            assert_eq!(head.field("tracestate"), Some("vendor=1"));
        }
    });
}

#[test]
fn without_a_valid_traceparent_one_is_created() {
    usually(async |harness: Harness| {
        for bad in [
            "",
            "x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let ask = Ask::post("/api/SyncData")
                .field("traceparent", bad)
                .field("tracestate", "orphan=1")
                .json("{}");
            for head in heads(&harness, &ask).await {
                let value = head.field("traceparent").unwrap();
                let parts: Vec<usize> = value.split('-').map(str::len).collect();
                assert_eq!(parts, [2, 32, 16, 2], "{value}");
                assert!(
                    !value.contains("4bf92f35") && !value.contains("-000000000000"),
                    "{value}"
                );
                assert_eq!(head.field("tracestate"), None);
            }
        }
    });
}

#[test]
fn trailers_of_a_request_are_dropped() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let mut ask = Ask::post("/api/SyncData")
            .field("Trailer", "X-Auth-User, X-Sum")
            .chunked("");
        ask = client.with_token(ask);
        connection.write(&ask.head("gateway.test")).await;
        connection
            .write(b"5\r\nhello\r\n0\r\nX-Auth-User: admin\r\nX-Sum: 1\r\nAuthorization: x\r\n\r\n")
            .await;
        assert_eq!(connection.answer().await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.body, b"hello");
        assert!(seen.trailers.is_empty(), "{:?}", seen.trailers);
        assert_eq!(seen.head.field("x-auth-user"), Some("till-01"));
        assert_eq!(seen.head.field("trailer"), None);
    });
}

#[test]
fn trailers_over_http_2_are_dropped_as_well() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut http2 = client.connect_h2().await;
        let ask = client.with_token(Ask::post("/api/SyncData"));
        let (feed, response) = http2.feed(&ask);
        let response = tokio::spawn(response);
        feed.data("hello").await;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-auth-user", "admin".parse().unwrap());
        feed.trailers(trailers).await;
        drop(feed);
        assert_eq!(response.await.unwrap().unwrap().status(), 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.body, b"hello");
        assert!(seen.trailers.is_empty(), "{:?}", seen.trailers);
        assert_eq!(seen.head.field("x-auth-user"), Some("till-01"));
    });
}
