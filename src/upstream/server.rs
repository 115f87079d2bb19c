//! What all workers know of an upstream and its servers: where they listen and, of each server, what
//! its requests have shown. Connections belong to a worker: see `pool`.

use std::sync::Arc;

use http::HeaderValue;
use http::uri::Authority;

use super::settings::{UpstreamSection, UpstreamUrl};

/// All upstreams of a configuration.
#[derive(Debug)]
pub struct Upstreams(Vec<Arc<SharedUpstream>>);

impl Upstreams {
    /// The upstreams that these sections describe.
    #[must_use]
    pub fn new(section: &UpstreamSection) -> Self {
        Self(vec![Arc::new(SharedUpstream::new(section))])
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<SharedUpstream>> {
        self.0.iter()
    }
}

/// One upstream: servers that are interchangeable.
#[derive(Debug)]
pub(super) struct SharedUpstream {
    pub(super) settings: UpstreamSection,
    pub(super) servers: Vec<Arc<Server>>,
}

impl SharedUpstream {
    fn new(settings: &UpstreamSection) -> Self {
        Self {
            servers: vec![Arc::new(Server::new(&settings.url, settings))],
            settings: settings.clone(),
        }
    }
}

/// One server of an upstream.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: UpstreamUrl,
    /// The `Host` that it is sent.
    pub(super) host: HeaderValue,
}

impl Server {
    fn new(url: &UpstreamUrl, settings: &UpstreamSection) -> Self {
        let authority = settings.host.as_ref().or(match url {
            UpstreamUrl::Http { authority, .. } => Some(authority),
            UpstreamUrl::Unix(_) => None,
        });
        let host = HeaderValue::from_str(authority.map_or("localhost", Authority::as_str))
            .expect("an authority is visible ASCII");
        Self {
            url: url.clone(),
            host,
        }
    }
}
