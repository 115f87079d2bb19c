//! Whatever a client does with a body that it has no right to, no complete request comes out behind
//! the gateway.

use std::collections::VecDeque;

use bytes::Bytes;

use super::rights_matrix::{WAYS, Way};
use crate::support::harness::NAME;
use crate::support::{Answer, Ask, Client, Harness, ask, http2, run};

/// A gateway for a user with a right to one form, and no other.
fn with_one_form(test: impl AsyncFnOnce(Harness)) {
    run(async {
        test(Harness::start(|files| {
            let allow = "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]";
            files.users(&[("till-01", allow)]);
            files.routes(&["path = \"/api/SyncData\"\nmax_body = \"1GiB\""]);
            // However slow the machine is, a client that goes on sending reads its answer.
            files.set("limits.linger", "60s");
        }))
        .await;
    });
}

/// Sends a body piece by piece, as long as it is taken; the answer.
async fn send(
    client: &Client,
    way: Way,
    pieces: impl IntoIterator<Item = Bytes>,
    length: usize,
) -> Answer {
    let ask = Ask::post("/api/SyncData").field("Content-Type", "application/json");
    let ask = client.with_token(match way {
        Way::Sized | Way::Http2 => ask.field("Content-Length", &length.to_string()),
        Way::Chunked => ask.field("Transfer-Encoding", "chunked"),
    });
    if way == Way::Http2 {
        let mut connection = client.connect_h2().await;
        let (feed, response) = connection.feed(&ask);
        for piece in pieces {
            if !feed.bytes(piece).await {
                break;
            }
        }
        drop(feed);
        let response = response.await.expect("an answer");
        return http2::read(response).await.expect("a whole answer");
    }
    let mut connection = client.connect().await;
    connection.write(&ask.head(NAME)).await;
    let mut pieces: VecDeque<Bytes> = pieces.into_iter().collect();
    if way == Way::Chunked {
        pieces
            .iter_mut()
            .for_each(|piece| *piece = ask::chunk(piece).into());
        pieces.push_back(Bytes::from_static(b"0\r\n\r\n"));
    }
    for piece in pieces {
        if connection.try_write(&piece).await.is_err() {
            break;
        }
    }
    connection.answer().await
}

fn cut(body: &str, size: usize) -> Vec<Bytes> {
    body.as_bytes()
        .chunks(size)
        .map(Bytes::copy_from_slice)
        .collect()
}

/// Fails if a request from this number on (from 0) is whole at the upstream.
async fn assert_none_whole(harness: &Harness, from: usize, what: &str) {
    for number in from..harness.upstream.requests() {
        let seen = harness.upstream.ended(number + 1).await;
        assert_eq!(seen.whole, Some(false), "{what}");
    }
}

const SPLITS: [usize; 5] = [1, 7, 64, 100, 100_000];

#[test]
fn a_body_that_may_pass_arrives_whole_however_it_is_cut() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let rows = r#"{"a":1,"b":"two"},"#.repeat(20);
        for body in [
            format!(r#"{{"form":"setCustomer","data":[{rows}0]}}"#),
            format!(r#"{{"data":[{rows}0],"form":"SetCustomer"}}"#),
        ] {
            for way in WAYS {
                for size in SPLITS {
                    let number = harness.upstream.requests() + 1;
                    let answer = send(&client, way, cut(&body, size), body.len()).await;
                    assert_eq!(answer.status, 200, "{way:?} {size}: {answer:?}");
                    let seen = harness.upstream.whole(number).await;
                    assert_eq!(seen.body, body.as_bytes(), "{way:?} {size}");
                }
            }
        }
    });
}

