//! How much memory the process has.

use std::fs;

/// Resident memory in bytes, as the kernel counts it; `None` where there is no `/proc`.
pub(crate) fn resident() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read() {
        assert_eq!(
            parse("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t  12 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(parse("Name:\tx\n"), None);
        assert_eq!(parse("VmRSS:\tmuch\n"), None);
        assert!(resident().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
