//! Pure: an access record as a line of the Common Log Format, for tools that read what Apache and nginx write.
//!
//! The request line has the path of the route as configured, since a record holds nothing that a client wrote but
//! the method. Whatever a field holds, it neither ends the field nor the line: escapes are those of Apache.

use std::net::IpAddr;

use super::AccessRecord;

/// What a line says.
struct Fields<'a> {
    host: Option<IpAddr>,
    user: Option<&'a str>,
    calendar: &'a str,
    method: Option<&'a str>,
    path: Option<&'a str>,
    protocol: &'a str,
    status: Option<u16>,
    bytes: u64,
}

/// The line of a record: host, identity, user, time, request, status and bytes of the response body. `host` is the
/// client's address, if it is known; `calendar` is the date and time of the record's second.
pub(super) fn common(
    buffer: &mut Vec<u8>,
    record: &AccessRecord,
    host: Option<IpAddr>,
    calendar: &str,
) {
    push(buffer, &fields(record, host, calendar));
    buffer.push(b'\n');
}

/// The same with the fields for `Referer` and `User-Agent`, which are not recorded.
pub(super) fn combined(
    buffer: &mut Vec<u8>,
    record: &AccessRecord,
    host: Option<IpAddr>,
    calendar: &str,
) {
    push(buffer, &fields(record, host, calendar));
    buffer.extend_from_slice(b" \"-\" \"-\"\n");
}

fn fields<'a>(record: &'a AccessRecord, host: Option<IpAddr>, calendar: &'a str) -> Fields<'a> {
    Fields {
        host,
        user: record.account.as_ref().map(|account| &**account.name()),
        calendar,
        method: record.method.as_ref().map(http::Method::as_str),
        path: record.route.as_deref(),
        protocol: record.protocol(),
        status: record.status.map(|status| status.as_u16()),
        bytes: record.bytes_out,
    }
}

fn push(buffer: &mut Vec<u8>, fields: &Fields<'_>) {
    match fields.host {
        Some(host) => buffer.extend_from_slice(host.to_canonical().to_string().as_bytes()),
        None => buffer.extend_from_slice(NONE),
    }
    buffer.extend_from_slice(b" - ");
    bare(buffer, fields.user);
    buffer.extend_from_slice(b" [");
    time(buffer, fields.calendar);
    buffer.extend_from_slice(b"] \"");
    bare(buffer, fields.method);
    buffer.push(b' ');
    bare(buffer, fields.path);
    buffer.push(b' ');
    buffer.extend_from_slice(fields.protocol.as_bytes());
    buffer.extend_from_slice(b"\" ");
    let mut number = itoa::Buffer::new();
    let status = fields.status.unwrap_or(CLIENT_GONE);
    buffer.extend_from_slice(number.format(status).as_bytes());
    buffer.push(b' ');
    match fields.bytes {
        0 => buffer.extend_from_slice(NONE),
        bytes => buffer.extend_from_slice(number.format(bytes).as_bytes()),
    }
}

/// A field that ends with a space. One that is `-` itself would read as none.
fn bare(buffer: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => buffer.extend_from_slice(NONE),
        Some("-") => buffer.extend_from_slice(b"\\x2d"),
        Some(value) => value.bytes().for_each(|byte| escaped(buffer, byte)),
    }
}

fn escaped(buffer: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => buffer.extend_from_slice(&[b'\\', byte]),
        b'\n' => buffer.extend_from_slice(b"\\n"),
        b'\r' => buffer.extend_from_slice(b"\\r"),
        b'\t' => buffer.extend_from_slice(b"\\t"),
        _ if byte.is_ascii_graphic() => buffer.push(byte),
        _ => {
            let digit = |value: u8| HEX[usize::from(value & 0xf)];
            buffer.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
        }
    }
}

/// `2025-04-23T10:02:42` as `23/Apr/2025:10:02:42 +0000`.
fn time(buffer: &mut Vec<u8>, calendar: &str) {
    let mut parts = calendar.splitn(3, ['-', 'T']);
    let (year, month, rest) = (parts.next(), parts.next(), parts.next());
    let (day, clock) = rest
        .and_then(|rest| rest.split_once('T'))
        .unwrap_or(("01", "00:00:00"));
    let month = month.and_then(|month| month.parse::<usize>().ok());
    let month = month.and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    for part in [
        day,
        "/",
        month.unwrap_or(&MONTHS[0]),
        "/",
        year.unwrap_or("1970"),
        ":",
        clock,
        " +0000",
    ] {
        buffer.extend_from_slice(part.as_bytes());
    }
}

