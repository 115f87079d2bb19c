//! Reads the body of an admin request.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::listener::REQUEST_TIMEOUT;
use crate::body::BodyFault;
use crate::gateway::refusal::Refusal;

/// Reads the whole body, of bounded size, within a deadline.
pub(super) async fn read(body: Incoming) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    timeout(REQUEST_TIMEOUT, read_all(body))
        .await
        .unwrap_or(Err(Refusal::BodyTooSlow))
}

fn broken(error: hyper::Error) -> Refusal {
    Refusal::MalformedBody(BodyFault::Broken(error))
}

async fn read_all(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    // At its largest size from the start, so that growing leaves no copy of a part behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BODY));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > BODY {
            let limit = BODY as u64;
            return Err(Refusal::BodyTooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The largest body in bytes.
const BODY: usize = 8 * 1024;
