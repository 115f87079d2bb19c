//! The privileges of the process once it listens: its user, the files and system calls it can use, core
//! dumps. All of this applies to the calling thread and those it starts later, so it is done before there is a
//! second one.

mod confine;
pub(crate) mod descriptors;
pub(crate) mod launcher;
pub mod panics;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod seccomp;
pub(crate) mod service_manager;
mod settings;
mod user;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use landlock::RulesetError;
use nix::errno::Errno;
use nix::unistd::Uid;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use thiserror::Error;

pub(crate) use confine::RequiredAccess;
pub use launcher::Launcher;
pub use settings::ProcessSection;
pub use user::{RunAs, UserError};

/// Gives the current thread a lower priority than forwarding, if the system allows it.
pub(crate) fn lower_priority(what: &str) {
    #[cfg(target_os = "linux")]
    {
        let thread = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(thread), NICENESS) {
            tracing::warn!(%error, "{what} keeps its normal priority");
        }
    }
}

/// Runs the current thread only on otherwise idle cores (`SCHED_IDLE`, sched(7)): any other thread preempts it
/// at once, whereas a thread with low priority runs to the end of its time slice of some milliseconds. It
/// makes little progress on a busy machine. If the system refuses, the thread gets a low priority.
pub(crate) fn run_only_when_idle(what: &str) {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
            set_thread_priority_and_policy, thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let this = thread_native_id();
        if let Err(error) = set_thread_priority_and_policy(this, ThreadPriority::Min, idle) {
            tracing::warn!(?error, "{what} cannot be limited to idle cores");
            lower_priority(what);
        }
    }
}

