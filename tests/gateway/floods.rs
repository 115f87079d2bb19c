//! HTTP/2 clients that send frames without end which cost them little: the connection ends, and
//! nobody else notices.

use crate::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, StreamOutcome, WINDOW_UPDATE,
};
use crate::support::{Ask, Child, Client, Harness, Script, Stage, run, usually};

/// The error code ENHANCE_YOUR_CALM.
const CALM: StreamOutcome = StreamOutcome::GoAway(11);

/// A stream that no test opens, to wait for the outcome on the connection.
const NONE: u32 = 0x7fff_ffff;

/// How many frames make a flood.
const FLOOD: usize = 10_000;

/// The header block of a request that is forwarded.
fn request(client: &Client) -> Vec<u8> {
    let token = client.token.as_ref().unwrap().secret();
    frames::block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/api/SyncData"),
        ("authorization", token),
    ])
}

/// The client streams with odd numbers, in order.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frames::frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frames::frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// That others are served as ever.
async fn assert_unharmed(client: &Client) {
    let ask = Ask::post("/api/SyncData").json("{}");
    let answer = client
        .connect_h2()
        .await
        .exchange(&client.with_token(ask))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

// CVE-2023-44487: the streams are reset before the gateway has looked at them.
#[test]
fn a_flood_of_streams_reset_at_once_ends_the_connection_and_hardly_reaches_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let block = request(&client);
        let flood: Vec<u8> = streams()
            .take(FLOOD)
            .flat_map(|stream| {
                let opened = frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
                [opened, reset(stream)].concat()
            })
            .collect();
        let mut frames = Frames::connect(&client).await;
        frames.send(&flood).await;
        assert_eq!(frames.outcome(NONE).await, CALM);
        assert!(
            harness.upstream.requests() < 700,
            "{}",
            harness.upstream.requests()
        );
        assert_unharmed(&client).await;
    });
}

// The same with patience: each stream is reset as soon as it costs the upstream something.
#[test]
fn a_flood_of_streams_reset_while_they_are_served_ends_the_connection() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness
            .upstream
            .always(Script::Stall(Stage::BeforeResponse));
        let block = request(&client);
        let mut frames = Frames::connect(&client).await;
        let mut streams = streams();
        let mut begun = 0;
        while begun < 500 {
            let batch: Vec<u32> = streams.by_ref().take(50).collect();
            let opened = batch
                .iter()
                .map(|&stream| frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
            frames.send(&opened.collect::<Vec<_>>().concat()).await;
            begun += batch.len();
            harness.upstream.stalled(begun).await;
            let resets: Vec<u8> = batch.iter().flat_map(|&stream| reset(stream)).collect();
            frames.send(&resets).await;
        }
        // However long that took, what has come back meanwhile is used up too.
        frames.send(&reset(1).repeat(FLOOD)).await;
        assert_eq!(frames.outcome(NONE).await, CALM);
        harness.upstream.closed_in_all(begun).await;
        harness.upstream.always(Script::Echo);
        assert_unharmed(&client).await;
    });
}

// CVE-2025-8671: the client makes the gateway reset its streams, which a count of the client's own
// resets does not see.
#[test]
fn a_flood_of_streams_that_the_gateway_has_to_reset_ends_the_connection() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let block = request(&client);
        let open =
            |stream: u32, flags: u8| frames::frame(HEADERS, END_HEADERS | flags, stream, &block);
        type Fault<'a> = (&'a str, Box<dyn Fn(u32) -> Vec<u8> + 'a>);
        let faults: [Fault<'_>; 5] = [
            ("a window over its limit", {
                Box::new(|stream| [open(stream, END_STREAM), window(stream, 0x7fff_ffff)].concat())
            }),
            ("a window update of nothing", {
                Box::new(|stream| [open(stream, END_STREAM), window(stream, 0)].concat())
            }),
            ("data after the end", {
                let data = |stream| frames::frame(DATA, 0, stream, b"x");
                Box::new(move |stream| [open(stream, END_STREAM), data(stream)].concat())
            }),
            ("headers after the end", {
                Box::new(|stream| [open(stream, END_STREAM), open(stream, END_STREAM)].concat())
            }),
            ("a stream that depends on itself", {
                let priority = |stream: u32| [&stream.to_be_bytes()[..], &[0]].concat();
                Box::new(move |stream| {
                    let priority = frames::frame(PRIORITY, 0, stream, &priority(stream));
                    [open(stream, END_STREAM), priority].concat()
                })
            }),
        ];
        for (what, fault) in faults {
            let flood: Vec<u8> = streams().take(FLOOD).flat_map(fault).collect();
            let mut frames = Frames::connect(&client).await;
            frames.send(&flood).await;
            let outcome = frames.outcome(NONE).await;
            let ended = matches!(outcome, StreamOutcome::GoAway(code) if code != 0);
            assert!(ended, "{what}: {outcome:?}");
            assert_unharmed(&client).await;
        }
    });
}

