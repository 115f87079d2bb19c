//! Whether what `[tokens]` says goes together.

use super::{Config, Document, Problem, Step, report};
use crate::store::{SharedMode, StoreKind};

pub(super) fn cross(config: &Config, document: &mut Document<'_>) {
    kept_and_renewed(config, document);
    let (tokens, shared) = (&config.tokens, &config.tokens.shared);
    if tokens.store != StoreKind::Shared {
        return;
    }
    if tokens.idle().is_some_and(|idle| idle / 4 < shared.stale) {
        let problem =
            Problem::error("tokens in use would end while gateways do not hear of each other")
                .remedy("write at least four times tokens.shared.stale, or a shorter stale");
        report(document, &["tokens", "idle"].map(Step::Key), problem);
    }
    if shared.servers.is_empty() {
        let problem = Problem::error("no server to keep the tokens on")
            .remedy("write for example servers = [\"127.0.0.1:6379\"]");
        report(document, &key("servers"), problem);
    }
    if shared.mode == SharedMode::Single && shared.servers.len() > 1 {
        let problem = Problem::error("several servers are no single one")
            .remedy("name one; or add mode = \"sentinel\" or mode = \"cluster\"");
        report(document, &key("servers"), problem);
    }
    if shared.tls && shared.ca_file.is_none() {
        let problem = Problem::error("TLS to the token store needs the certificates to trust")
            .remedy("add ca_file = \"certs/redis-ca.pem\"");
        report(document, &key("tls"), problem);
    }
    if !shared.tls && shared.ca_file.is_some() {
        let problem =
            Problem::error("these certificates are for TLS, which is off").remedy("add tls = true");
        report(document, &key("ca_file"), problem);
    }
    if shared.username.is_some() && shared.password_file.is_none() {
        let problem = Problem::error("a user of the token store needs a password")
            .remedy("add password_file = \"redis.secret\", a file with mode 0600");
        report(document, &key("username"), problem);
    }
}

fn kept_and_renewed(config: &Config, document: &mut Document<'_>) {
    let tokens = &config.tokens;
    if tokens.renew && tokens.longest < tokens.lifetime {
        let problem = Problem::error("no renewed token may live as long as a first one (longest)")
            .remedy("write at least as much as lifetime for longest, or renew = false");
        // The one of the two that is written, since the other is a default.
        let longest = ["tokens", "longest"].map(Step::Key);
        match document.span(&longest) {
            Some(_) => report(document, &longest, problem),
            None => report(document, &["tokens", "lifetime"].map(Step::Key), problem),
        }
    }
}

fn key(name: &str) -> [Step<'_>; 3] {
    ["tokens", "shared", name].map(Step::Key)
}
