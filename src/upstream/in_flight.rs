//! Requests in flight, as one worker counts them.

use std::rc::Rc;
use std::sync::Arc;

use super::admission::Admission;

/// A server, for one worker: clones of it cost the workers no cache line that they share.
#[derive(Debug)]
pub(super) struct AdmittedAt {
    admission: Arc<Admission>,
    /// The server's place in its upstream.
    place: usize,
}

impl AdmittedAt {
    pub(super) fn new(admission: &Arc<Admission>, place: usize) -> Rc<Self> {
        Rc::new(Self {
            admission: Arc::clone(admission),
            place,
        })
    }
}

/// A request in flight to a server, counted while this exists.
#[derive(Debug)]
pub(super) struct InFlight(Rc<AdmittedAt>);

impl InFlight {
    /// Unless the server has as many as it may.
    pub(super) fn begin(server: &Rc<AdmittedAt>) -> Option<Self> {
        let begun = server.admission.begin(server.place);
        begun.then(|| Self(Rc::clone(server)))
    }

    /// One that was counted already.
    pub(super) fn begun(server: &Rc<AdmittedAt>) -> Self {
        Self(Rc::clone(server))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.admission.end(self.0.place);
    }
}
