//! What the process may do to the machine once it listens: as whom it runs, what it can open, what
//! a crash leaves behind. All of it holds for the thread that asks and for those that it starts
//! later, so that it is done before there is a second one.

mod confine;
pub mod panics;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod seccomp;
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

pub(crate) use confine::Needs;
pub use settings::ProcessSection;
pub use user::{RunAs, UserError};

/// Lets forwarding go before what the present thread does. A refusal costs nothing but that.
pub(crate) fn lower_priority(what: &str) {
    #[cfg(target_os = "linux")]
    {
        let thread = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(thread), NICENESS) {
            tracing::warn!(%error, "{what} keeps its normal priority");
        }
    }
}

/// Lets the present thread work only while no other has anything to do (`SCHED_IDLE`, sched(7)):
/// whoever wakes up takes its place at once, where a thread that is merely nice goes on to the end of
/// its slice of some milliseconds. While the machine is busy it hardly gets on. Where the system
/// refuses, the thread has low priority.
pub(crate) fn only_when_idle(what: &str) {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
            set_thread_priority_and_policy, thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let this = thread_native_id();
        if let Err(error) = set_thread_priority_and_policy(this, ThreadPriority::Min, idle) {
            tracing::warn!(?error, "{what} is not put off for other work");
            lower_priority(what);
        }
    }
}

/// Of threads that have time.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Why the process cannot be protected as configured.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Nobody to become.
    #[error("{0} (process.{key}); {remedy}", key = .0.key(), remedy = .0.remedy())]
    User(#[from] UserError),
    /// The system does not let the process become the user, or would let it come back.
    #[error("cannot become the user `{name}` for good")]
    Become {
        /// The user.
        name: String,
        /// What the system said.
        #[source]
        cause: Errno,
    },
    /// Files that could not be read again later.
    #[error("the user `{name}` cannot read {path}; {remedy}", path = path.display())]
    Unreadable {
        /// The user.
        name: String,
        /// The file.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A protection that every kernel has.
    #[error("the system refuses to protect the process: {what}")]
    Refused {
        /// Which one.
        what: &'static str,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The kernel knows Landlock, and yet refuses.
    #[error("the process cannot be confined to its files (process.confine)")]
    Confine(#[source] RulesetError),
}

/// What is in force, and what is not, each in a few words. To be kept as long as the process does
/// its work.
#[derive(Debug, Default)]
pub struct Protections {
    /// What is in force.
    pub on: Vec<String>,
    /// What is not, and why.
    pub off: Vec<String>,
    confined: confine::Confined,
}

impl Protections {
    /// Writes both into the log, in one line.
    pub fn log(&self) {
        let (on, off) = (self.on.join("; "), self.off.join("; "));
        if self.off.is_empty() {
            tracing::info!(on, "process protection");
        } else {
            tracing::warn!(on, off, "process protection");
        }
    }
}

/// Whether the process has all rights.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Whether the process has all rights, and is to lose them by becoming another user.
///
/// # Errors
/// When the user is not there, or none is named and root may not stay.
pub(crate) fn to_become(section: &ProcessSection) -> Result<Option<RunAs>, UserError> {
    RunAs::to_become(section)
}

/// Protects the process, for good. All that needs more rights must have been opened before.
///
/// # Errors
/// When a protection that was asked for cannot be had, unless the kernel does not know it. The
/// process is to end then.
pub(crate) fn protect(
    section: &ProcessSection,
    needs: &Needs,
) -> Result<Protections, ProcessError> {
    let mut done = Protections::default();
    drop_rights(section, needs, &mut done)?;
    rustix::thread::set_no_new_privs(true).map_err(refused("no_new_privs"))?;
    done.on.push("no_new_privs".to_owned());
    // After the change of user, which sets it anew.
    dumps(section, &mut done)?;
    if section.confine {
        done.confined = confine::confine(needs).map_err(ProcessError::Confine)?;
    }
    match (&done.confined.how, section.confine) {
        (Some(how), _) => done.on.push(how.clone()),
        (None, true) => done
            .off
            .push(format!("{NOT_CONFINED}: this kernel has no Landlock")),
        (None, false) => done.off.push(format!("{NOT_CONFINED} (process.confine)")),
    }
    // Last: what came before needs more calls than what comes.
    if section.seccomp {
        filter_calls(&mut done)?;
    }
    Ok(done)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn filter_calls(done: &mut Protections) -> Result<(), ProcessError> {
    seccomp::filter_calls().map_err(|cause| ProcessError::Refused {
        what: "system calls (process.seccomp)",
        cause,
    })?;
    done.on
        .push("only the system calls it uses (seccomp)".to_owned());
    Ok(())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn filter_calls(done: &mut Protections) -> Result<(), ProcessError> {
    done.off.push(
        "any system call: none are listed for this architecture (process.seccomp)".to_owned(),
    );
    Ok(())
}

fn drop_rights(
    section: &ProcessSection,
    needs: &Needs,
    done: &mut Protections,
) -> Result<(), ProcessError> {
    if !Uid::effective().is_root() {
        if let Some(user) = RunAs::find(section)?.filter(|user| !user.is_present()) {
            let present = Uid::effective();
            done.off.push(format!(
                "runs as user number {present}, not as {} (process.user): only root can become \
                 another user",
                user.name()
            ));
        }
        return drop_capabilities(done);
    }
    let Some(user) = RunAs::to_become(section)? else {
        done.off
            .push("runs as root (process.allow_root): name a user (process.user)".to_owned());
        return Ok(());
    };
    user.become_it().map_err(|cause| ProcessError::Become {
        name: user.name().to_owned(),
        cause,
    })?;
    let (uid, gid) = user.numbers();
    done.on
        .push(format!("runs as {} ({uid}:{gid})", user.name()));
    needs
        .files
        .iter()
        .try_for_each(|path| can_read(path, &user))
}

/// Gives up what a service manager gave for binding a low port. Who becomes another user has lost it
/// already.
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
        // Changing the user has switched them off.
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
    // Also for a collector of dumps, which ignores the limit, and for debuggers.
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

/// Opens the file as the user that the process has become.
fn can_read(path: &Path, user: &RunAs) -> Result<(), ProcessError> {
    let cause = match File::open(path) {
        Ok(_) => return Ok(()),
        Err(cause) => cause,
    };
    let (uid, gid) = user.numbers();
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Of a folder that cannot be entered, nothing inside can be looked at.
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
