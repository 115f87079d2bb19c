//! Landlock: the kernel restricts the process to the files it needs, to its open listeners, and to connecting
//! to the ports it needs, whatever code comes to run in it.
//!
//! Rules allow directories rather than files: a reload must be able to read a file that was renamed over
//! another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope,
};

/// The access that the process needs after startup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequiredAccess {
    /// Files that may be reloaded.
    pub(crate) files: Vec<PathBuf>,
    /// A file that is written, and created again in its directory.
    pub(crate) records: Option<PathBuf>,
    /// A socket file that is removed on shutdown.
    pub(crate) socket: Option<PathBuf>,
    /// A file that is written, and whose directory gets others when it is rotated.
    pub(crate) trail: Option<PathBuf>,
    /// Whether host names have to be resolved.
    pub(crate) names: bool,
    /// The ports to connect to; `None` if only a server will announce them.
    pub(crate) ports: Option<BTreeSet<u16>>,
    /// Ports that may be connected to or listened on later.
    pub(crate) reload_ports: BTreeSet<u16>,
}

/// The state of the confinement. Must be kept as long as the process runs.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    /// A description of what took effect; `None` if the kernel has no Landlock.
    pub(crate) summary: Option<String>,
    /// Paths in /proc, whose inodes the kernel recreates after a while without use; a rule would then no longer
    /// match.
    _kept: Vec<PathFd>,
}