#[test]
fn a_body_without_the_right_is_never_whole_behind_however_it_is_cut() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let rows = r#"{"a":1,"form":"setCustomer"},"#.repeat(20);
        let good = format!(r#"{{"form":"setCustomer","data":[{rows}0]"#);
        // A wrong form may be known before what follows it is; both are refusals.
        let cases: [(&[u16], String); 12] = [
            (
                &[403],
                format!(r#"{{"form":"setVoucher","data":[{rows}0]}}"#),
            ),
            (
                &[403],
                format!(r#"{{"data":[{rows}0],"form":"setVoucher"}}"#),
            ),
            (&[400], format!(r#"{{"data":[{rows}0]}}"#)),
            (
                &[400, 403],
                format!(r#"{{"Form":"setVoucher","data":[{rows}0],"form":"setCustomer"}}"#),
            ),
            (&[400], format!(r#"{good},"form":"setVoucher"}}"#)),
            (&[400], format!(r#"{good},"FORM":"setCustomer"}}"#)),
            (&[400], format!(r#"{good},"f\u006frm":"setVoucher"}}"#)),
            (&[400], format!(r#"{good},form:"setVoucher"}}"#)),
            (&[400], format!(r#"{good}/*,*/}}"#)),
            (&[400], format!(r#"{good}}},{{"form":"setVoucher"}}"#)),
            (&[400], good.clone()),
            (&[400], format!("\u{feff}{good}}}")),
        ];
        for (statuses, body) in cases {
            for way in WAYS {
                for size in SPLITS {
                    let what = format!("{way:?} {size} {}", &body[body.len() - 40..]);
                    let before = harness.upstream.requests();
                    let answer = send(&client, way, cut(&body, size), body.len()).await;
                    assert!(statuses.contains(&answer.status), "{what}: {answer:?}");
                    assert_none_whole(&harness, before, &what).await;
                }
            }
        }
        assert!(
            harness.upstream.requests() > 0,
            "some began to be forwarded"
        );
    });
}

#[test]
fn a_form_without_the_right_is_refused_before_the_rest_of_the_body_comes() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let start = format!(r#"{{"form":"setVoucher","data":"{}"#, "x".repeat(100));
        for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
            let (name, value) = framing.split_once(": ").unwrap();
            let ask = Ask::post("/api/SyncData").field(name, value);
            let ask = client.with_token(ask.field("Content-Type", "application/json"));
            let mut connection = client.connect().await;
            connection.write(&ask.head(NAME)).await;
            let piece = match name {
                "Content-Length" => start.clone().into_bytes(),
                _ => ask::chunk(start.as_bytes()),
            };
            connection.write(&piece).await;
            // No more is sent: it is not waited for, as a body to be thrown away would be.
            connection.finish().await;
            assert_eq!(connection.answer().await.status, 403, "{framing}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

const MIB: usize = 1024 * 1024;

/// `first`, 50 MiB of data in pieces, and `last`.
fn fifty_mebibytes(first: &str, last: &str) -> (impl Iterator<Item = Bytes>, usize) {
    let data = Bytes::from(r#""a row of data","#.repeat(MIB / 16));
    let length = first.len() + 50 * data.len() + last.len();
    let first = Bytes::copy_from_slice(first.as_bytes());
    let last = Bytes::copy_from_slice(last.as_bytes());
    let rows = std::iter::repeat_n(data, 50);
    (std::iter::once(first).chain(rows).chain([last]), length)
}

#[test]
fn a_form_after_50_mib_is_413_and_nothing_of_the_request_arrives() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        for form in ["setVoucher", "setCustomer"] {
            for way in WAYS {
                let last = format!(r#"0],"form":"{form}"}}"#);
                let (pieces, length) = fifty_mebibytes(r#"{"data":["#, &last);
                let answer = send(&client, way, pieces, length).await;
                assert_eq!(answer.status, 413, "{way:?} {form}: {answer:?}");
                assert!(
                    answer.text().contains("limits.form_lookahead"),
                    "{answer:?}"
                );
            }
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_second_form_after_50_mib_ends_the_request_before_it_is_whole() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut number = 0;
        for (way, key) in WAYS.into_iter().zip(["form", "Form", "f\\u004Frm"]) {
            let last = format!(r#"0],"{key}":"setVoucher"}}"#);
            let (pieces, length) = fifty_mebibytes(r#"{"form":"setCustomer","data":["#, &last);
            let answer = send(&client, way, pieces, length).await;
            assert_eq!(answer.status, 400, "{way:?} {key}: {answer:?}");
            number += 1;
            let seen = harness.upstream.ended(number).await;
            assert_eq!(seen.whole, Some(false), "{way:?} {key}");
            assert!(
                seen.length > MIB as u64,
                "it was on its way: {way:?} {}",
                seen.length
            );
            assert!(seen.length < length as u64, "{way:?}");
        }
        assert_eq!(harness.upstream.requests(), number);
    });
}
