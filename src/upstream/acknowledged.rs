//! How much of what was written to a TCP connection the other side's system has acknowledged.
//!
//! The system call that tells is written by nix's macro: nothing here is `unsafe` of this crate's.

use std::os::fd::AsFd;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};

sockopt_impl!(
    /// `struct tcp_info` up to and with `tcpi_bytes_acked`, as Linux has had it since 4.1: the kernel
    /// fills as much as there is room for, and any bytes are numbers.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u64; 16]
);

/// The bytes acknowledged so far, of whatever was sent: the handshake may count as one.
pub(super) fn bytes_acknowledged(socket: &impl AsFd) -> Option<u64> {
    let info = getsockopt(socket, TcpInfo).ok()?;
    info.last().copied()
}
