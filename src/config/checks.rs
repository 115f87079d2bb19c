//! Checks across sections: that they are consistent, and that the files they name exist.

mod files;
mod tokens;
mod upstreams;

use bytesize::ByteSize;

use super::Config;
use crate::message::headers::AuthorizationHeader;
use crate::route::{OwnPath, RouteSection};
use crate::server::ListenAddress;
use crate::settings::Problem;
use crate::settings::document::{Document, Step};

pub(super) use files::files;

/// The smallest head size that the HTTP/1 parser can be limited to.
const MIN_HEADER_SIZE: ByteSize = ByteSize::kib(8);
/// More threads than this must be a typo.
const MAX_THREADS: usize = 1024;
/// The longest URI that the HTTP/1 parser accepts.
const MAX_URI_SIZE: ByteSize = ByteSize::b(65_534);

/// Checks that sections are consistent with each other, without file access.
pub(super) fn sections(config: &Config, document: &mut Document<'_>) {
    listeners(config, document);
    certificates(config, document);
    upstreams::check(config, document);
    routes(config, document);
    threads(config, document);
    login(config, document);
    tokens::check(config, document);
    limits(config, document);
    quotas(config, document);
    identity(config, document);
    admin(config, document);
}

/// Reports a problem with the value at `path`, unless that value is invalid itself. A default value has no
/// span; its problem is shown without a line.
pub(super) fn report(document: &mut Document<'_>, path: &[Step<'_>], problem: Problem) {
    if let [Step::Key(section), Step::Key(key), ..] = path
        && document.is_damaged(section, key)
    {
        return;
    }
    let span = document.span(path);
    document.report(problem.at(span));
}

fn listeners(config: &Config, document: &mut Document<'_>) {
    let listen = &config.listen;
    if listen.https.is_empty() {
        let problem = Problem::error("no HTTPS address to listen on")
            .remedy("write for example https = [\"127.0.0.1:8443\"]");
        report(document, &["listen", "https"].map(Step::Key), problem);
    }
    let named = |key: &'static str, addresses: &[ListenAddress]| {
        let named = addresses.iter().map(|it| it.address).enumerate();
        named
            .map(|(index, address)| (key, index, address))
            .collect::<Vec<_>>()
    };
    let all = [named("https", &listen.https), named("http", &listen.http)].concat();
    for (at, &(key, index, address)) in all.iter().enumerate() {
        // Port 0 is any free port, so equal addresses do not conflict.
        let before = all[..at].iter().any(|&(_, _, other)| other == address);
        if before && address.port() != 0 {
            let problem = Problem::error(format!("{address} is listed twice"))
                .remedy("an address can be used once, for https or http: remove one");
            let path = [Step::Key("listen"), Step::Key(key), Step::Element(index)];
            report(document, &path, problem);
        }
    }
    let anybody = listen.trusted_proxies.is_empty();
    for (key, addresses) in [("https", &listen.https), ("http", &listen.http)] {
        for (index, address) in addresses.iter().enumerate() {
            if address.proxy_protocol && anybody {
                let problem = Problem::warning("anyone who can reach this can claim any address")
                    .remedy("name the load balancer's network in trusted_proxies");
                let path = [Step::Key("listen"), Step::Key(key), Step::Element(index)];
                report(document, &path, problem);
            }
        }
    }
}

fn certificates(config: &Config, document: &mut Document<'_>) {
    if config.tls.certificates.is_empty() {
        let problem = Problem::error("HTTPS needs at least one certificate").remedy(
            "write certificates = [{ certificate = \"certs/server.pem\", key = \
             \"certs/server.key\" }]",
        );
        report(document, &["tls", "certificates"].map(Step::Key), problem);
    }
}

fn routes(config: &Config, document: &mut Document<'_>) {
    if config.routes.is_empty() {
        let problem = Problem::error("no routes, so nothing would be forwarded")
            .remedy("add [[routes]] with a path, or leave routes out for the defaults");
        document.report(problem.at(document.span(&[Step::Key("routes")])));
    }
    for (index, route) in config.routes.iter().enumerate() {
        authorization(index, route, document);
        let path = route.path.as_str();
        let problem = if let Some(own) = OwnPath::find(path) {
            let own = own.as_str();
            Problem::error(format!("{own} is answered by syncgate itself"))
                .remedy("remove this route")
        } else if let Some(first) = config.routes[..index]
            .iter()
            .find(|other| other.path.as_str().eq_ignore_ascii_case(path))
        {
            Problem::error(format!("there is already a route for {}", first.path)).remedy(
                "paths are compared ignoring case: merge the two, with all methods in one list",
            )
        } else {
            continue;
        };
        let key = [Step::Key("routes"), Step::Element(index), Step::Key("path")];
        document.report(problem.at(document.span(&key)));
    }
}

fn authorization(index: usize, route: &RouteSection, document: &mut Document<'_>) {
    let key = |key| [Step::Key("routes"), Step::Element(index), Step::Key(key)];
    match (route.authorization, &route.authorization_file) {
        (AuthorizationHeader::Replace, None) => {
            let problem = Problem::error("there is nothing to replace the header with").remedy(
                "add authorization_file = \"backend.secret\", a file with the value of the \
                 backend's own header",
            );
            document.report(problem.at(document.span(&key("authorization"))));
        }
        (AuthorizationHeader::Strip | AuthorizationHeader::Keep, Some(_)) => {
            let problem =
                Problem::error("this file has no effect: its content is not sent to the backend")
                    .remedy("add authorization = \"replace\", or remove this line");
            document.report(problem.at(document.span(&key("authorization_file"))));
        }
        (AuthorizationHeader::Replace, Some(_))
        | (AuthorizationHeader::Strip | AuthorizationHeader::Keep, None) => {}
    }
}