// CVE-2024-27316 and others: a header block that never ends.
#[test]
fn a_flood_of_continuation_frames_ends_the_connection() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let more = frames::block(&[("x-more", "1")]);
        for piece in [&more[..], &[]] {
            let mut flood = frames::frame(HEADERS, END_STREAM, 1, &request(&client));
            for _ in 0..FLOOD {
                flood.extend(frames::frame(CONTINUATION, 0, 1, piece));
            }
            let mut frames = Frames::connect(&client).await;
            frames.send(&flood).await;
            assert_eq!(frames.outcome(NONE).await, CALM);
        }
        assert_eq!(harness.upstream.connections(), 0);
        assert_unharmed(&client).await;
    });
}

// CVE-2026-49975: a byte on the line names a long field of the table.
#[test]
fn header_blocks_that_unpack_to_much_more_are_refused_and_memory_stays_bounded() {
    run(async {
        let child = Child::start(|_| {}).await;
        let client = child.signed_in().await;
        assert_unharmed(&client).await;
        let before = child.forget_peak_memory();
        let long = "x".repeat(4000);
        let mut bomb = [request(&client), frames::indexed("x-long", &long)].concat();
        bomb.resize(bomb.len() + 12_000, 0x80 | 62);
        for _ in 0..20 {
            let mut frames = Frames::connect(&client).await;
            for stream in streams().take(100) {
                let opened = frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb);
                if !frames.send(&opened).await {
                    break;
                }
            }
            match frames.outcome(199).await {
                StreamOutcome::GoAway(code) => assert_ne!(code, 0),
                StreamOutcome::Answered(status) => assert_eq!(status, 431),
                StreamOutcome::Reset(_) | StreamOutcome::Closed => {}
            }
        }
        assert_eq!(child.upstream.requests(), 1, "a bomb was forwarded");
        let grown = child.peak_memory() - before;
        assert!(grown < 64 * 1024, "{grown} KiB more");
        assert_unharmed(&client).await;
    });
}

#[test]
fn more_fields_than_allowed_are_431_over_http_2_however_short() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (count, expected) in [(90, 200), (200, 431)] {
            let mut block = [request(&client), frames::indexed("x", "")].concat();
            block.resize(block.len() + count, 0x80 | 62);
            let mut frames = Frames::connect(&client).await;
            let opened = frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
            frames.send(&opened).await;
            assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(expected));
        }
        assert_eq!(harness.upstream.requests(), 1);
    });
}

// CVE-2019-9512, -9515 and others of that year: each frame must be looked at, some be answered.
#[test]
fn a_flood_of_frames_that_ask_for_nothing_ends_the_connection() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let initial_window = [0, 4, 0, 0, 255, 255];
        for (what, frame) in [
            ("PING", frames::frame(PING, 0, 0, &[7; 8])),
            ("answers to no PING", frames::frame(PING, 1, 0, &[7; 8])),
            ("SETTINGS", frames::frame(SETTINGS, 0, 0, &[])),
            (
                "SETTINGS of windows",
                frames::frame(SETTINGS, 0, 0, &initial_window),
            ),
            ("PRIORITY", frames::frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])),
            ("an unknown kind", frames::frame(77, 0, 0, b"unknown")),
            ("WINDOW_UPDATE", window(0, 1)),
        ] {
            let mut frames = Frames::connect(&client).await;
            frames.send(&frame.repeat(FLOOD)).await;
            assert_eq!(frames.outcome(NONE).await, CALM, "{what}");
        }
        assert_unharmed(&client).await;
    });
}

