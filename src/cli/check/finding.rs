//! Pure: what `check --live` may find, how bad that is, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// It works, but not as well, as safely or as long as it should.
    Warning,
    /// Clients would be turned away.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    CertificateGood {
        file: PathBuf,
        names: String,
        days: i64,
    },
    CertificateEndsSoon {
        file: PathBuf,
        days: i64,
    },
    CertificateNameless {
        file: PathBuf,
    },
    ChainOutOfOrder {
        file: PathBuf,
        place: usize,
    },
    ChainEndsFirst {
        file: PathBuf,
        days: i64,
    },
    ChainTrusted {
        file: PathBuf,
    },
    ChainSelfSigned {
        file: PathBuf,
    },
    ChainUnknown {
        file: PathBuf,
    },
    ChainUnjudged {
        file: PathBuf,
    },
    ChainRefused {
        file: PathBuf,
        reason: String,
    },
    Served {
        address: String,
    },
    ServedOther {
        address: String,
        file: PathBuf,
    },
    NotServed {
        address: String,
        reason: String,
    },
    FilesGuarded {
        count: usize,
    },
    FileExposed {
        path: PathBuf,
        mode: u32,
    },
    ServerGood {
        server: String,
        status: u16,
        millis: u128,
    },
    ServerErring {
        server: String,
        status: u16,
    },
    ServerSilent {
        server: String,
        reason: String,
    },
    ServerUnreachable {
        server: String,
        reason: String,
    },
    ServerUnsafe {
        server: String,
        reason: String,
    },
    ServerCertificate {
        server: String,
        days: i64,
    },
    ServerCertificateEndsSoon {
        server: String,
        days: i64,
    },
    StoreGood {
        server: String,
        version: String,
    },
    StoreOtherData {
        server: String,
        data: String,
    },
    StoreUnreachable {
        server: String,
        reason: String,
    },
    ClockRight {
        by: String,
    },
    ClockWrong {
        by: String,
        ahead: i64,
    },
    EnoughDescriptors {
        available: Option<u64>,
        needed: u64,
    },
    FewDescriptors {
        available: u64,
        needed: u64,
    },
    LongBacklog {
        allowed: u64,
    },
    ShortBacklog {
        allowed: u64,
        wanted: u64,
    },
    EnoughPorts {
        ports: u64,
    },
    FewPorts {
        ports: u64,
        needed: u64,
    },
    NoSynCookies,
    Protected {
        how: String,
    },
    Unprotected {
        what: String,
    },
}

