//! What becomes of connections and requests that the old process has.

use rustix::process::{Pid, Signal, kill_process};

use crate::state::{durable, in_memory, sync, upgrade};
use crate::support::harness::{Files, password};
use crate::support::{Ask, Child, Client, Script, Stage, Token, run, within};

async fn kept_connections_go_on(store: fn(&mut Files)) {
    let mut child = Child::start_replaceable(store).await;
    let client = child.signed_in().await;
    let (mut kept, mut other) = (client.connect().await, client.connect().await);
    let mut late = client.connect().await;
    let mut http2 = client.connect_h2().await;
    let ask = client.with_token(sync());
    for connection in [&mut kept, &mut other] {
        let answer = connection.exchange(&ask).await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    // On this one a request is in flight.
    assert_eq!(http2.exchange(&ask).await.status, 200);
    child.upstream.next(Script::Stall(Stage::BeforeResponse));
    let streamed = tokio::spawn(http2.begin(&ask));
    child.upstream.stalled(1).await;
    upgrade(&child).await;
    child.upstream.release();
    let response = streamed.await.unwrap().unwrap();
    let answer = crate::support::http2::read(response).await.unwrap();
    assert_eq!(answer.status, 200);
    http2.ended().await.unwrap();

    // Each that rests is answered once more, and told to close.
    let answer = kept.exchange(&ask).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    kept.ending().await;
    // Also a login, whose token the new process has, and the end of another's.
    let login = Ask::login("till-01", &password("till-01"));
    let answer = other.exchange(&login).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    let token = answer.json()["token"]["accesstoken"]
        .as_str()
        .map(Token::new);
    let fresh = Client {
        token,
        ..client.clone()
    };
    assert_eq!(fresh.send(sync()).await.status, 200);
    let revoke = client.with_token(Ask::post("/api/revokeToken").sized(""));
    assert_eq!(late.exchange(&revoke).await.status, 200);
    assert_eq!(client.send(sync()).await.status, 401);
    assert_eq!(child.first_exit().await.code(), Some(0));
    child.stop_last().await;
}

#[test]
fn kept_connections_are_answered_once_more_with_tokens_in_memory() {
    run(kept_connections_go_on(in_memory));
}

#[test]
fn kept_connections_are_answered_once_more_with_tokens_in_a_file() {
    run(kept_connections_go_on(durable));
}

#[test]
fn a_long_upload_and_a_long_download_go_on_across_an_upgrade() {
    run(async {
        let mut child = Child::start_replaceable(|_| {}).await;
        let client = child.signed_in().await;
        let mut upload = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").sized("hello"));
        upload.write(&ask.head("gateway.test")).await;
        upload.write(b"he").await;
        child.upstream.seen(1).await;
        let mut download = client.connect().await;
        let length = 32 * 1024 * 1024;
        child.upstream.next(Script::Stream {
            length,
            sized: true,
        });
        download.send(&client.with_token(sync())).await;
        let (status, _) = download.response_head().await.unwrap();
        assert_eq!(status, 200);
        upgrade(&child).await;
        upload.write(b"llo").await;
        assert_eq!(upload.answer().await.status, 200);
        assert_eq!(child.upstream.whole(1).await.body, b"hello");
        let body = usize::try_from(length).unwrap();
        assert_eq!(download.exactly(body).await.unwrap().len(), body);
        drop((upload, download));
        assert_eq!(child.first_exit().await.code(), Some(0));
        child.stop_last().await;
    });
}

#[test]
fn a_revocation_in_the_new_process_holds_in_the_old_one_at_once() {
    run(async {
        let child = Child::start_replaceable(|_| {}).await;
        let client = child.signed_in().await;
        let mut kept = client.connect().await;
        let ask = client.with_token(sync());
        assert_eq!(kept.exchange(&ask).await.status, 200);
        upgrade(&child).await;
        assert_eq!(
            client
                .send(Ask::post("/api/revokeToken").sized(""))
                .await
                .status,
            200
        );
        assert_eq!(kept.exchange(&ask).await.status, 401);
        child.stop_last().await;
    });
}

#[test]
fn without_the_new_process_what_is_left_in_the_old_one_is_refused() {
    run(async {
        let mut child = Child::start_replaceable(|_| {}).await;
        let client = child.signed_in().await;
        let (mut kept, mut other) = (client.connect().await, client.connect().await);
        let ask = client.with_token(sync());
        for connection in [&mut kept, &mut other] {
            assert_eq!(connection.exchange(&ask).await.status, 200);
        }
        upgrade(&child).await;
        let new = i32::try_from(child.upgraded()[0]).unwrap();
        kill_process(Pid::from_raw(new).unwrap(), Signal::KILL).unwrap();
        let link_is_gone = |line: &str| line.contains("cannot be reached").then_some(());
        child.until("the end of the link", link_is_gone).await;
        let answer = kept.exchange(&ask).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(other.exchange(&login).await.status, 503);
        assert_eq!(child.first_exit().await.code(), Some(0));
    });
}

#[test]
fn a_process_that_has_handed_over_ends_at_sigterm_without_waiting_for_idle_connections() {
    run(async {
        let mut child = Child::start_replaceable(|files| files.set("limits.drain", "1h")).await;
        let client = child.signed_in().await;
        let mut kept = client.connect().await;
        assert_eq!(kept.exchange(&client.with_token(sync())).await.status, 200);
        upgrade(&child).await;
        child.signal(Signal::TERM);
        within("the end of the connection", kept.ending()).await;
        assert_eq!(child.first_exit().await.code(), Some(0));
        child.stop_last().await;
    });
}