/// For threads whose work can wait.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Why the process cannot be protected as configured.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// No valid user to switch to.
    #[error("{0} (process.{key}); {remedy}", key = .0.key(), remedy = .0.remedy())]
    User(#[from] UserError),
    /// The system does not let the process switch to the user, or would let it switch back.
    #[error("cannot switch to the user `{name}` permanently")]
    SwitchUser {
        /// The user.
        name: String,
        /// The error.
        #[source]
        cause: Errno,
    },
    /// A file that could not be reloaded later.
    #[error("the user `{name}` cannot read {path}; {remedy}", path = path.display())]
    Unreadable {
        /// The user.
        name: String,
        /// The file.
        path: PathBuf,
        /// How to fix it.
        remedy: String,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// A protection that every kernel has failed.
    #[error("the system refuses to protect the process: {what}")]
    Refused {
        /// Which one.
        what: &'static str,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// The kernel has Landlock but refuses.
    #[error("the process cannot be confined to its files (process.confine)")]
    Confine(#[source] RulesetError),
}

/// Short descriptions of the protections in force, and of those that are not. Must be kept as long as the
/// process runs.
#[derive(Debug, Default)]
pub struct Protections {
    /// In force.
    pub on: Vec<String>,
    /// Not in force, and why.
    pub off: Vec<String>,
    confined: confine::Confinement,
}

impl Protections {
    /// Logs both, on one line.
    pub fn log(&self) {
        let (on, off) = (self.on.join("; "), self.off.join("; "));
        if self.off.is_empty() {
            tracing::info!(on, "process protection");
        } else {
            tracing::warn!(on, off, "process protection");
        }
    }
}

/// Whether the process runs as root.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The user to switch to, if the process runs as root.
///
/// # Errors
/// If the user does not exist, or none is named and staying root is not allowed.
pub(crate) fn target_user(section: &ProcessSection) -> Result<Option<RunAs>, UserError> {
    RunAs::target_user(section)
}

/// Protects the process, permanently. Whatever needs more privileges must be open already.
///
/// # Errors
/// If a requested protection fails although the kernel supports it. The process must exit then.
pub(crate) fn protect(
    section: &ProcessSection,
    needs: &RequiredAccess,
) -> Result<Protections, ProcessError> {
    let mut done = Protections::default();
    drop_rights(section, needs, &mut done)?;
    rustix::thread::set_no_new_privs(true).map_err(refused("no_new_privs"))?;
    done.on.push("no_new_privs".to_owned());
    // After switching users, which resets it.
    dumps(section, &mut done)?;
    if section.confine {
        done.confined = confine::confine(needs).map_err(ProcessError::Confine)?;
    }
    match (&done.confined.summary, section.confine) {
        (Some(summary), _) => done.on.push(summary.clone()),
        (None, true) => done
            .off
            .push(format!("{NOT_CONFINED}: this kernel has no Landlock")),
        (None, false) => done.off.push(format!("{NOT_CONFINED} (process.confine)")),
    }
    // Last, since the steps before need more system calls than serving does.
    if section.seccomp {
        let extra = ExtraCalls {
            listen: !needs.reload_ports.is_empty(),
            rename: needs.trail.is_some(),
        };
        filter_calls(&mut done, extra)?;
    }
    Ok(done)
}

/// System calls that only some configurations need.
#[derive(Debug, Clone, Copy, Default)]
struct ExtraCalls {
    listen: bool,
    rename: bool,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn filter_calls(done: &mut Protections, extra: ExtraCalls) -> Result<(), ProcessError> {
    seccomp::filter_calls(extra).map_err(|cause| ProcessError::Refused {
        what: "system calls (process.seccomp)",
        cause,
    })?;
    done.on
        .push("only the system calls it uses (seccomp)".to_owned());
    Ok(())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn filter_calls(done: &mut Protections, _extra: ExtraCalls) -> Result<(), ProcessError> {
    done.off.push(
        "any system call: none are listed for this architecture (process.seccomp)".to_owned(),
    );
    Ok(())
}

fn drop_rights(
    section: &ProcessSection,
    needs: &RequiredAccess,
    done: &mut Protections,
) -> Result<(), ProcessError> {
    if !Uid::effective().is_root() {
        if let Some(user) = RunAs::find(section)?.filter(|user| !user.is_current()) {
            let present = Uid::effective();
            done.off.push(format!(
                "runs as user number {present}, not as {} (process.user): only root can switch \
                 users",
                user.name()
            ));
        }
        return drop_capabilities(done);
    }
    let Some(user) = RunAs::target_user(section)? else {
        done.off
            .push("runs as root (process.allow_root): name a user (process.user)".to_owned());
        return Ok(());
    };
    user.switch().map_err(|cause| ProcessError::SwitchUser {
        name: user.name().to_owned(),
        cause,
    })?;
    let (uid, gid) = user.ids();
    done.on
        .push(format!("runs as {} ({uid}:{gid})", user.name()));
    needs
        .files
        .iter()
        .try_for_each(|path| can_read(path, &user))
}

/// Drops the capabilities that a service manager granted for binding low ports. Switching users has dropped
/// them already.
fn drop_capabilities(done: &mut Protections) -> Result<(), ProcessError> {
    let held = capabilities(None).map_err(refused("capabilities"))?;
    if held.permitted.is_empty() && held.effective.is_empty() {
        return Ok(());
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(refused("capabilities"))?;
    done.on.push("no capabilities".to_owned());
    Ok(())
}

fn dumps(section: &ProcessSection, done: &mut Protections) -> Result<(), ProcessError> {
    if section.core_dumps {
        // Switching users has disabled them.
        let behavior = DumpableBehavior::Dumpable;
        set_dumpable_behavior(behavior).map_err(refused("core dumps"))?;
        done.off
            .push("core dumps are allowed (process.core_dumps)".to_owned());
        return Ok(());
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(refused("core dumps"))?;
    // Also against dump collectors, which ignore the limit, and debuggers.
    let behavior = DumpableBehavior::NotDumpable;
    set_dumpable_behavior(behavior).map_err(refused("core dumps"))?;
    done.on.push("no core dumps".to_owned());
    Ok(())
}

fn refused(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> ProcessError {
    move |cause| ProcessError::Refused {
        what,
        cause: cause.into(),
    }
}

/// Checks that the process, which runs as `user` now, can open the file.
fn can_read(path: &Path, user: &RunAs) -> Result<(), ProcessError> {
    let cause = match File::open(path) {
        Ok(_) => return Ok(()),
        Err(cause) => cause,
    };
    let (uid, gid) = user.ids();
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Nothing inside a directory that cannot be entered can be inspected.
    let hidden = path.ancestors().filter(|part| {
        let error = part.symlink_metadata().err();
        error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    });
    let remedy = match hidden.last().and_then(Path::parent) {
        Some(folder) => format!(
            "it cannot enter {0}: chgrp {gid} '{0}' && chmod g+x '{0}'",
            folder.display()
        ),
        None => format!("run: chown {uid}:{gid} '{}'", path.display()),
    };
    Err(ProcessError::Unreadable {
        name: user.name().to_owned(),
        path: path.to_owned(),
        remedy,
        cause,
    })
}

const NOT_CONFINED: &str = "not confined to its files";
