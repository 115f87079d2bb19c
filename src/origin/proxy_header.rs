//! Pure: the PROXY protocol, versions 1 and 2, by which a TCP load balancer states the client of a
//! connection before its first byte.
//!
//! Parsed strictly, so that no byte after the header is taken as a part of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// A complete header at the start of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its length in bytes; what follows is the client's.
    pub length: usize,
    /// The client's address; `None` if the connection is the proxy's own (`LOCAL`), or the proxy does not
    /// know or state it (`UNKNOWN`).
    pub client: Option<SocketAddr>,
}

/// Why a connection does not begin with a valid PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyHeaderError {
    /// It begins with neither version's signature.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// A line of version 1 that is too long or malformed.
    #[error("the PROXY header of version 1 is malformed")]
    Line,
    /// A version other than 2, or a command other than LOCAL and PROXY.
    #[error("the PROXY header has an unknown version or command")]
    Command,
    /// Addresses other than TCP over IPv4 or IPv6, or truncated ones.
    #[error("the PROXY header of version 2 has no TCP addresses")]
    Addresses,
    /// Longer than [`MAX_LENGTH`].
    #[error("the PROXY header is longer than 4096 bytes")]
    TooLong,
}

/// The longest header in bytes, which leaves ample room for extensions.
pub const MAX_LENGTH: usize = 4096;

/// Parses the header at the start of `bytes`; `None` while it is incomplete, which cannot be the case with
/// [`MAX_LENGTH`] bytes.
///
/// # Errors
/// If it is not a valid header, as early as possible.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(bytes, SIGNATURE) {
        return parse_binary(bytes);
    }
    if begins(bytes, NAME) {
        return parse_line(bytes);
    }
    Err(ProxyHeaderError::Missing)
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

fn parse_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let within = &bytes[..bytes.len().min(MAX_LINE_LENGTH)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return match bytes.len() < MAX_LINE_LENGTH {
            true => Ok(None),
            false => Err(ProxyHeaderError::Line),
        };
    };
    let line = within[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(ProxyHeaderError::Line)?;
    Ok(Some(ProxyHeader {
        length: end + 1,
        client: client_of(line).ok_or(ProxyHeaderError::Line)?,
    }))
}

/// The client that a line, without its line end, names; the outer `None` if it is malformed.
fn client_of(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let kind = words.next()?;
    if kind == "UNKNOWN" {
        // The specification says to ignore the rest.
        return Some(None);
    }
    let mut address = || -> Option<IpAddr> {
        match kind {
            "TCP4" => words.next()?.parse().ok().map(IpAddr::V4),
            "TCP6" => words.next()?.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (client, _) = (address()?, address()?);
    let mut port = || words.next().and_then(decimal_port);
    let (port, _) = (port()?, port()?);
    words
        .next()
        .is_none()
        .then_some(Some(SocketAddr::new(client, port)))
}

/// A port without signs and leading zeros.
fn decimal_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    (plain && canonical).then(|| text.parse().ok()).flatten()
}

fn parse_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let fixed = SIGNATURE.len();
    let Some(&[command, family, high, low]) = bytes.get(fixed..fixed + 4) else {
        return Ok(None);
    };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyHeaderError::Command),
    };
    let length = fixed + 4 + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_LENGTH {
        return Err(ProxyHeaderError::TooLong);
    }
    let Some(body) = bytes.get(fixed + 4..length) else {
        return Ok(None);
    };
    let client = match (local, family) {
        (true, _) | (false, UNSPECIFIED) => None,
        (false, TCP4) => Some(tcp4(body).ok_or(ProxyHeaderError::Addresses)?),
        (false, TCP6) => Some(tcp6(body).ok_or(ProxyHeaderError::Addresses)?),
        (false, _) => return Err(ProxyHeaderError::Addresses),
    };
    Ok(Some(ProxyHeader { length, client }))
}

/// Both addresses, then both ports; extensions may follow.
fn tcp4(body: &[u8]) -> Option<SocketAddr> {
    let (addresses, rest) = body.split_first_chunk::<8>()?;
    let (ports, _) = rest.split_first_chunk::<4>()?;
    let address = Ipv4Addr::from(*addresses.first_chunk::<4>()?);
    let port = u16::from_be_bytes([ports[0], ports[1]]);
    Some(SocketAddr::from((address, port)))
}

