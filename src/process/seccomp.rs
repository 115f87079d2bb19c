//! seccomp: the kernel refuses all system calls but those that the process uses, whatever code comes to run in
//! it. The others fail with EPERM.
//!
//! The list has what the standard library, tokio, glibc, musl and mimalloc call, on either architecture, once
//! the gateway listens. It does not start programs, mount, trace or load modules.

use std::collections::BTreeMap;
use std::io;

use super::ExtraCalls;
use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, EPERM, c_long};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// Filters the system calls of the current thread and all threads it starts from now on.
///
/// # Errors
/// If the kernel has no seccomp.
pub(super) fn filter_calls(extra: ExtraCalls) -> io::Result<()> {
    let program = program(extra).map_err(io::Error::other)?;
    apply_filter(&program).map_err(|error| match error {
        Error::Prctl(cause) | Error::Seccomp(cause) => cause,
        Error::Backend(_) | Error::EmptyFilter | Error::ThreadSync(_) => io::Error::other(error),
    })
}

fn program(extra: ExtraCalls) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in CALLS.iter().chain(CALLS_OF_THE_ARCHITECTURE) {
        rules.insert(*call, Vec::new());
    }
    if extra.listen {
        rules.insert(libc::SYS_listen, Vec::new());
    }
    if extra.rename {
        rules.extend(RENAME.iter().map(|call| (*call, Vec::new())));
    }
    let family = |family: i32| {
        let family = u64::from(family.unsigned_abs());
        let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
        SeccompRule::new(vec![is_it])
    };
    let families = FAMILIES.into_iter().map(family);
    rules.insert(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    let refused = SeccompAction::Errno(EPERM.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?.try_into()
}

/// IP and unix sockets, and netlink, which the C library uses to resolve names.
const FAMILIES: [i32; 4] = [AF_INET, AF_INET6, AF_UNIX, AF_NETLINK];

const CALLS: &[c_long] = &[
    // Files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_unlinkat,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Events.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // The network, but for `socket`.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_getrandom,
    // Threads.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_setattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_setparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_prctl,
    // Signals, and time.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // What the process and the machine are.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// For the rotation of files.
#[cfg(target_arch = "x86_64")]
const RENAME: &[c_long] = &[libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];
#[cfg(not(target_arch = "x86_64"))]
const RENAME: &[c_long] = &[libc::SYS_renameat, libc::SYS_renameat2];

/// Legacy variants of some of those, which newer architectures lack.
#[cfg(target_arch = "x86_64")]
const CALLS_OF_THE_ARCHITECTURE: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_inotify_init,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const CALLS_OF_THE_ARCHITECTURE: &[c_long] = &[];

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// The filter applies to threads, so the test runs on a thread of its own.
    #[test]
    fn what_is_not_used_is_refused() {
        let filtered = std::thread::spawn(|| {
            filter_calls(ExtraCalls::default()).unwrap();
            let denied = |result: io::Result<()>, what: &str| {
                let kind = result.unwrap_err().kind();
                assert_eq!(kind, ErrorKind::PermissionDenied, "{what}");
            };
            let name = format!("syncgate-seccomp-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            denied(std::fs::create_dir(&path), "making a directory");
            denied(std::os::unix::fs::chroot("/"), "another root");
            denied(std::fs::rename("/nowhere", "/nowhere.1"), "renaming");
            let program = std::process::Command::new("/bin/true").status();
            denied(program.map(drop), "starting a program");
            let packets = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None);
            denied(packets.map(drop), "a socket of another family");
            assert!(std::fs::read("/proc/self/status").is_ok());
            assert!(
                std::net::TcpListener::bind(("127.0.0.1", 0)).is_err(),
                "listening"
            );
            std::thread::spawn(|| ()).join().unwrap();
        });
        filtered.join().unwrap();
    }
}
