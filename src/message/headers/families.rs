//! Pure: the header names by which proxies tell other stacks a client's identity or address, or the original
//! request. Servers and frameworks behind this gateway trust them by default, so a client could use them to
//! claim what it has no right to.

/// Whether some stack trusts a header with this name, in lower case, as set by a proxy.
pub(super) fn is_proxy_header(name: &str) -> bool {
    let is = |known: &&str| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *known,
    };
    candidates(name.as_bytes()).iter().any(is)
}

/// The names with the same first letter, or first letter after `x-`, since every header of every request is
/// looked up here. A trailing `*` matches any suffix.
fn candidates(name: &[u8]) -> &'static [&'static str] {
    if let [b'x', b'-', first, ..] = name {
        return extensions(*first);
    }
    match name.first() {
        Some(b'a') => &["akamai-*", "ali-cdn-real-ip"],
        Some(b'c') => &[
            "cas-*",
            "cdn-client-ip",
            "cdn-real-ip",
            "cdn-src-ip",
            "cf-*",
            "client-cert*",
            "client-ip",
            "cloudfront-*",
            "cluster-client-ip",
        ],
        Some(b'd') => &["do-connecting-ip"],
        Some(b'e') => &["eppn"],
        Some(b'f') => &["fastly-*", "fly-*", "forwarded-*", "front-end-https"],
        Some(b'i') => &["incap-*", "iv-*"],
        Some(b'm') => &["mellon-*", "ms-aspnetcore-*"],
        Some(b'o') => &["oam-*", "oidc-*", "osso-*"],
        Some(b'p') => &["persistent-id", "proxy"],
        Some(b'r') => &["real-ip", "remote-*"],
        Some(b's') => &["shib-*", "sm-*", "ssl-*"],
        Some(b't') => &["tailscale-*", "tls-client-*", "true-client-ip"],
        Some(b'w') => &["wl-proxy-*"],
        Some(_) | None => &[],
    }
}

/// The names that begin with `x-` and this letter.
fn extensions(first: u8) -> &'static [&'static str] {
    match first {
        b'a' => &[
            "x-accel-*",
            "x-akamai-*",
            "x-amzn-mtls-*",
            "x-amzn-oidc-*",
            "x-anonymous-consumer",
            "x-apigateway-*",
            "x-appengine-*",
            "x-arr-*",
            "x-auth-audience",
            "x-auth-email*",
            "x-auth-group*",
            "x-auth-name*",
            "x-auth-request-*",
            "x-auth-role*",
            "x-auth-subject",
            "x-auth-user*",
            "x-authenticated-*",
            "x-authentik-*",
            "x-azure-*",
        ],
        b'c' => &[
            "x-cdn-real-ip",
            "x-cdn-src-ip",
            "x-cf-forwarded-url",
            "x-cf-proxy-*",
            "x-client-address",
            "x-client-cert*",
            "x-client-dn",
            "x-client-host",
            "x-client-ip",
            "x-client-ssl*",
            "x-client-verify",
            "x-clientip",
            "x-cluster-client-ip",
            "x-consumer-*",
            "x-credential-*",
            "x-custom-ip-authorization",
        ],
        b'e' => &["x-email", "x-endpoint-api-*", "x-envoy-*"],
        // Some stacks look for misspellings, too.
        b'f' => &["x-fastly-*", "x-forward*"],
        b'g' => &["x-goog-authenticated-*", "x-goog-iap-*", "x-groups"],
        b'h' => &[
            "x-hasura-*",
            "x-host",
            "x-http-destinationurl",
            "x-http-host-override",
            "x-http-method*",
            "x-https",
        ],
        b'i' => &["x-iisnode-*"],
        b'j' => &["x-jwt-assertion"],
        b'm' => &[
            "x-method-override",
            "x-middleware-*",
            "x-ms-client-principal*",
            "x-ms-proxy",
            "x-ms-token-*",
        ],
        b'n' => &["x-nf-*"],
        b'o' => &[
            "x-oidc-*",
            "x-original-*",
            "x-originating-*",
            "x-override-url",
        ],
        b'p' => &[
            "x-pomerium-*",
            "x-preferred-username",
            "x-principal",
            "x-proxy-*",
            "x-proxyuser-ip",
        ],
        b'r' => &["x-real-*", "x-remote-*", "x-rewrite-*", "x-roles"],
        b's' => &[
            "x-saml-*",
            "x-scheme",
            "x-script-name",
            "x-sendfile-type",
            "x-shib-*",
            "x-source-ip",
            "x-ssl-*",
            "x-sucuri-*",
        ],
        b't' => &["x-tls-*", "x-true-client-ip"],
        b'u' => &[
            "x-url-scheme",
            "x-user",
            "x-user-email",
            "x-user-groups",
            "x-user-id",
            "x-user-name",
            "x-user-roles",
            "x-userinfo",
            "x-username",
        ],
        b'v' => &["x-vercel-*", "x-vouch-*"],
        b'w' => &["x-wap-network-client-ip", "x-waws-*", "x-webauth-*"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_under_its_letter() {
        for first in b'a'..=b'z' {
            let names = [
                (candidates(&[first, b'-']), String::new()),
                (extensions(first), "x-".to_owned()),
            ];
            for (names, before) in names {
                for name in names {
                    assert!(
                        name.starts_with(&format!("{before}{}", first as char)),
                        "{name}"
                    );
                    assert!(is_proxy_header(&name.replace('*', "")), "{name}");
                    assert!(is_proxy_header(&name.replace('*', "more")), "{name}");
                    assert_eq!(*name, name.to_ascii_lowercase());
                }
            }
        }
        for name in [
            "",
            "x",
            "x-",
            "-",
            "accept",
            "proxies",
            "x-request-id",
            "x-api-key",
            "x-auth-token",
        ] {
            assert!(!is_proxy_header(name), "{name}");
        }
    }
}
