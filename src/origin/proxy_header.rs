//! Pure: the PROXY protocol, versions 1 and 2: what a load balancer that does not speak HTTP says of
//! a connection before its first byte.
//!
//! Read strictly and by its bytes alone, so that not one byte of what follows is taken for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// A whole header at the beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes it takes; what follows is the client's.
    pub length: usize,
    /// The client's end; `None` where the connection is the proxy's own (`LOCAL`), or the proxy does
    /// not know or does not say (`UNKNOWN`).
    pub client: Option<SocketAddr>,
}

/// Why the beginning of a connection is no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyHeaderError {
    /// It begins like neither version.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// A line of version 1 that is too long or does not say what it must.
    #[error("the PROXY header of version 1 is malformed")]
    Line,
    /// A version other than 2, or a command other than LOCAL and PROXY.
    #[error("the PROXY header has an unknown version or command")]
    Command,
    /// Addresses of another kind than TCP over IPv4 or IPv6, or too few bytes for them.
    #[error("the PROXY header of version 2 has no addresses of TCP")]
    Addresses,
    /// More than [`LONGEST`].
    #[error("the PROXY header is longer than 4096 bytes")]
    TooLong,
}

/// The longest header that is read in bytes: addresses and a generous lot of extensions.
pub const LONGEST: usize = 4096;

/// Reads the header at the start of `bytes`; `None` as long as it is not complete, which it is or is
/// not for certain within [`LONGEST`] bytes.
///
/// # Errors
/// When it is none, as soon as that shows.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(bytes, SIGNATURE) {
        return parse_binary(bytes);
    }
    if begins(bytes, NAME) {
        return parse_line(bytes);
    }
    Err(ProxyHeaderError::Missing)
}

/// Whether `bytes`, as far as they go, are the beginning of something that starts with `start`.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

fn parse_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return match bytes.len() < LONGEST_LINE {
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

/// The client that a line without its end names; the outer `None` when it is malformed.
fn client_of(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let kind = words.next()?;
    if kind == "UNKNOWN" {
        // Whatever follows is to be ignored.
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
    if length > LONGEST {
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

/// With its end, as the specification bounds it.
const LONGEST_LINE: usize = 107;

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
            ("long", binary(0x21, TCP4, &[1; LONGEST - 15]), Err(TooLong)),
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
            bytes in prop::collection::vec(any::<u8>(), LONGEST),
        ) {
            let bytes = [start, &bytes].concat();
            let read = parse(&bytes[..LONGEST]);
            prop_assert!(!matches!(read, Ok(None)));
            if let Ok(Some(header)) = read {
                prop_assert!(header.length <= LONGEST);
            }
        }
    }
}
