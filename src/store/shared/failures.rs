//! Failed logins that all gateways count together. The server sees neither names nor addresses: it
//! counts under a MAC of them, keyed by its own password.

use std::fmt::Write as _;
use std::time::Duration;

use ring::hmac;
use tokio::sync::mpsc;

use super::requests::{Request, send};
use crate::origin::Source;
use crate::store::StoreError;
use crate::traffic::{CountedBy, Heard};

/// The counts on the server.
#[derive(Debug, Clone)]
pub struct SharedFailures {
    requests: mpsc::Sender<Request>,
    patience: Duration,
    key: hmac::Key,
}

impl SharedFailures {
    pub(super) fn new(requests: mpsc::Sender<Request>, patience: Duration, secret: &str) -> Self {
        Self {
            requests,
            patience,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        }
    }

    /// What stands for a user name and a network, and for the network alone.
    pub(crate) fn origins(&self, name: Option<&str>, network: Source) -> [String; 2] {
        let tag = |text: &str| {
            let tag = hmac::sign(&self.key, text.as_bytes());
            let mut shown = String::new();
            for byte in &tag.as_ref()[..16] {
                let _ = write!(shown, "{byte:02x}");
            }
            shown
        };
        let user = match name {
            Some(name) => tag(&format!("user {network} {name}")),
            None => tag(&format!("no user {network}")),
        };
        [user, tag(&format!("network {network}"))]
    }

    /// What all gateways know of these.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) async fn of(&self, origins: &[String; 2]) -> Result<[Heard; 2], StoreError> {
        let origins = origins.clone();
        let request = |reply| Request::Failures { origins, reply };
        send(&self.requests, self.patience, request).await
    }

    /// Counts so many more failures of each, to be forgotten after a time. Says of the user and of the
    /// network whether all know of them now.
    pub(crate) async fn failed(
        &self,
        origins: Vec<(String, u32)>,
        forget: Duration,
    ) -> [CountedBy; 2] {
        let request = |reply| Request::Failed {
            origins,
            forget,
            reply,
        };
        let counted = send(&self.requests, self.patience, request).await;
        counted.unwrap_or([CountedBy::Here; 2])
    }

    /// Forgets the failures of a user who has logged in, once in a time.
    pub(crate) async fn forgive(&self, origin: &str, forget: Duration) {
        let origin = origin.to_owned();
        let request = |reply| Request::Forgive {
            origin,
            forget,
            reply,
        };
        // Why it was not done is in the log.
        let _ = send(&self.requests, self.patience, request).await;
    }
}
