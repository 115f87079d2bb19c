//! Whether what `[upstream]` and `[upstreams.NAME]` say goes together, and with the routes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Config, Document, Problem, Step, report};
use crate::route::DEFAULT_UPSTREAM;
use crate::settings::suggest;
use crate::tls::BackendTlsSection;
use crate::upstream::{ServerSection, UpstreamSection};

/// IIS closes a connection that rests this long.
const IIS_IDLE: Duration = Duration::from_secs(120);
/// How often a name can be resolved.
const RESOLVE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];
/// Which server is chosen is found out anew for each request.
const MOST_SERVERS: usize = 64;

pub(super) fn check(config: &Config, document: &mut Document<'_>) {
    let default = [Step::Key("upstream")];
    section(config, &config.upstream, &default, document);
    for (name, upstream) in &config.upstreams {
        let place = [Step::Key("upstreams"), Step::Key(name)];
        named(name, &place, document);
        section(config, upstream, &place, document);
        if upstream.servers().next().is_none() {
            let problem = Problem::error("this upstream has no servers").remedy(
                "add url = \"http://host:port\", or servers = [{ url = \"http://host:port\" }, ...]",
            );
            report(document, &place, problem);
        }
    }
    unused(config, document);
    routes(config, document);
}

fn named(name: &str, place: &[Step<'_>], document: &mut Document<'_>) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name == DEFAULT_UPSTREAM {
        let problem = Problem::error("the upstream `default` is written [upstream]")
            .remedy("write [upstream], or give this one another name");
        report(document, place, problem);
    } else if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        let problem = Problem::error(format!("`{name}` cannot be the name of an upstream"))
            .remedy("write up to 64 letters, digits, `-` and `_`");
        report(document, place, problem);
    }
}