impl Finding {
    /// How bad it is.
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::CertificateGood { .. }
            | Self::ChainTrusted { .. }
            | Self::Served { .. }
            | Self::NotServed { .. }
            | Self::FilesGuarded { .. }
            | Self::ServerGood { .. }
            | Self::ServerCertificate { .. }
            | Self::StoreGood { .. }
            | Self::ClockRight { .. }
            | Self::EnoughDescriptors { .. }
            | Self::LongBacklog { .. }
            | Self::EnoughPorts { .. }
            | Self::Protected { .. } => Severity::Ok,
            Self::CertificateEndsSoon { .. }
            | Self::ChainEndsFirst { .. }
            | Self::ChainSelfSigned { .. }
            | Self::ChainUnknown { .. }
            | Self::ChainUnjudged { .. }
            | Self::ServedOther { .. }
            | Self::ServerErring { .. }
            | Self::ServerSilent { .. }
            | Self::ServerCertificateEndsSoon { .. }
            | Self::FewDescriptors { .. }
            | Self::ShortBacklog { .. }
            | Self::FewPorts { .. }
            | Self::NoSynCookies
            | Self::Unprotected { .. } => Severity::Warning,
            Self::CertificateNameless { .. }
            | Self::ChainOutOfOrder { .. }
            | Self::ChainRefused { .. }
            | Self::FileExposed { .. }
            | Self::ServerUnreachable { .. }
            | Self::ServerUnsafe { .. }
            | Self::StoreOtherData { .. }
            | Self::StoreUnreachable { .. }
            | Self::ClockWrong { .. } => Severity::Problem,
        }
    }

    /// What was looked at.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::CertificateGood { file, .. }
            | Self::CertificateEndsSoon { file, .. }
            | Self::CertificateNameless { file }
            | Self::ChainOutOfOrder { file, .. }
            | Self::ChainEndsFirst { file, .. }
            | Self::ChainTrusted { file }
            | Self::ChainSelfSigned { file }
            | Self::ChainUnknown { file }
            | Self::ChainUnjudged { file }
            | Self::ChainRefused { file, .. } => file.display().to_string(),
            Self::Served { address } => address.clone(),
            Self::ServedOther { address, .. } | Self::NotServed { address, .. } => address.clone(),
            Self::FilesGuarded { .. } => "files".to_owned(),
            Self::FileExposed { path, .. } => path.display().to_string(),
            Self::ServerGood { server, .. }
            | Self::ServerErring { server, .. }
            | Self::ServerSilent { server, .. }
            | Self::ServerUnreachable { server, .. }
            | Self::ServerUnsafe { server, .. }
            | Self::ServerCertificate { server, .. }
            | Self::ServerCertificateEndsSoon { server, .. } => format!("backend {server}"),
            Self::StoreGood { server, .. }
            | Self::StoreOtherData { server, .. }
            | Self::StoreUnreachable { server, .. } => format!("token store {server}"),
            Self::ClockRight { .. } | Self::ClockWrong { .. } => "clock".to_owned(),
            Self::EnoughDescriptors { .. } | Self::FewDescriptors { .. } => {
                "file descriptors".to_owned()
            }
            Self::LongBacklog { .. } | Self::ShortBacklog { .. } => "net.core.somaxconn".to_owned(),
            Self::EnoughPorts { .. } | Self::FewPorts { .. } => {
                "net.ipv4.ip_local_port_range".to_owned()
            }
            Self::NoSynCookies => "net.ipv4.tcp_syncookies".to_owned(),
            Self::Protected { .. } | Self::Unprotected { .. } => "process".to_owned(),
        }
    }

    /// What to do about it, unless it is as it should be.
    pub(super) fn remedy(&self) -> Option<String> {
        let remedy = match self {
            Self::CertificateGood { .. }
            | Self::ChainTrusted { .. }
            | Self::Served { .. }
            | Self::NotServed { .. }
            | Self::FilesGuarded { .. }
            | Self::ServerGood { .. }
            | Self::ServerCertificate { .. }
            | Self::StoreGood { .. }
            | Self::ClockRight { .. }
            | Self::EnoughDescriptors { .. }
            | Self::LongBacklog { .. }
            | Self::EnoughPorts { .. }
            | Self::Protected { .. } => return None,
            Self::CertificateEndsSoon { .. } => {
                "renew it and replace the file; it is reloaded by itself".to_owned()
            }
            Self::CertificateNameless { .. } => {
                "have one issued with subject alternative names: clients ignore the common name"
                    .to_owned()
            }
            Self::ChainOutOfOrder { .. } => {
                "put the certificates in this order: the server's, its issuer's, and so on; leave out \
                 those that do not belong"
                    .to_owned()
            }
            Self::ChainEndsFirst { .. } => {
                "replace the file by what the authority offers as the full chain".to_owned()
            }
            Self::ChainSelfSigned { file } => format!(
                "give it to every client (curl --cacert {}), or have one issued by an authority",
                file.display()
            ),
            Self::ChainUnknown { .. } => {
                "append the intermediate certificates of the authority (its full chain); if the authority is \
                 your own, give its certificate to every client"
                    .to_owned()
            }
            Self::ChainUnjudged { .. } => "install the system's ca-certificates".to_owned(),
            Self::ChainRefused { .. } => "have another one issued".to_owned(),
            Self::ServedOther { .. } => {
                "run `syncgate reload`, which says why the file is not used".to_owned()
            }
            Self::FileExposed { path, .. } => format!("run: chmod o-w '{}'", path.display()),
            Self::ServerErring { .. } => {
                "look into its log; name a path that it answers in check.path".to_owned()
            }
            Self::ServerSilent { .. } => {
                "look whether it is overloaded, or speaks another protocol at this port".to_owned()
            }
            Self::ServerUnreachable { .. } => {
                "start it, or correct its url; look for a firewall in between".to_owned()
            }
            Self::ServerUnsafe { .. } => {
                "renew its certificate, or name who vouches for it in tls.ca_file, or what it is for in \
                 tls.server_name"
                    .to_owned()
            }
            Self::ServerCertificateEndsSoon { .. } => {
                "have it renewed before requests to it fail".to_owned()
            }
            Self::StoreOtherData { .. } => {
                "write another tokens.shared.prefix, or run one version of syncgate everywhere".to_owned()
            }
            Self::StoreUnreachable { .. } => {
                "start it, or correct tokens.shared: servers, username, password_file, tls".to_owned()
            }
            Self::ClockWrong { .. } => {
                "synchronize both clocks (timedatectl, chronyc tracking)".to_owned()
            }
            Self::FewDescriptors { needed, .. } => format!(
                "write LimitNOFILE={needed} in the unit, or lower limits.connections or \
                 upstream.max_connections"
            ),
            Self::ShortBacklog { wanted, .. } => {
                format!("run: sysctl -w net.core.somaxconn={wanted}, and keep it in /etc/sysctl.d")
            }
            Self::FewPorts { .. } => {
                "run: sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\", and keep it in /etc/sysctl.d, \
                 or lower upstream.max_connections"
                    .to_owned()
            }
            Self::NoSynCookies => {
                "run: sysctl -w net.ipv4.tcp_syncookies=1, and keep it in /etc/sysctl.d".to_owned()
            }
            Self::Unprotected { .. } => {
                "see docs/hardening.md, or accept it".to_owned()
            }
        };
        Some(remedy)
    }

    /// As a JSON object.
    fn to_json(&self) -> Value {
        json!({
            "severity": self.severity(),
            "subject": self.subject(),
            "message": self.to_string(),
            "remedy": self.remedy(),
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateGood { names, days, .. } => {
                write!(f, "valid for {names}, {days} more days")
            }
            Self::CertificateEndsSoon { days, .. } => write!(f, "it ends in {days} days"),
            Self::CertificateNameless { .. } => f.write_str("it is for no name and no address"),
            Self::ChainOutOfOrder { place, .. } => {
                write!(f, "certificate {place} is not issued by the one after it")
            }
            Self::ChainEndsFirst { days, .. } => {
                write!(
                    f,
                    "a certificate of its chain ends before it does, in {days} days"
                )
            }
            Self::ChainTrusted { .. } => f.write_str("this system trusts its authority"),
            Self::ChainSelfSigned { .. } => {
                f.write_str("self-signed: clients that were not given it refuse it")
            }
            Self::ChainUnknown { .. } => f.write_str("this system knows nobody who vouches for it"),
            Self::ChainUnjudged { .. } => {
                f.write_str("this system has no list of authorities to compare it with")
            }
            Self::ChainRefused { reason, .. } => write!(f, "clients refuse it: {reason}"),
            Self::Served { .. } => f.write_str("the running gateway serves the first certificate"),
            Self::ServedOther { file, .. } => write!(
                f,
                "the running gateway serves another certificate than that in {}",
                file.display()
            ),
            Self::NotServed { reason, .. } => write!(f, "no gateway serves it now: {reason}"),
            Self::FilesGuarded { count } => {
                write!(
                    f,
                    "{count} and their directories can be changed by nobody else"
                )
            }
            Self::FileExposed { mode, .. } => {
                write!(
                    f,
                    "every user of the machine can change it (mode {mode:04o})"
                )
            }
            Self::ServerGood { status, millis, .. } => {
                write!(f, "it responded {status} after {millis} ms")
            }
            Self::ServerErring { status, .. } => write!(f, "it responded {status}"),
            Self::ServerSilent { reason, .. } => write!(f, "it is reached, but: {reason}"),
            Self::ServerUnreachable { reason, .. } => f.write_str(reason),
            Self::ServerUnsafe { reason, .. } => f.write_str(reason),
            Self::ServerCertificate { days, .. } => {
                write!(f, "its certificate is accepted and ends in {days} days")
            }
            Self::ServerCertificateEndsSoon { days, .. } => {
                write!(f, "its certificate ends in {days} days")
            }
            Self::StoreGood { version, .. } => write!(f, "reached: {version}"),
            Self::StoreOtherData { data, .. } => {
                write!(f, "the keys there were written by another version: {data}")
            }
            Self::StoreUnreachable { reason, .. } => f.write_str(reason),
            Self::ClockRight { by } => write!(f, "as that of {by}"),
            Self::ClockWrong { by, ahead } => match ahead {
                0.. => write!(f, "{ahead} s ahead of that of {by}"),
                _ => write!(f, "{} s behind that of {by}", -ahead),
            },
            Self::EnoughDescriptors { available, needed } => match available {
                Some(available) => write!(f, "{available} allowed, {needed} needed at the most"),
                None => write!(f, "no limit, {needed} needed at the most"),
            },
            Self::FewDescriptors { available, needed } => write!(
                f,
                "{available} allowed here, {needed} needed if all connections are used"
            ),
            Self::LongBacklog { allowed } => write!(f, "{allowed} connections may wait"),
            Self::ShortBacklog { allowed, wanted } => {
                write!(
                    f,
                    "{allowed} connections may wait to be accepted instead of {wanted}"
                )
            }
            Self::EnoughPorts { ports } => write!(f, "{ports} ports for connections to a server"),
            Self::FewPorts { ports, needed } => {
                write!(
                    f,
                    "{ports} ports for up to {needed} connections to a server"
                )
            }
            Self::NoSynCookies => f.write_str("a flood of SYN packets fills the backlog"),
            Self::Protected { how } => f.write_str(how),
            Self::Unprotected { what } => f.write_str(what),
        }
    }
}

/// The worst of all.
pub(super) fn worst(findings: &[Finding]) -> Severity {
    let severities = findings.iter().map(Finding::severity);
    severities.max().unwrap_or(Severity::Ok)
}

/// All of them, for people.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = match finding.severity() {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        };
        text.push_str(&format!("{severity:<8} {}: {finding}\n", finding.subject()));
        if let Some(remedy) = finding.remedy() {
            text.push_str(&format!("{:<8} {remedy}\n", ""));
        }
    }
    text
}

/// All of them, for programs.
pub(super) fn document(findings: &[Finding]) -> Value {
    let all: Vec<_> = findings.iter().map(Finding::to_json).collect();
    json!({ "worst": worst(findings), "findings": all })
}
