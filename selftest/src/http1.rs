//! Pure: the checks over HTTP/1.1, a line each.
//!
//! None of them carries what a backend would act on: they lack the token, or announce a body of a
//! petabyte, which is refused right after the token was accepted.

use super::check::Check;
use super::check::Expect::{Answered, EndsLate, InOrder, Refused, RefusedLate};
use super::check::Probe::{Header, Http1, SilentHandshake, UnknownUser};

/// All of them, in the order in which they are tried.
#[rustfmt::skip]
pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    let mut area = |area, rows: &[(&'static str, &'static str, super::check::Expect)]| {
        checks.extend(rows.iter().map(|&(name, send, expect)| Check { area, name, probe: Http1(send, expect) }));
    };
    area("framing", &[
        ("length, then chunked", "{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400, 401])),
        ("chunked, then length", "{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{next}", Refused(&[400, 401])),
        ("two lengths that differ", "{post}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc{next}", Refused(&[400])),
        ("a list of lengths", "{post}Content-Length: 3, 4\r\n\r\nabc{next}", Refused(&[400])),
        ("a length with a sign", "{post}Content-Length: +3\r\n\r\nabc{next}", Refused(&[400])),
        ("a negative length", "{post}Content-Length: -3\r\n\r\nabc{next}", Refused(&[400])),
        ("a hexadecimal length", "{post}Content-Length: 0x3\r\n\r\nabc{next}", Refused(&[400])),
        ("a length with a fraction", "{post}Content-Length: 3.0\r\n\r\nabc{next}", Refused(&[400])),
        ("a length with a blank", "{post}Content-Length: 1 0\r\n\r\nabc{next}", Refused(&[400])),
        ("an empty length", "{post}Content-Length:\r\n\r\n{next}", Refused(&[400])),
        ("a length over 64 bits", "{post}Content-Length: 18446744073709551616\r\n\r\nabc{next}", Refused(&[400, 413, 431])),
        ("a blank before the colon of the length", "{post}Content-Length : 3\r\n\r\nabc{next}", Refused(&[400])),
        ("no length at all", "{post}\r\n", Answered(&[411, 401])),
        ("identity", "{post}Transfer-Encoding: identity\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("gzip before chunked", "{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked before identity", "{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked twice", "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("a coding like chunked", "{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked in quotes", "{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked with a parameter", "{post}Transfer-Encoding: chunked;x=1\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked after a vertical tab", "{post}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("a blank before the colon of the coding", "{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("a folded coding", "{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("a chunk without a size", "{post}Transfer-Encoding: chunked\r\n\r\nx\r\n{next}", Refused(&[400, 401])),
        ("a chunk longer than it says", "{post}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n{next}", Refused(&[400, 401])),
        ("a chunk extension of 70 KB", "{login}Transfer-Encoding: chunked\r\n\r\n1;{x70k}\r\na\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("HTTP/1.0 with chunks", "POST {route} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400, 411])),
        ("a request in the body of a refused one", "{post}Content-Length: {length}\r\n\r\nGET /in-a-body HTTP/1.1\r\nHost: {host}\r\n\r\n{last}", InOrder(&[401, 404])),
    ]);
    area("head", &[
        ("a field without a name", "{get}: x\r\n\r\n", Refused(&[400])),
        ("a field without a colon", "{get}X-A\r\n\r\n", Refused(&[400])),
        ("a blank in a name", "{get}X A: x\r\n\r\n", Refused(&[400])),
        ("a blank before the colon", "{get}X-A : x\r\n\r\n", Refused(&[400])),
        ("a folded line", "{get}X-A: x\r\n y\r\n\r\n", Refused(&[400])),
        ("NUL in a value", "{get}X-A: x\0y\r\n\r\n", Refused(&[400])),
        ("a bare CR in a value", "{get}X-A: x\ry\r\n\r\n", Refused(&[400])),
        ("an escape code in a name", "{get}X\u{1b}[31m: x\r\n\r\n", Refused(&[400])),
        ("fields of 70 KB", "{get}X-A: {x70k}\r\n\r\n", Refused(&[431])),
        ("a name of 70 KB", "{get}{x70k}: x\r\n\r\n", Refused(&[431, 400])),
        ("101 fields", "{get}{101 fields}\r\n", Refused(&[431])),
        ("no host", "GET /{nothing} HTTP/1.1\r\n\r\n", Refused(&[400])),
        ("two hosts", "{get}Host: {host}\r\n\r\n", Refused(&[400])),
        ("a host that is none", "GET /{nothing} HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(&[400])),
        ("another host in the target", "GET http://other.invalid/{nothing} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("another expectation", "{post}Content-Length: 2\r\nExpect: 200-maybe\r\n\r\n", Refused(&[417])),
        ("an upgrade to HTTP/2", "{post}Content-Length: 0\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", Answered(&[401])),
        ("an upgrade to WebSocket", "{post}Content-Length: 0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", Answered(&[401])),
        ("another protocol", "SSH-2.0-selftest\r\n\r\n", Refused(&[400])),
    ]);
    area("target", &[
        ("CONNECT", "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("TRACE", "TRACE {route} HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("an asterisk", "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("a method in small letters", "post {route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[405])),
        ("a method of no route, without a length", "PUT /api/getToken HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("a method of no route", "BREW {route} HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("reading the login", "GET /api/getToken HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("a byte outside ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("9 KB", "GET /{x9k} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[414])),
        ("a second slash", "POST /{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a dot", "POST /.{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("two dots", "POST /x/..{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("two dots, encoded", "POST /x/%2e%2e{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("an encoded slash", "POST /%2f{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("an encoded NUL", "POST {route}%00 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a parameter", "POST {route};x=1 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a backslash", "POST \\x\\..{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a slash at the end", "POST {route}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a route in the query", "POST /{nothing}?{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404])),
        ("health by user agent", "{post}Content-Length: 0\r\nUser-Agent: GoogleHC/1.0\r\n\r\n", Answered(&[401])),
    ]);
    area("token", &[
        ("Bearer and the token", "{post}{petabyte}Authorization: Bearer {token}\r\n\r\n", Refused(&[413, 403])),
        ("none", "{post}Content-Length: 2\r\n\r\n{}", Answered(&[401])),
        ("an unknown one", "{post}Content-Length: 2\r\nAuthorization: Bearer {unknown}\r\n\r\n{}", Answered(&[401])),
        ("none after Bearer", "{post}Content-Length: 2\r\nAuthorization: Bearer\r\n\r\n{}", Answered(&[401])),
        ("as Basic", "{post}{petabyte}Authorization: Basic {token}\r\n\r\n", Answered(&[401])),
        ("cut short", "{post}{petabyte}Authorization: Bearer {cut}\r\n\r\n", Answered(&[401])),
        ("with more behind it", "{post}{petabyte}Authorization: Bearer {token}x\r\n\r\n", Answered(&[401])),
        ("twice in one field", "{post}{petabyte}Authorization: Bearer {token}, Bearer {token}\r\n\r\n", Answered(&[401])),
        ("a good and a bad field", "{post}{petabyte}Authorization: Bearer {token}\r\nAuthorization: Bearer x\r\n\r\n", Answered(&[401])),
        ("a bad and a good field", "{post}{petabyte}Authorization: Bearer x\r\nAuthorization: Bearer {token}\r\n\r\n", Answered(&[401])),
        ("in a field of another name", "{post}{petabyte}Proxy-Authorization: Bearer {token}\r\nX-Authorization: {token}\r\n\r\n", Answered(&[401])),
        ("in a cookie", "{post}{petabyte}Cookie: Authorization={token}\r\n\r\n", Answered(&[401])),
        ("an identity without a token", "{post}Content-Length: 2\r\nX-Auth-User: {user}\r\nX_Auth_User: {user}\r\n\r\n{}", Answered(&[401])),
        ("an inner address as the peer", "{post}Content-Length: 2\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\r\n{}", Answered(&[401])),
    ]);
    area("login", &[
        ("another media type", "{login as}text/plain\r\nContent-Length: 2\r\n\r\n{}", Answered(&[415])),
        ("a form", "{login as}application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\nusername={user}&password=x", Answered(&[415])),
        ("two media types", "{login}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", Answered(&[415])),
        ("compressed", "{login}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", Answered(&[415])),
        ("an array", "{login}Content-Length: 2\r\n\r\n[]", Answered(&[400])),
        ("half of it", "{login}Content-Length: 1\r\n\r\n{", Answered(&[400])),
        ("no password", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\"}", Answered(&[400])),
        ("a number as password", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"password\":1}", Answered(&[400])),
        ("a key twice", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"username\":\"y\",\"password\":\"z\"}", Answered(&[400])),
        ("a key twice, in other letters", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"UserName\":\"y\",\"password\":\"z\"}", Answered(&[400])),
        ("a key twice, escaped", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"usern\\u0061me\":\"y\",\"password\":\"z\"}", Answered(&[400])),
        ("more behind it", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"password\":\"z\"}{}", Answered(&[400])),
        ("invalid UTF-8", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"\u{ff}\",\"password\":\"z\"}", Answered(&[400])),
        ("deeply nested", "{login}Content-Length: {length}\r\n\r\n{\"x\":{deep},\"username\":\"x\",\"password\":\"z\"}", Answered(&[400])),
        ("9 KB", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"{x9k}\",\"password\":\"z\"}", Refused(&[413])),
    ]);
    checks.push(Check { area: "login", name: "an unknown user, and a wrong password", probe: UnknownUser });
    let mut fields = |name, field, value| {
        checks.push(Check { area: "answer", name, probe: Header(field, value) });
    };
    fields("browsers stay with HTTPS", "strict-transport-security", "max-age=");
    fields("nothing is cached", "cache-control", "no-store");
    fields("who answers is said", "proxy-status", "syncgate; error=");
    let late = "GET /{nothing} HTTP/1.1\r\nHost: ";
    checks.push(Check { area: "slow", name: "a head that is never finished", probe: Http1(late, RefusedLate(&[408])) });
    checks.push(Check { area: "slow", name: "a handshake that never begins", probe: SilentHandshake });
    checks.push(Check { area: "slow", name: "a first request that never begins", probe: Http1("", EndsLate) });
    checks
}
