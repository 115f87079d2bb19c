//! Pure: which requests of the page become which requests to the admin socket.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::token::TokenId;

/// What the page asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// The admin socket is asked.
    Gateway {
        /// Its method.
        method: Method,
        /// Path and query.
        target: String,
        /// What is sent with it.
        body: Option<Value>,
    },
    /// The rights of a user are to be enforced: a change of the account file.
    Enforce {
        /// Whose.
        user: String,
    },
    /// The dashboard is to end.
    End,
}

/// Why it is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAsked {
    /// The page has no such thing.
    Unknown,
    /// It takes other methods.
    Method,
    /// The body is not as it should be.
    Body,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfUser {
    user: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfServer {
    upstream: String,
    server: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfReload {
    dry_run: bool,
}

/// Reads a request below `api/`. Bodies are read and written anew, so that nothing else passes.
///
/// # Errors
/// Why it is no request of the page.
pub(super) fn read(
    method: &Method,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> Result<Asked, NotAsked> {
    let get = |path: &str| {
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        Asked::Gateway {
            method: Method::GET,
            target: format!("{path}{query}"),
            body: None,
        }
    };
    let post = |target: &str, body: Value| Asked::Gateway {
        method: Method::POST,
        target: target.to_owned(),
        body: Some(body),
    };
    let server = || -> Result<Value, NotAsked> {
        let OfServer { upstream, server } = parsed(body)?;
        Ok(json!({ "upstream": upstream, "server": server }))
    };
    match (path, method) {
        ("overview" | "history" | "users" | "user" | "refusals" | "tokens", &Method::GET) => {
            Ok(get(&format!("/{path}")))
        }
        ("tokens/revoke", &Method::POST) => {
            let OfUser { user } = parsed(body)?;
            Ok(post("/tokens/revoke", json!({ "user": user })))
        }
        ("upstreams/drain", &Method::POST) => Ok(post("/upstreams/drain", server()?)),
        ("upstreams/enable", &Method::POST) => Ok(post("/upstreams/enable", server()?)),
        ("reload", &Method::POST) => {
            let OfReload { dry_run } = parsed(body)?;
            Ok(post("/reload", json!({ "dry_run": dry_run })))
        }
        ("users/enforce", &Method::POST) => {
            let OfUser { user } = parsed(body)?;
            Ok(Asked::Enforce { user })
        }
        ("end", &Method::POST) => Ok(Asked::End),
        (
            "overview" | "history" | "users" | "user" | "refusals" | "tokens" | "tokens/revoke"
            | "upstreams/drain" | "upstreams/enable" | "reload" | "users/enforce" | "end",
            _,
        ) => Err(NotAsked::Method),
        _ => one_token(method, path),
    }
}

/// `tokens/{id}`.
fn one_token(method: &Method, path: &str) -> Result<Asked, NotAsked> {
    let id = path.strip_prefix("tokens/").and_then(|id| id.parse().ok());
    let id: TokenId = id.ok_or(NotAsked::Unknown)?;
    match *method {
        Method::GET | Method::DELETE => Ok(Asked::Gateway {
            method: method.clone(),
            target: format!("/tokens/{id}"),
            body: None,
        }),
        _ => Err(NotAsked::Method),
    }
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, NotAsked> {
    serde_json::from_slice(body).map_err(|_| NotAsked::Body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_page_needs_is_asked_of_the_gateway() {
        let id = "0123456789abcdef0123";
        let asked = |method: Method, target: &str, body| {
            Ok(Asked::Gateway {
                method,
                target: target.to_owned(),
                body,
            })
        };
        let token = format!("tokens/{id}");
        let of_user = r#"{"user":"a"}"#;
        for (method, path, query, body, expected) in [
            (
                Method::GET,
                "overview",
                None,
                "",
                asked(Method::GET, "/overview", None),
            ),
            (
                Method::GET,
                "users",
                Some("search=a%20b"),
                "",
                asked(Method::GET, "/users?search=a%20b", None),
            ),
            (
                Method::DELETE,
                &token,
                None,
                "",
                asked(Method::DELETE, &format!("/tokens/{id}"), None),
            ),
            (
                Method::POST,
                "tokens/revoke",
                None,
                of_user,
                asked(Method::POST, "/tokens/revoke", Some(json!({ "user": "a" }))),
            ),
            (
                Method::POST,
                "tokens/revoke",
                None,
                r#"{"all":true}"#,
                Err(NotAsked::Body),
            ),
            (
                Method::POST,
                "tokens/revoke",
                None,
                r#"{"user":"a","all":true}"#,
                Err(NotAsked::Body),
            ),
            (
                Method::POST,
                "users/enforce",
                None,
                of_user,
                Ok(Asked::Enforce {
                    user: "a".to_owned(),
                }),
            ),
            (Method::GET, "reload", None, "", Err(NotAsked::Method)),
            (Method::POST, "overview", None, "{}", Err(NotAsked::Method)),
            (Method::POST, &token, None, "{}", Err(NotAsked::Method)),
            (Method::GET, "metrics", None, "", Err(NotAsked::Unknown)),
            (
                Method::POST,
                "introspect",
                None,
                "token=x",
                Err(NotAsked::Unknown),
            ),
            (
                Method::GET,
                "tokens/../metrics",
                None,
                "",
                Err(NotAsked::Unknown),
            ),
            (Method::GET, "tokens/x", None, "", Err(NotAsked::Unknown)),
            (Method::GET, "", None, "", Err(NotAsked::Unknown)),
        ] {
            let found = read(&method, path, query, body.as_bytes());
            assert_eq!(found, expected, "{method} {path} {body}");
        }
    }
}