/// Confines the calling thread and all threads it starts from now on.
///
/// # Errors
/// If the kernel has Landlock but refuses.
pub(super) fn confine(needs: &RequiredAccess) -> Result<Confinement, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(match needs.ports {
            Some(_) => AccessNet::BindTcp | AccessNet::ConnectTcp,
            None => AccessNet::BindTcp.into(),
        })?
        .scope(Scope::Signal)?
        .create()?;
    let mut kept = Vec::new();
    let mut allow = |path: &Path, mut access: BitFlags<AccessFs>| {
        if !path.is_dir() {
            access.remove(AccessFs::ReadDir);
        }
        // A missing path cannot be opened anyway.
        let Ok(place) = PathFd::new(path) else {
            return Ok::<(), RulesetError>(());
        };
        (&mut rules).add_rule(PathBeneath::new(&place, access))?;
        if path.starts_with("/proc") {
            kept.push(place);
        }
        Ok(())
    };
    for folder in folders(&needs.files) {
        allow(&folder, read)?;
    }
    for path in SYSTEM {
        allow(Path::new(path), read)?;
    }
    for path in NAMES.iter().filter(|_| needs.names) {
        allow(Path::new(path), read)?;
    }
    if let Some(folder) = needs.records.as_deref().map(folder) {
        allow(folder, AccessFs::WriteFile | AccessFs::MakeReg)?;
    }
    if let Some(folder) = needs.socket.as_deref().map(folder) {
        allow(folder, AccessFs::RemoveFile.into())?;
    }
    if let Some(folder) = needs.trail.as_deref().map(folder) {
        let write = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
        allow(folder, read | write | AccessFs::Truncate)?;
    }
    for port in needs.connected() {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    for &port in &needs.reload_ports {
        rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    let summary = in_words(&rules.restrict_self()?, needs.ports.is_some());
    Ok(Confinement {
        summary,
        _kept: kept,
    })
}

impl RequiredAccess {
    /// The ports that may be connected to, if there are others.
    pub(crate) fn connectable(&self) -> Option<BTreeSet<u16>> {
        let later = self.reload_ports.iter();
        Some(self.ports.as_ref()?.iter().chain(later).copied().collect())
    }

    fn connected(&self) -> impl Iterator<Item = u16> {
        let names = (self.names && self.ports.is_some()).then_some(DNS);
        let later = self.reload_ports.iter().filter(|_| self.ports.is_some());
        let known = self.ports.iter().flatten().chain(later).copied();
        known.chain(names)
    }
}

fn in_words(status: &RestrictionStatus, ports_known: bool) -> Option<String> {
    if status.ruleset == RulesetStatus::NotEnforced {
        return None;
    }
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    let ports = match (version, ports_known) {
        (4.., true) => {
            ", no further listening port, connections to the backend and the store alone"
        }
        (4.., false) => ", no further listening port",
        _ => "",
    };
    Some(format!(
        "only the files it needs{ports} (Landlock {version})"
    ))
}

/// The directories of the files, and of the targets of symbolic links.
fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let direct = files.iter().map(|file| folder(file).to_owned());
    let behind = files.iter().filter_map(|file| {
        let file = file.canonicalize().ok()?;
        file.parent().map(Path::to_owned)
    });
    direct.chain(behind).collect()
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// The newest version whose file system rights are all handled. An older kernel enforces those it knows.
const KNOWN: ABI = ABI::V5;
/// The C library uses TCP for DNS responses that are too long for a datagram.
const DNS: u16 = 53;
/// Paths used by the standard library and cryptography: about the machine's resources, and for random numbers
/// on old kernels.
const SYSTEM: [&str; 7] = [
    "/proc/self",
    "/proc/meminfo",
    "/proc/sys",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/urandom",
];
/// Paths that the C library uses to resolve names. Directories, since the files are replaced at run time.
const NAMES: [&str; 5] = ["/etc", "/run/systemd/resolve", "/lib", "/lib64", "/usr/lib"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Landlock applies to threads, so the test runs on a thread of its own.
    #[test]
    fn what_is_not_needed_cannot_be_opened() {
        let (needed, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, other) = (
            needed.path().join("users.toml"),
            foreign.path().join("secret"),
        );
        std::fs::write(&file, "x").unwrap();
        std::fs::write(&other, "x").unwrap();
        let confined = std::thread::spawn(move || {
            let open = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let closed = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = |it: &std::net::TcpListener| it.local_addr().unwrap().port();
            let needs = RequiredAccess {
                files: vec![file.clone()],
                ports: Some([port(&open)].into()),
                ..RequiredAccess::default()
            };
            let confined = confine(&needs).unwrap();
            let Some(summary) = &confined.summary else {
                assert!(std::fs::read(&other).is_ok());
                return println!("this kernel has no Landlock");
            };
            let denied = |result: std::io::Result<()>, what: &str| {
                let kind = result.unwrap_err().kind();
                assert_eq!(kind, std::io::ErrorKind::PermissionDenied, "{what}");
            };
            denied(std::fs::read(&other).map(drop), "another file");
            denied(
                std::fs::read("/etc/passwd").map(drop),
                "a file of the system",
            );
            denied(std::fs::write(&file, "y"), "writing");
            denied(std::fs::remove_file(&file), "removing");
            let program = std::process::Command::new("/bin/true").status();
            denied(program.map(drop), "starting a program");
            if summary.contains("port") {
                let listening = std::net::TcpListener::bind(("127.0.0.1", 0));
                denied(listening.map(drop), "listening");
                let connect = |it: &std::net::TcpListener| {
                    std::net::TcpStream::connect(("127.0.0.1", port(it)))
                };
                denied(connect(&closed).map(drop), "connecting to another port");
                connect(&open).unwrap();
            }
            assert_eq!(std::fs::read(&file).unwrap(), b"x");
            // The kernel evicted the inode of /proc/self when memory was scarce, and then refused to open
            // /proc/self/status. It keeps what is held open.
            assert!(std::fs::read("/proc/self/status").is_ok());
            let of_proc = SYSTEM.iter().filter(|path| path.starts_with("/proc"));
            assert_eq!(confined._kept.len(), of_proc.count());
        });
        confined.join().unwrap();
    }

    #[test]
    fn a_link_needs_both_its_folders() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("real"), "x").unwrap();
        let link = one.path().join("link");
        std::os::unix::fs::symlink(other.path().join("real"), &link).unwrap();
        let canonical = |path: &Path| path.canonicalize().unwrap();
        let found: BTreeSet<_> = folders(&[link, one.path().join("not there")])
            .iter()
            .map(|folder| canonical(folder))
            .collect();
        assert_eq!(
            found,
            BTreeSet::from([canonical(one.path()), canonical(other.path())])
        );
        assert_eq!(folder(Path::new("users.toml")), Path::new("."));
    }
}
