//! How much memory the process has, and how much there is for it: the machine's, or less where a
//! cgroup bounds it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use bytesize::ByteSize;

use crate::limits::MemoryLimit;

/// Resident memory in bytes, as the kernel counts it; `None` where there is no `/proc`.
pub(crate) fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The mark above which new requests are sent away; zero where there is none.
pub(crate) fn high_water_mark(limit: MemoryLimit) -> ByteSize {
    let share = match limit {
        MemoryLimit::Size(size) => return size,
        MemoryLimit::Share(share) => share,
    };
    let Some(available) = available(Path::new("/")) else {
        tracing::warn!(
            "there is no telling how much memory there is: give a size (limits.memory), \
             so that new requests are sent away before it is used up"
        );
        return ByteSize::b(0);
    };
    let mark = ByteSize::b(share.of(available));
    tracing::info!(
        %mark,
        available = %ByteSize::b(available),
        "new requests are sent away from so much resident memory on (limits.memory)"
    );
    mark
}

/// What the machine has, or the process's cgroup and those around it allow, whichever is least.
fn available(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path));
    let machine = kibibytes(&read("proc/meminfo").unwrap_or_default(), "MemTotal:");
    let cgroups = read("proc/self/cgroup").unwrap_or_default();
    let bounds = cgroups.lines().flat_map(|line| bounds(root, line));
    machine.into_iter().chain(bounds).min()
}

/// What the cgroups that a line of `/proc/self/cgroup` names allow: `ID:CONTROLLERS:PATH`, where
/// version 2 has no controllers.
fn bounds(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mounts, files): (&[&str], &[&str]) = match controllers {
        "" => (
            &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
            &["memory.max", "memory.high"],
        ),
        _ if controllers.split(',').any(|one| one == "memory") => {
            (&["sys/fs/cgroup/memory"], &["memory.limit_in_bytes"])
        }
        _ => return Vec::new(),
    };
    // A path from outside of the process's namespace begins with "..": what is seen is its root.
    let path: PathBuf = (Path::new(path).components())
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    let mut found = Vec::new();
    for mount in mounts {
        for around in path.ancestors() {
            for file in files {
                let text = fs::read_to_string(root.join(mount).join(around).join(file));
                // "max" is no bound.
                found.extend(text.ok().and_then(|text| text.trim().parse::<u64>().ok()));
            }
        }
    }
    found
}

fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read() {
        let read = |text| kibibytes(text, "VmRSS:");
        let status = "Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t  12 kB\n";
        assert_eq!(read(status), Some(12 * 1024));
        assert_eq!(read("Name:\tx\n"), None);
        assert_eq!(read("VmRSS:\tmuch\n"), None);
        assert!(resident().is_some_and(|bytes| bytes > 1024 * 1024));
    }

    #[test]
    fn there_is_as_much_as_the_tightest_bound_leaves() {
        const MIB: u64 = 1024 * 1024;
        let v1 = "4:memory:/a/b\n3:cpu,cpuacct:/a\n";
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u64);
        let cases: &[Case<'_>] = &[
            ("no cgroup", "", &[], 1024),
            (
                "none with a bound",
                "0::/a/b\n",
                &[("a/memory.max", "max\n")],
                1024,
            ),
            (
                "its own",
                "0::/a/b\n",
                &[("a/b/memory.max", "104857600\n")],
                100,
            ),
            (
                "one around it",
                "0::/a/b\n",
                &[("a/memory.max", "104857600\n")],
                100,
            ),
            (
                "that of a container",
                "0::/\n",
                &[("memory.max", "104857600")],
                100,
            ),
            (
                "one from outside",
                "0::/../../x\n",
                &[("memory.max", "104857600")],
                100,
            ),
            (
                "the least",
                "0::/a\n",
                &[("memory.max", "104857600"), ("a/memory.max", "209715200")],
                100,
            ),
            (
                "a soft one",
                "0::/a\n",
                &[("a/memory.high", "104857600")],
                100,
            ),
            (
                "version 1",
                v1,
                &[("memory/a/memory.limit_in_bytes", "104857600")],
                100,
            ),
            (
                "version 1 without one",
                v1,
                &[("memory/a/b/memory.limit_in_bytes", "9223372036854771712")],
                1024,
            ),
            (
                "another controller's",
                "3:cpu:/a\n",
                &[("a/memory.max", "1")],
                1024,
            ),
            ("nonsense", "0\n::\n", &[("memory.max", "much")], 1024),
        ];
        for (what, cgroup, files, expected) in cases {
            let root = tempfile::tempdir().unwrap();
            let write = |path: &Path, text: &str| {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            write(&root.path().join("proc/meminfo"), "MemTotal:  1048576 kB\n");
            write(&root.path().join("proc/self/cgroup"), cgroup);
            for (path, text) in *files {
                write(&root.path().join("sys/fs/cgroup").join(path), text);
            }
            assert_eq!(available(root.path()), Some(expected * MIB), "{what}");
        }
        assert_eq!(available(Path::new("/nowhere")), None);
    }
}
