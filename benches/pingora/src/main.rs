//! The Pingora peer: TLS 1.3, a table of tokens by their SHA-256, one upstream.
//!
//! `pingora-peer PORT UPSTREAM-PORT CERTIFICATE KEY TOKENS`

use std::collections::HashSet;
use std::error::Error;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::tls::ssl::SslVersion;
use sha2::{Digest, Sha256};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY: &[u8] = br#"{"success":false,"messages":"Token is invalid or expired","code":401}"#;

struct Gate {
    tokens: HashSet<[u8; 32]>,
    upstream: String,
}

impl Gate {
    fn knows(&self, session: &Session) -> bool {
        let header = session.req_header().headers.get("authorization");
        let token = header.and_then(|value| STANDARD.decode(value.as_bytes()).ok());
        token.is_some_and(|token| self.tokens.contains(&digest(&token)))
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        if self.knows(session) {
            return Ok(false);
        }
        // A connection whose body is left unread would be closed.
        while session.read_request_body().await?.is_some() {}
        let mut head = ResponseHeader::build(401, Some(4))?;
        head.insert_header("content-type", "application/json")?;
        head.insert_header("content-length", BODY.len())?;
        session.write_response_header(Box::new(head), false).await?;
        session
            .write_response_body(Some(Bytes::from_static(BODY)), true)
            .await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(&self.upstream, false, String::new());
        peer.options.idle_timeout = Some(std::time::Duration::from_secs(3600));
        Ok(Box::new(peer))
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, upstream, certificate, key, tokens] = arguments.as_slice() else {
        return Err("usage: pingora-peer PORT UPSTREAM-PORT CERTIFICATE KEY TOKENS".into());
    };
    let mut known = HashSet::new();
    for line in std::fs::read_to_string(tokens)?.lines() {
        known.insert(digest(&STANDARD.decode(line)?));
    }
    let gate = Gate {
        tokens: known,
        upstream: format!("127.0.0.1:{upstream}"),
    };

    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, gate);
    let mut tls = TlsSettings::intermediate(certificate, key)?;
    tls.enable_h2();
    tls.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    tls.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    service.add_tls_with_settings(&format!("127.0.0.1:{port}"), None, tls);
    server.add_service(service);
    server.run_forever();
}
