//! HTTP/2 answers for which the client opens no flow-control window, or next to none: each is given
//! up below the minimum rate, and holds nobody's place after that.

use crate::support::frames::{
    DATA, Frames, HEADERS, SETTINGS, StreamOutcome, WINDOW_UPDATE, frame, status,
};
use crate::support::harness::{Files, password};
use crate::support::upstream::json;
use crate::support::{Ask, Client, Harness, Script, run};

const HOST: &str = "gateway.test";
/// What a stream is reset with: CANCEL.
const GIVEN_UP: StreamOutcome = StreamOutcome::Reset(8);

fn impatient(files: &mut Files) {
    files.set("limits.response_grace", "300ms");
    files.set("quotas.user_requests", 1);
}

/// A connection whose streams begin with no window.
async fn without_windows(client: &Client) -> Frames {
    let mut frames = Frames::connect(client).await;
    let initial_window_size = [0, 4, 0, 0, 0, 0];
    frames
        .send(&frame(SETTINGS, 0, 0, &initial_window_size))
        .await;
    frames
}

fn fields<'a>(path: &'a str, client: &'a Client) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", HOST),
        ("content-type", "application/json"),
    ];
    if let Some(token) = &client.token {
        fields.push(("authorization", token.secret()));
    }
    fields
}

async fn open_window(frames: &mut Frames, stream: u32, length: u32) {
    let update = frame(WINDOW_UPDATE, 0, stream, &length.to_be_bytes());
    frames.send(&update).await;
}

/// Reads the answer on a stream until so many bytes of its body have come.
async fn take(frames: &mut Frames, stream: u32, length: usize) {
    let mut taken = 0;
    while taken < length {
        let (kind, _, on, payload) = frames.next().await.expect("a frame");
        match kind {
            HEADERS if on == stream => assert_eq!(status(&payload), 200),
            DATA if on == stream => taken += payload.len(),
            _ => {}
        }
    }
    assert_eq!(taken, length);
}

// The last or only part of an answer was under no rate: with no window for it the stream, and its
// user's place, were held for as long as the client answered PING.
#[test]
fn an_answer_of_one_part_that_finds_no_window_is_given_up_and_frees_its_place() {
    run(async {
        let harness = Harness::start(impatient);
        let client = harness.signed_in().await;
        let anonymous = harness.anonymous();
        let mut frames = without_windows(&client).await;
        for (stream, path, who, status) in [
            (1, "/api/SyncData", &anonymous, 401),
            (3, "/api/Nothing", &anonymous, 404),
            (5, "/api/SyncData", &client, 200),
        ] {
            frames.headers(stream, &fields(path, who), true).await;
            assert_eq!(
                frames.outcome(stream).await,
                StreamOutcome::Answered(status)
            );
            assert_eq!(frames.outcome(stream).await, GIVEN_UP, "{status}");
        }
        frames
            .headers(7, &fields("/api/getToken", &anonymous), false)
            .await;
        let login = serde_json::json!({ "username": "till-01", "password": password("till-01") });
        frames.data(7, login.to_string().as_bytes(), true).await;
        assert_eq!(frames.outcome(7).await, StreamOutcome::Answered(200));
        assert_eq!(frames.outcome(7).await, GIVEN_UP, "a login");
        let next = client.send(Ask::post("/api/SyncData").json("{}")).await;
        assert_eq!(next.status, 200, "{next:?}");
    });
}

#[test]
fn the_last_part_of_an_answer_that_finds_no_window_is_given_up_as_any_other() {
    run(async {
        let harness = Harness::start(impatient);
        let client = harness.signed_in().await;
        let (first, last) = (vec![b'x'; 50_000], b"the end".to_vec());
        let length = first.len() + last.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let script = Script::EarlyInParts([head.into_bytes(), first.clone()].concat(), last);
        harness.upstream.next(script);
        let mut frames = without_windows(&client).await;
        frames
            .headers(1, &fields("/api/GetData", &client), false)
            .await;
        open_window(&mut frames, 1, 50_000).await;
        take(&mut frames, 1, first.len()).await;
        // The upstream sends the end of its answer when it has the end of the request.
        frames.data(1, b"{}", true).await;
        assert_eq!(frames.outcome(1).await, GIVEN_UP);
        let next = client.send(Ask::post("/api/SyncData").json("{}")).await;
        assert_eq!(next.status, 200, "{next:?}");
    });
}

// With room for one byte the whole last part, up to 256 KiB, was taken from the request and its
// limits, and was kept for as long as the connection lived.
#[test]
fn an_answer_counts_for_its_user_until_at_most_a_frame_of_it_is_left() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.user_requests", 1));
        let client = harness.signed_in().await;
        let length = 2_000_000;
        harness.upstream.next(Script::Stream {
            length,
            sized: true,
        });
        let mut frames = without_windows(&client).await;
        open_window(&mut frames, 0, 4_000_000).await;
        frames
            .headers(1, &fields("/api/GetData", &client), true)
            .await;
        let most = length as u32 - 20_000;
        open_window(&mut frames, 1, most).await;
        take(&mut frames, 1, most as usize).await;
        let ask = Ask::post("/api/SyncData").json("{}");
        let other = client.send(ask.clone()).await;
        assert_eq!(other.status, 429, "{other:?}");
        open_window(&mut frames, 1, 20_000).await;
        take(&mut frames, 1, 20_000).await;
        let other = client.send(ask).await;
        assert_eq!(other.status, 200, "{other:?}");
    });
}

#[test]
fn a_connection_whose_answers_were_given_up_ends_as_any_other_that_rests() {
    run(async {
        let harness = Harness::start(|files| {
            impatient(files);
            files.set("limits.header_read", "2s");
            files.set("limits.keep_alive", "300ms");
            files.set("limits.linger", "100ms");
        });
        let client = harness.anonymous();
        let mut frames = without_windows(&client).await;
        for stream in [1, 3, 5] {
            frames
                .headers(stream, &fields("/api/SyncData", &client), true)
                .await;
        }
        // Whatever it is sent meanwhile, in the end it is told to leave.
        let mut told = false;
        while let Some((kind, ..)) = frames.next().await {
            told |= kind == crate::support::frames::GOAWAY;
        }
        assert!(told, "it was cut off without GOAWAY");
    });
}

#[test]
fn the_deadline_of_a_request_holds_while_its_answer_finds_no_window() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.request", "300ms");
            files.set("quotas.user_requests", 1);
        });
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Answer(json(200, "{}")));
        let mut frames = without_windows(&client).await;
        frames
            .headers(1, &fields("/api/GetData", &client), true)
            .await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(200));
        assert_eq!(frames.outcome(1).await, GIVEN_UP);
        let next = client.send(Ask::post("/api/SyncData").json("{}")).await;
        assert_eq!(next.status, 200, "{next:?}");
    });
}