fn identity(config: &Config, document: &mut Document<'_>) {
    let identity = &config.identity;
    if identity.key.is_none() && !identity.published.is_empty() {
        let problem = Problem::warning("nothing is signed, and no key published, without a key")
            .remedy("add key = \"identity.key\"; `syncgate identity-key identity.key` creates it");
        report(document, &["identity", "published"].map(Step::Key), problem);
    }
    if identity.key.is_some() && !config.routes.iter().any(|route| route.identity) {
        let problem = Problem::warning("nothing is signed: no route has identity = true")
            .remedy("remove identity = false from the routes whose backend verifies");
        report(document, &["identity", "key"].map(Step::Key), problem);
    }
    for (index, route) in config.routes.iter().enumerate() {
        let Some(place) = route.keep_headers.position_like(&identity.header) else {
            continue;
        };
        let problem = Problem::error("a client could forge what only the gateway may sign")
            .remedy("remove it: identity.header is dropped from client requests");
        let key = [
            Step::Key("routes"),
            Step::Element(index),
            Step::Key("keep_headers"),
            Step::Element(place),
        ];
        document.report(problem.at(document.span(&key)));
    }
}

fn admin(config: &Config, document: &mut Document<'_>) {
    let admin = &config.admin;
    let nowhere = admin.socket.is_none() && admin.listen.is_none();
    if admin.introspection_secret_file.is_some() && nowhere {
        let problem = Problem::warning("this has no effect: the admin interface listens nowhere")
            .remedy("add listen = \"127.0.0.1:8444\" or socket = \"run/admin.sock\"");
        let key = ["admin", "introspection_secret_file"].map(Step::Key);
        report(document, &key, problem);
    }
}

fn threads(config: &Config, document: &mut Document<'_>) {
    for (section, key, count) in [
        ("listen", "workers", config.listen.workers),
        ("login", "hash_threads", config.login.hash_threads),
    ] {
        if count > MAX_THREADS {
            let problem =
                Problem::error(format!("{count} threads are more than any machine can use"))
                    .remedy("write 0 for one per core");
            report(document, &[section, key].map(Step::Key), problem);
        }
    }
}

fn login(config: &Config, document: &mut Document<'_>) {
    let login = &config.login;
    if login.delay > login.longest_delay {
        let problem = Problem::warning("no login ever waits longer than longest_delay")
            .remedy("lower delay or raise longest_delay");
        report(document, &["login", "delay"].map(Step::Key), problem);
    }
    if login.forget_failures < login.longest_delay {
        let problem = Problem::warning("failures are forgotten before the longest delay is over")
            .remedy("write at least longest_delay");
        let key = ["login", "forget_failures"].map(Step::Key);
        report(document, &key, problem);
    }
}

fn limits(config: &Config, document: &mut Document<'_>) {
    let limits = &config.limits;
    if limits.header_size < MIN_HEADER_SIZE {
        let problem =
            Problem::error("a request head needs at least 8 KiB").remedy("write \"8KiB\" or more");
        report(document, &["limits", "header_size"].map(Step::Key), problem);
    }
    if limits.header_size > ByteSize::mib(1) {
        let problem = Problem::error("a request head is kept in memory, so at most 1 MiB")
            .remedy("write \"1MiB\" or less");
        report(document, &["limits", "header_size"].map(Step::Key), problem);
    }
    if limits.uri_size > MAX_URI_SIZE {
        let problem = Problem::error("path and query have at most 65534 bytes")
            .remedy("write \"32KiB\" or less");
        report(document, &["limits", "uri_size"].map(Step::Key), problem);
    } else if limits.uri_size > limits.header_size {
        let problem = Problem::error("the path is part of the head, which header_size limits")
            .remedy("write at most header_size, or raise that");
        report(document, &["limits", "uri_size"].map(Step::Key), problem);
    }
}

fn quotas(config: &Config, document: &mut Document<'_>) {
    let quotas = &config.quotas;
    let mut without_effect = |path: &[Step<'_>], key: &str| {
        let problem = Problem::warning("a burst without a rate has no effect").remedy(format!(
            "add for example {key} = \"100/1s\", or remove this line"
        ));
        document.report(problem.at(document.span(path)));
    };
    if quotas.user_rate.is_none() && quotas.user_burst.is_some() {
        without_effect(&["quotas", "user_burst"].map(Step::Key), "user_rate");
    }
    if quotas.source_rate.is_none() && quotas.source_burst.is_some() {
        without_effect(&["quotas", "source_burst"].map(Step::Key), "source_rate");
    }
    for (index, route) in config.routes.iter().enumerate() {
        if route.rate.is_none() && route.burst.is_some() {
            let key = [
                Step::Key("routes"),
                Step::Element(index),
                Step::Key("burst"),
            ];
            without_effect(&key, "rate");
        }
    }
}
