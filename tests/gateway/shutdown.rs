//! Stopping: what is in flight finishes, nothing new begins.

use rustix::process::Signal;

use crate::support::{Ask, Child, Ending, Harness, Script, Stage, refused, run, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

#[test]
fn a_request_in_flight_finishes_and_its_connection_is_told_to_close() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut resting = client.connect().await;
        assert_eq!(resting.exchange(&Ask::get("/")).await.status, 404);
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut connection = client.connect().await;
        connection.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        let drained = harness.drain();
        // The end of a connection at rest is the sign that the worker knows.
        assert_eq!(resting.ending().await, Ending::Clean);
        harness.upstream.release();
        let answer = connection.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(connection.ending().await, Ending::Clean);
        within("the gateway to stop", drained).await.unwrap();
    });
}

#[test]
fn an_upload_in_flight_finishes() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").sized("hello"));
        connection.write(&ask.head("gateway.test")).await;
        connection.write(b"he").await;
        harness.upstream.seen(1).await;
        let drained = harness.drain();
        refused(client.address).await;
        connection.write(b"llo").await;
        assert_eq!(connection.answer().await.status, 200);
        assert_eq!(harness.upstream.whole(1).await.body, b"hello");
        within("the gateway to stop", drained).await.unwrap();
    });
}

#[test]
fn a_connection_that_rests_is_closed_at_once() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        assert_eq!(
            connection.exchange(&client.with_token(sync())).await.status,
            200
        );
        let drained = harness.drain();
        assert_eq!(connection.ending().await, Ending::Clean);
        within("the gateway to stop", drained).await.unwrap();
    });
}

#[test]
fn an_http_2_connection_gets_goaway_and_its_streams_finish() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut http2 = client.connect_h2().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let response = tokio::spawn(http2.begin(&client.with_token(sync())));
        harness.upstream.stalled(1).await;
        let drained = harness.drain();
        refused(client.address).await;
        harness.upstream.release();
        let response = response.await.unwrap().unwrap();
        let answer = crate::support::http2::read(response).await.unwrap();
        assert_eq!(answer.status, 200);
        http2.ended().await.unwrap();
        within("the gateway to stop", drained).await.unwrap();
    });
}

#[test]
fn an_http_2_connection_that_rests_is_closed_at_once() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut http2 = client.connect_h2().await;
        assert_eq!(http2.exchange(&client.with_token(sync())).await.status, 200);
        let drained = harness.drain();
        http2.ended().await.unwrap();
        within("the gateway to stop", drained).await.unwrap();
    });
}

#[test]
fn what_does_not_finish_within_the_grace_period_is_cut_off() {
    run(async {
        let mut harness = Harness::start(|files| files.set("limits.drain", "200ms"));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut connection = client.connect().await;
        connection.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        let drained = harness.drain();
        within("the gateway to stop", drained).await.unwrap();
        if let Ok(answer) = connection.try_answer("").await {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        harness.upstream.closed(1).await;
    });
}

#[test]
fn a_client_in_its_handshake_does_not_hold_up_the_stop() {
    run(async {
        let mut harness = Harness::usual();
        let mut silent = harness.anonymous().connect_plain().await;
        // A served request after the connection tells that the gateway has accepted both.
        assert_eq!(harness.anonymous().send(Ask::get("/")).await.status, 404);
        let drained = harness.drain();
        silent.remainder().await;
        within("the gateway to stop", drained).await.unwrap();
    });
}

#[test]
fn sigterm_and_sigint_stop_the_process_with_exit_code_0_after_what_is_in_flight() {
    run(async {
        for signal in [Signal::TERM, Signal::INT] {
            let child = Child::start(|_| {}).await;
            let client = child.signed_in().await;
            child.upstream.next(Script::Stall(Stage::BeforeResponse));
            let mut connection = client.connect().await;
            connection.send(&client.with_token(sync())).await;
            child.upstream.stalled(1).await;
            child.signal(signal);
            refused(client.address).await;
            child.upstream.release();
            let answer = connection.answer().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let (status, _) = child.exit().await;
            assert_eq!(status.code(), Some(0), "{signal:?}");
        }
    });
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    run(async {
        let child = Child::start(|_| {}).await;
        let client = child.signed_in().await;
        child.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut connection = client.connect().await;
        connection.send(&client.with_token(sync())).await;
        child.upstream.stalled(1).await;
        child.signal(Signal::TERM);
        refused(client.address).await;
        child.signal(Signal::TERM);
        // The exchange stays stalled: without the second signal this would take the grace period.
        child.exit().await;
        assert!(connection.try_answer("").await.is_err());
    });
}