const NONE: &[u8] = b"-";
/// The status of nginx for a client that was gone before the response.
const CLIENT_GONE: u16 = 499;
const HEX: &[u8; 16] = b"0123456789abcdef";
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALENDAR: &str = "2025-04-23T10:02:42";

    fn line(fields: &Fields<'_>) -> String {
        let mut buffer = Vec::new();
        push(&mut buffer, fields);
        String::from_utf8(buffer).unwrap()
    }

    fn usual<'a>() -> Fields<'a> {
        Fields {
            host: Some([192, 0, 2, 7].into()),
            user: Some("till-01"),
            calendar: CALENDAR,
            method: Some("POST"),
            path: Some("/api/SyncData"),
            protocol: "HTTP/1.1",
            status: Some(200),
            bytes: 1234,
        }
    }

    #[test]
    fn the_line_is_what_apache_writes() {
        let expected = r#"192.0.2.7 - till-01 [23/Apr/2025:10:02:42 +0000] "POST /api/SyncData HTTP/1.1" 200 1234"#;
        assert_eq!(line(&usual()), expected);
        let nothing = Fields {
            host: None,
            user: None,
            method: None,
            path: None,
            status: None,
            bytes: 0,
            ..usual()
        };
        let expected = r#"- - - [23/Apr/2025:10:02:42 +0000] "- - HTTP/1.1" 499 -"#;
        assert_eq!(line(&nothing), expected);
        for (host, expected) in [
            ("2001:db8::1", "2001:db8::1"),
            // As a listener for both families sees it.
            ("::ffff:192.0.2.7", "192.0.2.7"),
        ] {
            let host = Some(host.parse().unwrap());
            let line = line(&Fields { host, ..usual() });
            assert_eq!(line.split(' ').next(), Some(expected));
        }
        for (user, expected) in [
            ("a b", r"a\x20b"),
            ("-", r"\x2d"),
            ("\"\\", r#"\"\\"#),
            ("\u{e9}\u{1b}\n", r"\xc3\xa9\x1b\n"),
        ] {
            let user = Some(user);
            let line = line(&Fields { user, ..usual() });
            assert_eq!(line.split(' ').nth(2), Some(expected));
        }
    }

    /// Takes back what `bare` did, as a reader of Apache's logs would.
    fn read(field: &str) -> Option<String> {
        if field == "-" {
            return None;
        }
        let (mut bytes, mut rest) = (Vec::new(), field.bytes());
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'\\' => match rest.next().unwrap() {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'x' => {
                        let digits = [rest.next().unwrap(), rest.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    same => same,
                },
                plain => plain,
            });
        }
        Some(String::from_utf8(bytes).unwrap())
    }

    proptest! {
        #[test]
        fn whatever_a_field_holds_the_line_reads_as_what_was_written(
            user in proptest::option::of("\\PC*|[\x00-\x7f\u{80}-\u{9f}]+"),
            path in proptest::option::of("\\PC*|[ \"\\\\\r\n-]+"),
            bytes: u64,
        ) {
            prop_assume!(user.as_deref() != Some("") && path.as_deref() != Some(""));
            let (user, path) = (user.as_deref(), path.as_deref());
            let line = line(&Fields { user, path, bytes, ..usual() });
            prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            let fields: Vec<_> = line.split(' ').collect();
            let [host, identity, name, day, zone, method, target, protocol, status, size] =
                fields[..] else { panic!("{line}") };
            prop_assert_eq!((host, identity, status), ("192.0.2.7", "-", "200"));
            prop_assert_eq!((day, zone), ("[23/Apr/2025:10:02:42", "+0000]"));
            prop_assert_eq!((method, protocol), ("\"POST", "HTTP/1.1\""));
            prop_assert_eq!(read(name), user.map(str::to_owned));
            prop_assert_eq!(read(target), path.map(str::to_owned));
            prop_assert_eq!(size.parse().unwrap_or(0), bytes);
        }
    }
}
