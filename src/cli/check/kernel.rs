//! Pure: whether the kernel's settings leave room for a configuration.

use super::finding::Finding;

/// What the kernel says. `None` where it does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kernel {
    /// `net.core.somaxconn`: the most connections that wait to be accepted.
    pub(super) backlog: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub(super) local_ports: Option<(u64, u64)>,
    /// `net.ipv4.tcp_syncookies`.
    pub(super) syn_cookies: Option<u64>,
    /// The hard limit of file descriptors, which may be none.
    pub(super) descriptors: Option<u64>,
}

/// What a configuration needs of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    /// The connections that a listener lets wait.
    pub(super) backlog: u64,
    /// The most connections to one server over TCP.
    pub(super) connections_to_one: u64,
    /// File descriptors.
    pub(super) descriptors: u64,
}

/// The text of a file below `/proc/sys` as numbers.
pub(super) fn numbers(text: &str) -> Vec<u64> {
    let words = text.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// What there is to say of each of them.
pub(super) fn judge(kernel: Kernel, needed: Needed) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match kernel.descriptors {
        Some(available) if available < needed.descriptors => Finding::FewDescriptors {
            available,
            needed: needed.descriptors,
        },
        Some(_) | None => Finding::EnoughDescriptors {
            available: kernel.descriptors,
            needed: needed.descriptors,
        },
    });
    findings.extend(
        kernel
            .backlog
            .map(|backlog| match backlog < needed.backlog {
                true => Finding::ShortBacklog {
                    allowed: backlog,
                    wanted: needed.backlog,
                },
                false => Finding::LongBacklog { allowed: backlog },
            }),
    );
    findings.extend(kernel.local_ports.map(|(first, last)| {
        let ports = (last + 1).saturating_sub(first);
        match ports < needed.connections_to_one {
            true => Finding::FewPorts {
                ports,
                needed: needed.connections_to_one,
            },
            false => Finding::EnoughPorts { ports },
        }
    }));
    if kernel.syn_cookies == Some(0) {
        findings.push(Finding::NoSynCookies);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::finding::Severity;

    const NEEDED: Needed = Needed {
        backlog: 4096,
        connections_to_one: 2048,
        descriptors: 22_000,
    };
    const ROOMY: Kernel = Kernel {
        backlog: Some(4096),
        local_ports: Some((32_768, 60_999)),
        syn_cookies: Some(1),
        descriptors: None,
    };

    #[test]
    fn what_leaves_too_little_room_is_a_warning() {
        let scarce = |kernel: Kernel| {
            let findings = judge(kernel, NEEDED).into_iter();
            let scarce = findings.filter(|it| it.severity() != Severity::Ok);
            scarce.map(|it| it.subject()).collect::<Vec<_>>()
        };
        assert_eq!(scarce(ROOMY), Vec::<String>::new());
        assert_eq!(scarce(Kernel::default()), Vec::<String>::new());
        for (kernel, expected) in [
            (
                Kernel {
                    backlog: Some(128),
                    ..ROOMY
                },
                "net.core.somaxconn",
            ),
            (
                Kernel {
                    local_ports: Some((60_000, 60_999)),
                    ..ROOMY
                },
                "net.ipv4.ip_local_port_range",
            ),
            (
                Kernel {
                    syn_cookies: Some(0),
                    ..ROOMY
                },
                "net.ipv4.tcp_syncookies",
            ),
            (
                Kernel {
                    descriptors: Some(1024),
                    ..ROOMY
                },
                "file descriptors",
            ),
        ] {
            assert_eq!(scarce(kernel), [expected]);
        }
    }

    #[test]
    fn files_of_the_kernel_are_read_as_numbers() {
        assert_eq!(numbers("32768\t60999\n"), [32_768, 60_999]);
        assert_eq!(numbers("4096\n"), [4096]);
        assert!(numbers("none").is_empty());
    }
}