// CVE-2019-9518.
#[test]
fn a_flood_of_empty_data_ends_the_connection_and_never_makes_a_whole_request() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for padding in [false, true] {
            let before = harness.upstream.requests();
            let mut flood = frames::frame(HEADERS, END_HEADERS, 1, &request(&client));
            // Flag 8: the first byte is the length of the padding.
            let empty = match padding {
                true => frames::frame(DATA, 8, 1, &[3, 0, 0, 0]),
                false => frames::frame(DATA, 0, 1, &[]),
            };
            flood.extend(empty.repeat(FLOOD));
            let mut frames = Frames::connect(&client).await;
            frames.send(&flood).await;
            assert_eq!(frames.outcome(NONE).await, CALM, "padding: {padding}");
            for number in before + 1..=harness.upstream.requests() {
                assert_eq!(harness.upstream.ended(number).await.whole, Some(false));
            }
        }
        assert_unharmed(&client).await;
    });
}

#[test]
fn what_was_under_way_on_a_flooded_connection_ends_with_it() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut frames = Frames::connect(&client).await;
        let opened = frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(&client));
        frames.send(&opened).await;
        harness.upstream.stalled(1).await;
        frames
            .send(&frames::frame(PING, 0, 0, &[7; 8]).repeat(FLOOD))
            .await;
        assert_eq!(frames.outcome(NONE).await, CALM);
        assert_eq!(frames.outcome(NONE).await, StreamOutcome::Closed);
        drop(frames);
        harness.upstream.closed(1).await;
        assert_unharmed(&client).await;
    });
}

#[test]
fn a_long_download_with_two_window_updates_for_each_frame_is_no_flood() {
    usually(async |harness: Harness| {
        const LENGTH: u64 = 30_000_000;
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stream {
            length: LENGTH,
            sized: true,
        });
        let mut frames = Frames::connect(&client).await;
        let opened = frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(&client));
        frames.send(&opened).await;
        let (mut length, mut pieces) = (0, 0);
        while length < LENGTH {
            let (kind, _, stream, payload) = frames.next().await.expect("a frame");
            if (kind, stream) != (DATA, 1) || payload.is_empty() {
                continue;
            }
            length += payload.len() as u64;
            pieces += 1;
            let more = u32::try_from(payload.len()).unwrap();
            assert!(
                frames
                    .send(&[window(0, more), window(1, more)].concat())
                    .await
            );
        }
        assert!(pieces > 1000, "{pieces} frames would have been no flood");
    });
}

#[test]
fn a_long_upload_in_small_frames_is_no_flood() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut frames = Frames::connect(&client).await;
        frames
            .send(&frames::frame(HEADERS, END_HEADERS, 1, &request(&client)))
            .await;
        for _ in 0..3000 {
            frames.data(1, b"seven b", false).await;
        }
        frames.data(1, b"", true).await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(200));
        assert_eq!(harness.upstream.whole(1).await.length, 21_000);
    });
}

#[test]
fn many_requests_over_one_connection_are_no_flood() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let block = request(&client);
        let mut frames = Frames::connect(&client).await;
        for stream in streams().take(1500) {
            let opened = frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            let ping = frames::frame(PING, 0, 0, &[1; 8]);
            let windows = [window(stream, 100), window(0, 100)].concat();
            frames.send(&[opened, windows, ping].concat()).await;
            assert_eq!(frames.outcome(stream).await, StreamOutcome::Answered(200));
        }
        assert_eq!(harness.upstream.requests(), 1500);
    });
}

#[test]
fn who_floods_is_named_in_the_log() {
    run(async {
        let child = Child::start(|_| {}).await;
        let mut frames = Frames::connect(&child.anonymous()).await;
        frames
            .send(&frames::frame(PING, 0, 0, &[7; 8]).repeat(FLOOD))
            .await;
        assert_eq!(frames.outcome(NONE).await, CALM);
        let line = |line: &str| -> Option<serde_json::Value> {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            let message = value["message"].as_str()?;
            message.contains("too many PING").then_some(value)
        };
        let logged = child.until("a line about the flood", line).await;
        let peer = logged["peer"].as_str().unwrap_or_default();
        assert!(peer.starts_with("127.0.0.1:"), "{logged}");
    });
}
