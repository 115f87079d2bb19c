//! `syncgate check --live`: looks at what the gateway depends on as it is now. Each probe has a deadline, and none
//! changes anything.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::finding::Finding;
use super::kernel::{self, Kernel, Needed};
use crate::app::needed_descriptors;
use crate::clock::Clock;
use crate::cluster;
use crate::config::Config;
use crate::error_chain::chain;
use crate::process::Protections;
use crate::server::BACKLOG;
use crate::store::{self, StoreKind};
use crate::tls::NEAR_ITS_END;
use crate::tls::inspect::{Inspected, Trust, inspect, system_authorities};
use crate::upstream::probe::{ProbeError, Reached, probe};
use crate::upstream::{ServerSection, TlsFailure, UpstreamError, UpstreamSection};

/// What is found with the privileges that the command was started with: the certificates, whether the running
/// gateway serves them, and who can change files. Starts no thread.
///
/// # Errors
/// If the system gives no event queue.
pub(super) fn look_around(path: &Path, config: &Config, clock: &Clock) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let roots = system_authorities();
    let mut first = None;
    for section in &config.tls.certificates {
        // What cannot be read is an error of the configuration, and reported as such.
        if let Ok(found) = inspect(&section.certificate, roots.as_ref(), clock) {
            findings.extend(certificate(&section.certificate, &found, clock));
            first.get_or_insert((&section.certificate, found));
        }
    }
    if let Some((file, found)) = &first {
        let addresses = config.listen.https.iter();
        // Who demands a PROXY header serves nobody without.
        let addresses = addresses.filter(|it| !it.proxy_protocol && it.address.port() != 0);
        for address in addresses.map(|it| it.address) {
            let asked = found.is_served_at(reachable(address), clock);
            let served = runtime()?.block_on(async { timeout(DEADLINE, asked).await });
            findings.push(served_at(
                address,
                file,
                served.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            ));
        }
    }
    findings.extend(modes(path, config));
    Ok(findings)
}

/// What is found as the gateway would find it, with the privileges that it is left with.
///
/// # Errors
/// If the system gives no event queue.
pub(super) fn ask_around(
    config: &Config,
    clock: &Clock,
    protections: &Protections,
) -> io::Result<Vec<Finding>> {
    let mut findings = runtime()?.block_on(async {
        let mut findings = servers(config, clock).await;
        findings.extend(shared_store(config, clock).await);
        findings
    });
    findings.extend(kernel::judge(kernel(), needed(config)));
    if !protections.on.is_empty() {
        let how = protections.on.join("; ");
        findings.push(Finding::Protected { how });
    }
    let off = protections.off.iter().cloned();
    findings.extend(off.map(|what| Finding::Unprotected { what }));
    Ok(findings)
}

fn runtime() -> io::Result<LocalRuntime> {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().build_local(LocalOptions::default())
}

fn certificate(file: &Path, found: &Inspected, clock: &Clock) -> Vec<Finding> {
    let file = file.to_owned();
    let mut findings = Vec::new();
    let days = days_until(found.valid.1, clock);
    findings.push(
        match (found.names.is_empty(), is_near(found.valid.1, clock)) {
            (true, _) => Finding::CertificateNameless { file: file.clone() },
            (false, true) => Finding::CertificateEndsSoon {
                file: file.clone(),
                days,
            },
            (false, false) => Finding::CertificateGood {
                file: file.clone(),
                names: found.names.join(", "),
                days,
            },
        },
    );
    if let Some(ends) = found.chain_ends.filter(|&ends| is_near(ends, clock)) {
        findings.push(Finding::ChainEndsFirst {
            file: file.clone(),
            days: days_until(ends, clock),
        });
    }
    if let Some(place) = found.out_of_order {
        findings.push(Finding::ChainOutOfOrder { file, place });
        return findings;
    }
    findings.push(match &found.trust {
        Trust::System => Finding::ChainTrusted { file },
        Trust::Itself => Finding::ChainSelfSigned { file },
        Trust::Unknown => Finding::ChainUnknown { file },
        Trust::NoList => Finding::ChainUnjudged { file },
        Trust::Refused(error) => Finding::ChainRefused {
            file,
            reason: error.to_string(),
        },
    });
    findings
}

fn is_near(ends: i64, clock: &Clock) -> bool {
    ends - clock.now().timestamp().as_second() < NEAR_ITS_END
}

fn days_until(ends: i64, clock: &Clock) -> i64 {
    (ends - clock.now().timestamp().as_second()).div_euclid(A_DAY)
}

/// Where to connect to for who listens on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

fn served_at(address: SocketAddr, file: &Path, served: io::Result<bool>) -> Finding {
    let address = address.to_string();
    match served {
        Ok(true) => Finding::Served { address },
        Ok(false) => Finding::ServedOther {
            address,
            file: file.to_owned(),
        },
        Err(error) => Finding::NotServed {
            address,
            reason: error.to_string(),
        },
    }
}

/// Whether everybody can change a file that the gateway reads, or replace it.
fn modes(path: &Path, config: &Config) -> Vec<Finding> {
    let mut paths = config.files();
    paths.push(path.to_owned());
    let directories = paths.iter().filter_map(|path| path.parent());
    let directories = directories.map(|it| match it.as_os_str().is_empty() {
        true => Path::new("."),
        false => it,
    });
    let mut all: Vec<_> = directories
        .map(Path::to_owned)
        .chain(paths.iter().cloned())
        .collect();
    all.sort();
    all.dedup();
    let exposed = all.into_iter().filter_map(|path| {
        let mode = fs::metadata(&path).ok()?.mode();
        let is_exposed = mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
        let mode = mode & 0o7777;
        is_exposed.then_some(Finding::FileExposed { path, mode })
    });
    let exposed: Vec<_> = exposed.collect();
    match exposed.is_empty() {
        true => vec![Finding::FilesGuarded { count: paths.len() }],
        false => exposed,
    }
}

