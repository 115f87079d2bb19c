//! Server-sent events: what is new of the gateway, while a page is open.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{interval, timeout};

use super::relay::Asked;
use super::serve::Dashboard;

/// The body of a stream of events.
#[derive(Debug)]
pub(super) struct EventStream {
    events: mpsc::Receiver<Bytes>,
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.events.poll_recv(context);
        next.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

/// Begins a stream, which lasts until its page is gone or takes nothing any more.
pub(super) fn begin(dashboard: Arc<Dashboard>, slot: OwnedSemaphorePermit) -> EventStream {
    let (sender, events) = mpsc::channel(1);
    tokio::task::spawn(async move {
        let mut tick = interval(TICK);
        let mut last = None;
        loop {
            tick.tick().await;
            dashboard.note_activity();
            let event = next(&dashboard, &mut last).await;
            match timeout(PATIENCE, sender.send(event)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        drop(slot);
    });
    EventStream { events }
}

/// One event: the present state, and the points of the history that end after `last`.
async fn next(dashboard: &Arc<Dashboard>, last: &mut Option<String>) -> Bytes {
    let after = last
        .as_ref()
        .map_or(String::new(), |last| format!("?after={last}"));
    let overview = get(dashboard, "/overview".to_owned()).await;
    let history = get(dashboard, format!("/history{after}")).await;
    let (Some(overview), Some(history)) = (overview, history) else {
        return Bytes::from_static(b"event: lost\ndata: {}\n\n");
    };
    let points = history["points"].as_array();
    if let Some(at) = points.and_then(|points| points.last()?["at"].as_str()) {
        *last = Some(at.to_owned());
    }
    // Neither has a line break: JSON escapes them.
    format!("event: state\ndata: {{\"overview\":{overview},\"history\":{history}}}\n\n").into()
}

async fn get(dashboard: &Arc<Dashboard>, target: String) -> Option<Value> {
    let asked = Asked::Gateway {
        method: Method::GET,
        target,
        body: None,
    };
    let (status, body) = dashboard.ask(asked).await.ok()?;
    (status == 200).then(|| serde_json::from_slice(&body).ok())?
}

/// How often a page learns what is new.
const TICK: Duration = Duration::from_secs(2);
/// How long a page may take an event.
const PATIENCE: Duration = Duration::from_secs(30);
