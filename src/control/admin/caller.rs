//! Who calls the admin interface, and what that leaves in the audit trail.

use super::service::Peer;
use crate::audit::{Audit, By, Client, Event, Operator, Refused};
use crate::request_id::RequestId;

/// Who calls the admin interface, by which request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) id: RequestId,
    pub(super) by: By,
}

impl Caller {
    pub(super) fn new(id: RequestId, peer: Peer) -> Self {
        let by = match peer {
            Peer::User(Some(uid)) => By::Uid(uid),
            Peer::User(None) | Peer::Address(_) => By::LocalUser,
        };
        Self { id, by }
    }

    /// For a line of the audit trail.
    pub(super) fn operator(&self) -> Operator {
        Operator {
            by: self.by,
            request: self.id.clone(),
        }
    }

    /// Records that the caller has done something, to `subject`: names of the configuration or of accounts, never what
    /// may be a secret. Returns once it may be answered.
    pub(super) async fn did(&self, audit: &Audit, action: &'static str, subject: Option<String>) {
        let operator = self.operator();
        let event = Event::AdminAction {
            action,
            subject,
            operator,
        };
        audit.record([event]).await;
    }

    /// Counts that the caller was refused for want of a secret.
    pub(super) fn was_refused(&self, audit: &Audit, reason: &'static str) {
        let client = Client {
            user: None,
            from: None,
            request: self.id.clone(),
        };
        let refused = Refused {
            reason,
            route: None,
            token: None,
            client,
        };
        audit.refuse(refused, false);
    }

    /// Records that the caller has seen something that is not public, without waiting.
    pub(super) fn saw(&self, audit: &Audit, action: &'static str, subject: Option<String>) {
        let operator = self.operator();
        audit.note(Event::AdminAction {
            action,
            subject,
            operator,
        });
    }
}