fn section(
    config: &Config,
    upstream: &UpstreamSection,
    place: &[Step<'_>],
    document: &mut Document<'_>,
) {
    let mut problem = |steps: &[Step<'_>], problem: Problem| {
        report(document, &[place, steps].concat(), problem);
    };
    if upstream.idle_timeout >= IIS_IDLE {
        let warning = Problem::warning("IIS closes a connection that rests for 120 seconds")
            .remedy(
                "stay below it, for example \"90s\": a request sent at the very moment the \
                 backend closes is lost",
            );
        problem(&[Step::Key("idle_timeout")], warning);
    }
    if upstream.max_idle > upstream.max_connections.get() {
        let most = upstream.max_connections;
        let warning = Problem::warning(format!("never more than {most} connections are open"))
            .remedy(format!("write at most {most}, or raise max_connections"));
        problem(&[Step::Key("max_idle")], warning);
    }
    let [shortest, longest] = RESOLVE;
    if upstream.resolve < shortest || upstream.resolve > longest {
        let error = Problem::error("names can be resolved once a second to once an hour")
            .remedy("write for example \"30s\"");
        problem(&[Step::Key("resolve")], error);
    }
    if upstream.ejection.time > upstream.ejection.longest {
        let warning = Problem::warning("no ejection lasts longer than `longest`")
            .remedy("write less for time, or more for longest");
        problem(&[Step::Key("ejection"), Step::Key("time")], warning);
    }
    if upstream.check.timeout > upstream.check.interval && upstream.check.path.is_some() {
        let warning = Problem::warning("a check that takes this long delays the next")
            .remedy("write at most as much as interval");
        problem(&[Step::Key("check"), Step::Key("timeout")], warning);
    }
    tls(upstream, &mut problem);
    servers(config, upstream, &mut problem);
}

fn tls(upstream: &UpstreamSection, problem: &mut impl FnMut(&[Step<'_>], Problem)) {
    let tls = &upstream.tls;
    let half = match (&tls.certificate, &tls.key) {
        (Some(_), None) => Some((
            "certificate",
            "the private key of the certificate is missing",
            "key",
        )),
        (None, Some(_)) => Some((
            "key",
            "the certificate of the key is missing",
            "certificate",
        )),
        (Some(_), Some(_)) | (None, None) => None,
    };
    if let Some((written, message, missing)) = half {
        let error = Problem::error(message).remedy(format!("write {missing} = \"...\" beside it"));
        problem(&[Step::Key("tls"), Step::Key(written)], error);
    }
    if !upstream.is_over_tls() && *tls != BackendTlsSection::default() {
        let warning = Problem::warning("the backend is not spoken to over TLS")
            .remedy("write a url that begins with https://, or leave tls out");
        problem(&[Step::Key("tls")], warning);
    } else if !tls.is_verified() {
        let warning =
            Problem::warning("ANYONE CAN POSE AS THE BACKEND: its certificate is not verified")
                .remedy("name its authority in ca_file, or pin its key, and leave verify out");
        problem(&[Step::Key("tls"), Step::Key("verify")], warning);
    }
}

fn servers(
    config: &Config,
    upstream: &UpstreamSection,
    problem: &mut impl FnMut(&[Step<'_>], Problem),
) {
    let servers = &upstream.servers;
    if upstream.url.is_some() && !servers.is_empty() {
        let error = Problem::error("url and servers both say where the backend listens")
            .remedy("move this address into the list, and remove this line");
        problem(&[Step::Key("url")], error);
    }
    if !servers.is_empty() && servers.iter().all(|server| server.backup) {
        let error = Problem::error("all servers are backups: nothing is there to back up")
            .remedy("remove backup = true from at least one");
        problem(&[Step::Key("servers")], error);
    }
    if servers.len() > MOST_SERVERS {
        let error = Problem::error(format!("an upstream has at most {MOST_SERVERS} servers"))
            .remedy("name a host that resolves to several addresses, all of which are used");
        problem(&[Step::Key("servers")], error);
    }
    let names: Vec<String> = servers.iter().map(ServerSection::name).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            let error = Problem::error(format!("there is a server {name} already"))
                .remedy("remove one, or give it a name of its own: name = \"b\"");
            problem(&[Step::Key("servers"), Step::Element(index)], error);
        }
    }
    let written = upstream.url.iter().map(|url| (vec![Step::Key("url")], url));
    let listed = servers.iter().enumerate().map(|(index, server)| {
        let steps = vec![Step::Key("servers"), Step::Element(index), Step::Key("url")];
        (steps, &server.url)
    });
    for (steps, url) in written.chain(listed) {
        let mut own = config.listen.https.iter().chain(&config.listen.http);
        if let Some((host, port)) = url.host_and_port()
            && own.any(|own| reaches(own.address, host, port))
        {
            let error = Problem::error(format!("syncgate itself listens on {url}"))
                .remedy("write the address of the backend");
            problem(&steps, error);
        }
    }
}

/// Whether a connection to `host` and `port` reaches the listener `own` of this machine.
fn reaches(own: SocketAddr, host: &str, port: u16) -> bool {
    let address = match host.eq_ignore_ascii_case("localhost") {
        true => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
        false => host.parse().ok(),
    };
    let here = address.is_some_and(|address| {
        address == own.ip() || own.ip().is_unspecified() && address.is_loopback()
    });
    here && own.port() == port
}

fn unused(config: &Config, document: &mut Document<'_>) {
    let is_used = |name: &str| config.routes.iter().any(|route| route.upstream == name);
    let mut warn = |name: &str, place: &[Step<'_>]| {
        if !is_used(name) && document.span(place).is_some() {
            let problem = Problem::warning(format!("no route leads to the upstream `{name}`"))
                .remedy(format!(
                    "add upstream = \"{name}\" to a route, or remove this"
                ));
            report(document, place, problem);
        }
    };
    warn(DEFAULT_UPSTREAM, &[Step::Key("upstream")]);
    for name in config.upstreams.keys() {
        warn(name, &[Step::Key("upstreams"), Step::Key(name)]);
    }
}

fn routes(config: &Config, document: &mut Document<'_>) {
    let named = config.upstreams.keys().map(String::as_str);
    let named = named.filter(|name| *name != DEFAULT_UPSTREAM);
    let known: Vec<&str> = std::iter::once(DEFAULT_UPSTREAM).chain(named).collect();
    for (index, route) in config.routes.iter().enumerate() {
        let name = route.upstream.as_str();
        if known.contains(&name) || document.is_damaged("upstreams", name) {
            continue;
        }
        let all = format!("the upstreams are {}", known.join(", "));
        let problem = Problem::error(format!("there is no upstream `{name}`"));
        let problem = match suggest::nearest(name, &known) {
            Some(near) => problem.remedy(format!("did you mean \"{near}\"? {all}")),
            None => problem.remedy(format!("add [upstreams.{name}]; {all}")),
        };
        let key = [
            Step::Key("routes"),
            Step::Element(index),
            Step::Key("upstream"),
        ];
        document.report(problem.at(document.span(&key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_recognized() {
        let cases = [
            ("127.0.0.1:8080", "127.0.0.1", 8080, true),
            ("127.0.0.1:8080", "localhost", 8080, true),
            ("127.0.0.1:8080", "127.0.0.1", 8081, false),
            ("127.0.0.1:8080", "127.0.0.2", 8080, false),
            ("0.0.0.0:8080", "127.0.0.1", 8080, true),
            ("0.0.0.0:8080", "LOCALHOST", 8080, true),
            ("0.0.0.0:8080", "192.0.2.1", 8080, false),
            ("[::]:8080", "::1", 8080, true),
            ("127.0.0.1:8080", "erp.example", 8080, false),
        ];
        for (own, host, port, expected) in cases {
            let found = reaches(own.parse().unwrap(), host, port);
            assert_eq!(found, expected, "{own} {host}:{port}");
        }
    }
}