/// Asks all servers of all upstreams at once.
async fn servers(config: &Config, clock: &Clock) -> Vec<Finding> {
    let mut asked = JoinSet::new();
    let mut count = 0;
    for (name, upstream) in config.upstreams() {
        for server in upstream.servers() {
            let (settings, clock) = (upstream.clone(), clock.clone());
            let label = format!("{name}/{}", server.name());
            asked.spawn_local(async move {
                (count, ask_server(label, &server, &settings, &clock).await)
            });
            count += 1;
        }
    }
    let mut found = asked.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    found
        .into_iter()
        .flat_map(|(_, findings)| findings)
        .collect()
}

async fn ask_server(
    server: String,
    section: &ServerSection,
    settings: &UpstreamSection,
    clock: &Clock,
) -> Vec<Finding> {
    match probe(section, settings, clock, DEADLINE).await {
        Ok(reached) => reached_server(server, &reached, settings, clock),
        Err(error) => {
            let reason = chain(&error);
            vec![match error {
                ProbeError::Connection(UpstreamError::Tls(TlsFailure::Certificate(_))) => {
                    Finding::ServerUnsafe { server, reason }
                }
                ProbeError::Connection(_) | ProbeError::Settings(_) => {
                    Finding::ServerUnreachable { server, reason }
                }
            }]
        }
    }
}

fn reached_server(
    server: String,
    reached: &Reached,
    settings: &UpstreamSection,
    clock: &Clock,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(ends) = reached.certificate_ends {
        let (server, days) = (server.clone(), days_until(ends, clock));
        findings.push(match is_near(ends, clock) {
            true => Finding::ServerCertificateEndsSoon { server, days },
            false => Finding::ServerCertificate { server, days },
        });
    }
    let response = match &reached.response {
        Ok(response) => response,
        Err(reason) => {
            let reason = reason.clone();
            findings.push(Finding::ServerSilent { server, reason });
            return findings;
        }
    };
    let is_good = match settings.check.path {
        Some(_) => settings.check.status.contains(&response.status),
        // It need not have anything there.
        None => !response.status.is_server_error(),
    };
    let status = response.status.as_u16();
    findings.push(match is_good {
        true => Finding::ServerGood {
            server: server.clone(),
            status,
            millis: response.took.as_millis(),
        },
        false => Finding::ServerErring {
            server: server.clone(),
            status,
        },
    });
    findings.extend(response.ahead.map(|ahead| compared(server, ahead)));
    findings
}

fn compared(by: String, ahead: i64) -> Finding {
    match ahead.abs() > TOLERATED {
        true => Finding::ClockWrong { by, ahead },
        false => Finding::ClockRight { by },
    }
}

async fn shared_store(config: &Config, clock: &Clock) -> Vec<Finding> {
    let section = match config.tokens.store {
        StoreKind::Shared => &config.tokens.shared,
        StoreKind::Memory | StoreKind::Durable => return Vec::new(),
    };
    let layout = store::layout(section);
    let mut findings = Vec::new();
    for (address, asked) in cluster::probe(section, &layout, clock, DEADLINE).await {
        let server = address.to_string();
        let found = match asked {
            Ok(found) => found,
            Err(error) => {
                let reason = chain(&error);
                findings.push(Finding::StoreUnreachable { server, reason });
                continue;
            }
        };
        findings.push(match found.data {
            Some(data) if data != layout.version => Finding::StoreOtherData {
                server: server.clone(),
                data,
            },
            Some(_) | None => Finding::StoreGood {
                server: server.clone(),
                version: found
                    .version
                    .unwrap_or_else(|| "a server of no known kind".to_owned()),
            },
        });
        findings.extend(
            found
                .ahead
                .map(|ahead| compared(format!("token store {server}"), ahead)),
        );
    }
    findings
}

fn kernel() -> Kernel {
    let read = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys/net").join(name));
        text.map(|text| kernel::numbers(&text)).unwrap_or_default()
    };
    Kernel {
        backlog: read("core/somaxconn").first().copied(),
        local_ports: match read("ipv4/ip_local_port_range")[..] {
            [first, last] => Some((first, last)),
            _ => None,
        },
        syn_cookies: read("ipv4/tcp_syncookies").first().copied(),
        descriptors: getrlimit(Resource::Nofile).maximum,
    }
}

fn needed(config: &Config) -> Needed {
    let workers = NonZeroUsize::new(config.listen.workers).or(thread::available_parallelism().ok());
    let workers = workers.map_or(1, NonZeroUsize::get);
    let over_tcp = config.upstreams().filter(|(_, upstream)| {
        let mut servers = upstream.servers();
        servers.any(|server| server.url.host_and_port().is_some())
    });
    let each = over_tcp.map(|(_, upstream)| upstream.max_connections.get());
    Needed {
        backlog: u64::from(BACKLOG.unsigned_abs()),
        connections_to_one: workers.saturating_mul(each.max().unwrap_or(0)) as u64,
        descriptors: needed_descriptors(config),
    }
}

/// How long one probe may take, and the response to it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many seconds two clocks may differ by.
const TOLERATED: i64 = 30;
const A_DAY: i64 = 24 * 60 * 60;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;
