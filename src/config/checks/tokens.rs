//! Checks that the settings of `[tokens]` are consistent.

use super::{Config, Document, Problem, Step, report};
use crate::cluster::SharedMode;
use crate::store::StoreKind;

pub(super) fn check(config: &Config, document: &mut Document<'_>) {
    renewal(config, document);
    let (tokens, shared) = (&config.tokens, &config.tokens.shared);
    if tokens.store != StoreKind::Shared {
        return;
    }
    if tokens.idle().is_some_and(|idle| idle / 4 < shared.stale) {
        let problem =
            Problem::error("tokens in use would expire before gateways hear of their use")
                .remedy("write at least four times tokens.shared.stale, or a shorter stale");
        report(document, &["tokens", "idle"].map(Step::Key), problem);
    }
    if shared.servers.is_empty() {
        let problem = Problem::error("no server for the tokens")
            .remedy("write for example servers = [\"127.0.0.1:6379\"]");
        report(document, &key("servers"), problem);
    }
    if shared.mode == SharedMode::Single && shared.servers.len() > 1 {
        let problem = Problem::error("mode \"single\" takes one server")
            .remedy("name one; or add mode = \"sentinel\" or mode = \"cluster\"");
        report(document, &key("servers"), problem);
    }
    if shared.tls && shared.ca_file.is_none() {
        let problem =
            Problem::error("TLS to the token store needs the certificates of trusted CAs")
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

fn renewal(config: &Config, document: &mut Document<'_>) {
    let tokens = &config.tokens;
    if tokens.renew && tokens.longest < tokens.lifetime {
        let problem = Problem::error("a renewed token could never live as long as the first one")
            .remedy("write at least lifetime for longest, or renew = false");
        // Point to the one that is written; the other is a default.
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