fn tcp6(body: &[u8]) -> Option<SocketAddr> {
    let (addresses, rest) = body.split_first_chunk::<32>()?;
    let (ports, _) = rest.split_first_chunk::<4>()?;
    let address = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
    let port = u16::from_be_bytes([ports[0], ports[1]]);
    Some(SocketAddr::from((address, port)))
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const NAME: &[u8] = b"PROXY ";

/// Including the line end, as the specification has it.
const MAX_LINE_LENGTH: usize = 107;

const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    fn line(client: SocketAddr) -> Vec<u8> {
        let kind = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let (ip, port) = (client.ip(), client.port());
        format!("PROXY {kind} {ip} {ip} {port} 443\r\n").into_bytes()
    }

    fn version_2(client: SocketAddr, extensions: &[u8]) -> Vec<u8> {
        let port = client.port().to_be_bytes();
        let ports = [port[0], port[1], 1, 187];
        match client.ip() {
            IpAddr::V4(ip) => {
                let body = [&ip.octets()[..], &[10, 0, 0, 1], &ports, extensions].concat();
                binary(0x21, TCP4, &body)
            }
            IpAddr::V6(ip) => {
                let body = [&ip.octets()[..], &[0; 16], &ports, extensions].concat();
                binary(0x21, TCP6, &body)
            }
        }
    }

    #[test]
    fn lines_of_version_1() {
        use ProxyHeaderError::{Line, Missing};
        let client = |text: &str| Ok(Some(text.parse().unwrap()));
        for (text, expected) in [
            (
                "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n",
                client("192.0.2.1:4711"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 0 443\r\n",
                client("[2001:db8::1]:0"),
            ),
            ("PROXY UNKNOWN\r\n", Ok(None)),
            ("PROXY UNKNOWN ffff:f::1 whatever\r\n", Ok(None)),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 x\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\n", Err(Line)),
            ("PROXY TCP4 192.0.2.1  10.0.0.1 4711 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.01 10.0.0.1 4711 443\r\n", Err(Line)),
            ("PROXY TCP4 2001:db8::1 ::1 4711 443\r\n", Err(Line)),
            ("PROXY TCP6 192.0.2.1 10.0.0.1 4711 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 +1 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 01 443\r\n", Err(Line)),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n", Err(Line)),
            ("PROXY UDP4 192.0.2.1 10.0.0.1 1 443\r\n", Err(Line)),
            ("PROXY \r\n", Err(Line)),
            ("PROXY tcp4 192.0.2.1 10.0.0.1 1 443\r\n", Err(Line)),
            ("proxy UNKNOWN\r\n", Err(Missing)),
            ("GET / HTTP/1.1\r\n", Err(Missing)),
            ("\u{16}\u{3}\u{1}", Err(Missing)),
        ] {
            let client = parse(text.as_bytes()).map(|header| header.unwrap().client);
            assert_eq!(client, expected, "{text}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(93));
        assert_eq!(parse(endless.as_bytes()), Err(Line));
        assert_eq!(parse(&endless.as_bytes()[..106]), Ok(None));
    }

    #[test]
    fn headers_of_version_2() {
        use ProxyHeaderError::{Addresses, Command, TooLong};
        let unix = [0; 216];
        for (what, bytes, expected) in [
            ("local", binary(0x20, 0, &[]), Ok(None)),
            (
                "local with addresses",
                binary(0x20, TCP4, &[1; 12]),
                Ok(None),
            ),
            ("unspecified", binary(0x21, 0, &[1; 7]), Ok(None)),
            ("version 1", binary(0x11, TCP4, &[1; 12]), Err(Command)),
            ("command 2", binary(0x22, TCP4, &[1; 12]), Err(Command)),
            ("datagrams", binary(0x21, 0x12, &[1; 12]), Err(Addresses)),
            ("unix", binary(0x21, 0x31, &unix), Err(Addresses)),
            ("short", binary(0x21, TCP4, &[1; 11]), Err(Addresses)),
            ("short", binary(0x21, TCP6, &[1; 35]), Err(Addresses)),
            (
                "long",
                binary(0x21, TCP4, &[1; MAX_LENGTH - 15]),
                Err(TooLong),
            ),
        ] {
            let client = parse(&bytes).map(|header| header.unwrap().client);
            assert_eq!(client, expected, "{what}");
        }
    }

    fn clients() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_after_it(
            client in clients(),
            extensions in prop::collection::vec(any::<u8>(), 0..600),
            after in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            for header in [line(client), version_2(client, &extensions)] {
                let expected = ProxyHeader { length: header.len(), client: Some(client) };
                let whole = [&header[..], &after].concat();
                prop_assert_eq!(parse(&whole), Ok(Some(expected)));
                for end in 0..header.len() {
                    prop_assert_eq!(parse(&header[..end]), Ok(None), "{}", end);
                }
            }
        }

        #[test]
        fn everything_is_decided_within_the_longest(
            start in prop::sample::select(vec![&b""[..], NAME, SIGNATURE, b"PROXY UNKNOWN "]),
            bytes in prop::collection::vec(any::<u8>(), MAX_LENGTH),
        ) {
            let bytes = [start, &bytes].concat();
            let read = parse(&bytes[..MAX_LENGTH]);
            prop_assert!(!matches!(read, Ok(None)));
            if let Ok(Some(header)) = read {
                prop_assert!(header.length <= MAX_LENGTH);
            }
        }
    }
}
