//! Pure: the HTTP/1.1 checks, one per line.
//!
//! None of them can have an effect on the backend: they lack the token, or announce a body of a petabyte, which
//! is refused right after the token is accepted.

use super::check::Check;
use super::check::Expect::{Answered, EndsLate, InOrder, Refused, RefusedLate};
use super::check::Probe::{Header, Http1, SilentHandshake, UnknownUser};

/// All checks, in the order in which they run.
#[rustfmt::skip]
pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    let mut area = |area, rows: &[(&'static str, &'static str, super::check::Expect)]| {
        checks.extend(rows.iter().map(|&(name, send, expect)| Check { area, name, probe: Http1(send, expect) }));
    };
    area("framing", &[
        ("Content-Length, then Transfer-Encoding (CL.TE)", "{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400, 401])),
        ("Transfer-Encoding, then Content-Length (TE.CL)", "{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{next}", Refused(&[400, 401])),
        ("conflicting Content-Length fields", "{post}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc{next}", Refused(&[400])),
        ("a list of Content-Length values", "{post}Content-Length: 3, 4\r\n\r\nabc{next}", Refused(&[400])),
        ("Content-Length with a plus sign", "{post}Content-Length: +3\r\n\r\nabc{next}", Refused(&[400])),
        ("negative Content-Length", "{post}Content-Length: -3\r\n\r\nabc{next}", Refused(&[400])),
        ("hexadecimal Content-Length", "{post}Content-Length: 0x3\r\n\r\nabc{next}", Refused(&[400])),
        ("fractional Content-Length", "{post}Content-Length: 3.0\r\n\r\nabc{next}", Refused(&[400])),
        ("Content-Length with a space", "{post}Content-Length: 1 0\r\n\r\nabc{next}", Refused(&[400])),
        ("empty Content-Length", "{post}Content-Length:\r\n\r\n{next}", Refused(&[400])),
        ("Content-Length over 64 bits", "{post}Content-Length: 18446744073709551616\r\n\r\nabc{next}", Refused(&[400, 413, 431])),
        ("a space before the colon of Content-Length", "{post}Content-Length : 3\r\n\r\nabc{next}", Refused(&[400])),
        ("no Content-Length", "{post}\r\n", Answered(&[411, 401])),
        ("Transfer-Encoding: identity", "{post}Transfer-Encoding: identity\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("gzip before chunked", "{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked before identity", "{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked twice", "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("an unknown coding, xchunked", "{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked in quotes", "{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked with a parameter", "{post}Transfer-Encoding: chunked;x=1\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("chunked after a vertical tab", "{post}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("a space before the colon of Transfer-Encoding", "{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("Transfer-Encoding on a folded line", "{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("an invalid chunk size", "{post}Transfer-Encoding: chunked\r\n\r\nx\r\n{next}", Refused(&[400, 401])),
        ("a chunk longer than its size", "{post}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n{next}", Refused(&[400, 401])),
        ("a chunk extension of 70 KB", "{login}Transfer-Encoding: chunked\r\n\r\n1;{x70k}\r\na\r\n0\r\n\r\n{next}", Refused(&[400])),
        ("HTTP/1.0 with chunks", "POST {route} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}", Refused(&[400, 411])),
        ("a request smuggled in the body of a refused one", "{post}Content-Length: {length}\r\n\r\nGET /in-a-body HTTP/1.1\r\nHost: {host}\r\n\r\n{last}", InOrder(&[401, 404])),
    ]);
    area("head", &[
        ("an empty field name", "{get}: x\r\n\r\n", Refused(&[400])),
        ("a field without a colon", "{get}X-A\r\n\r\n", Refused(&[400])),
        ("a space in a field name", "{get}X A: x\r\n\r\n", Refused(&[400])),
        ("a space before the colon", "{get}X-A : x\r\n\r\n", Refused(&[400])),
        ("a folded line (obs-fold)", "{get}X-A: x\r\n y\r\n\r\n", Refused(&[400])),
        ("NUL in a field value", "{get}X-A: x\0y\r\n\r\n", Refused(&[400])),
        ("a bare CR in a field value", "{get}X-A: x\ry\r\n\r\n", Refused(&[400])),
        ("an escape sequence in a field name", "{get}X\u{1b}[31m: x\r\n\r\n", Refused(&[400])),
        ("a field value of 70 KB", "{get}X-A: {x70k}\r\n\r\n", Refused(&[431])),
        ("a field name of 70 KB", "{get}{x70k}: x\r\n\r\n", Refused(&[431, 400])),
        ("101 header fields", "{get}{101 fields}\r\n", Refused(&[431])),
        ("no Host", "GET /{nothing} HTTP/1.1\r\n\r\n", Refused(&[400])),
        ("two Host fields", "{get}Host: {host}\r\n\r\n", Refused(&[400])),
        ("an invalid Host", "GET /{nothing} HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(&[400])),
        ("Host differs from the target", "GET http://other.invalid/{nothing} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("an unknown Expect", "{post}Content-Length: 2\r\nExpect: 200-maybe\r\n\r\n", Refused(&[417])),
        ("an upgrade to HTTP/2", "{post}Content-Length: 0\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", Answered(&[401])),
        ("an upgrade to WebSocket", "{post}Content-Length: 0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", Answered(&[401])),
        ("another protocol", "SSH-2.0-selftest\r\n\r\n", Refused(&[400])),
    ]);
    area("target", &[
        ("CONNECT", "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("TRACE", "TRACE {route} HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("a lowercase method", "post {route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[405])),
        ("an unrouted method without Content-Length", "PUT /api/getToken HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("an unrouted method", "BREW {route} HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("GET on the login path", "GET /api/getToken HTTP/1.1\r\nHost: {host}\r\n\r\n", Answered(&[405])),
        ("a byte outside ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[400])),
        ("a target of 9 KB", "GET /{x9k} HTTP/1.1\r\nHost: {host}\r\n\r\n", Refused(&[414])),
        ("a double slash", "POST /{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a dot segment", "POST /.{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a double-dot segment", "POST /x/..{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("an encoded double-dot segment", "POST /x/%2e%2e{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("an encoded slash", "POST /%2f{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("an encoded NUL", "POST {route}%00 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a path parameter", "POST {route};x=1 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a backslash", "POST \\x\\..{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a trailing slash", "POST {route}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404, 400])),
        ("a route in the query", "POST /{nothing}?{route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", Answered(&[404])),
        ("a health-check User-Agent", "{post}Content-Length: 0\r\nUser-Agent: GoogleHC/1.0\r\n\r\n", Answered(&[401])),
    ]);
    area("token", &[
        ("a valid token", "{post}{petabyte}Authorization: Bearer {token}\r\n\r\n", Refused(&[413, 403])),
        ("no token", "{post}Content-Length: 2\r\n\r\n{}", Answered(&[401])),
        ("an unknown token", "{post}Content-Length: 2\r\nAuthorization: Bearer {unknown}\r\n\r\n{}", Answered(&[401])),
        ("Bearer without a token", "{post}Content-Length: 2\r\nAuthorization: Bearer\r\n\r\n{}", Answered(&[401])),
        ("the Basic scheme", "{post}{petabyte}Authorization: Basic {token}\r\n\r\n", Answered(&[401])),
        ("a truncated token", "{post}{petabyte}Authorization: Bearer {cut}\r\n\r\n", Answered(&[401])),
        ("a token with trailing bytes", "{post}{petabyte}Authorization: Bearer {token}x\r\n\r\n", Answered(&[401])),
        ("two tokens in one field", "{post}{petabyte}Authorization: Bearer {token}, Bearer {token}\r\n\r\n", Answered(&[401])),
        ("a valid field, then an invalid one", "{post}{petabyte}Authorization: Bearer {token}\r\nAuthorization: Bearer x\r\n\r\n", Answered(&[401])),
        ("an invalid field, then a valid one", "{post}{petabyte}Authorization: Bearer x\r\nAuthorization: Bearer {token}\r\n\r\n", Answered(&[401])),
        ("the token in another field", "{post}{petabyte}Proxy-Authorization: Bearer {token}\r\nX-Authorization: {token}\r\n\r\n", Answered(&[401])),
        ("the token in a cookie", "{post}{petabyte}Cookie: Authorization={token}\r\n\r\n", Answered(&[401])),
        ("X-Auth-User without a token", "{post}Content-Length: 2\r\nX-Auth-User: {user}\r\nX_Auth_User: {user}\r\n\r\n{}", Answered(&[401])),
        ("a spoofed X-Forwarded-For", "{post}Content-Length: 2\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\r\n{}", Answered(&[401])),
    ]);
    area("login", &[
        ("another media type", "{login as}text/plain\r\nContent-Length: 2\r\n\r\n{}", Answered(&[415])),
        ("a form-encoded body", "{login as}application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\nusername={user}&password=x", Answered(&[415])),
        ("two Content-Type fields", "{login}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", Answered(&[415])),
        ("Content-Encoding: gzip", "{login}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", Answered(&[415])),
        ("a JSON array", "{login}Content-Length: 2\r\n\r\n[]", Answered(&[400])),
        ("truncated JSON", "{login}Content-Length: 1\r\n\r\n{", Answered(&[400])),
        ("no password", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\"}", Answered(&[400])),
        ("a number as password", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"password\":1}", Answered(&[400])),
        ("a duplicate key", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"username\":\"y\",\"password\":\"z\"}", Answered(&[400])),
        ("a duplicate key in another case", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"UserName\":\"y\",\"password\":\"z\"}", Answered(&[400])),
        ("a duplicate key, escaped", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"usern\\u0061me\":\"y\",\"password\":\"z\"}", Answered(&[400])),
        ("data after the JSON value", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"x\",\"password\":\"z\"}{}", Answered(&[400])),
        ("invalid UTF-8", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"\u{ff}\",\"password\":\"z\"}", Answered(&[400])),
        ("deeply nested", "{login}Content-Length: {length}\r\n\r\n{\"x\":{deep},\"username\":\"x\",\"password\":\"z\"}", Answered(&[400])),
        ("a body of 9 KB", "{login}Content-Length: {length}\r\n\r\n{\"username\":\"{x9k}\",\"password\":\"z\"}", Refused(&[413])),
    ]);
    checks.push(Check { area: "login", name: "unknown user and wrong password get the same answer", probe: UnknownUser });
    let mut fields = |name, field, value| {
        checks.push(Check { area: "answer", name, probe: Header(field, value) });
    };
    fields("HSTS", "strict-transport-security", "max-age=");
    fields("Cache-Control: no-store", "cache-control", "no-store");
    fields("Proxy-Status: syncgate", "proxy-status", "syncgate; error=");
    let late = "GET /{nothing} HTTP/1.1\r\nHost: ";
    checks.push(Check { area: "slow", name: "an unfinished request head", probe: Http1(late, RefusedLate(&[408])) });
    checks.push(Check { area: "slow", name: "no ClientHello", probe: SilentHandshake });
    checks.push(Check { area: "slow", name: "no first request", probe: Http1("", EndsLate) });
    checks
}
