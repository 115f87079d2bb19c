//! Pure: the one session of a dashboard: the key of its link, its cookie and the token that actions carry.

use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, PoisonError};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// The one session. Of secrets that clients present only MACs are kept.
#[derive(Debug)]
pub(super) struct Session {
    /// The directory that all of the page is in. A browser sends cookies of one port of a host to the others: to
    /// those it would have to be sent to this path.
    path: String,
    /// Until it was used.
    key: Mutex<Option<Secret>>,
    cookie: Secret,
    /// What the cookie is set to, until the key was used.
    issued: Mutex<Option<Zeroizing<String>>>,
    action: Secret,
    action_token: Zeroizing<String>,
}

/// What a secret is compared by.
struct Secret {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    fn new(text: &str, random: &SystemRandom) -> io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, random).map_err(|_| no_random())?;
        let tag = hmac::sign(&key, text.as_bytes());
        Ok(Self { key, tag })
    }

    /// Takes the same time whatever is presented.
    fn is(&self, presented: &str) -> bool {
        hmac::verify(&self.key, presented.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

impl Session {
    /// A session, and the key that opens it once.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn new(random: &SystemRandom) -> io::Result<(Self, Zeroizing<String>)> {
        let [path, key, cookie, action] = [(); 4].map(|()| text(random));
        let (key, cookie, action) = (key?, cookie?, action?);
        let session = Self {
            path: format!("/{}/", &path?[..32]),
            key: Mutex::new(Some(Secret::new(&key, random)?)),
            cookie: Secret::new(&cookie, random)?,
            issued: Mutex::new(Some(cookie)),
            action: Secret::new(&action, random)?,
            action_token: action,
        };
        Ok((session, key))
    }

    /// The directory of the page.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The value of `Set-Cookie` for who presents the key, the first time.
    pub(super) fn open(&self, presented: &str) -> Option<Zeroizing<String>> {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if !key.as_ref()?.is(presented) {
            return None;
        }
        *key = None;
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let (cookie, path) = (issued.take()?, &self.path);
        let field = format!(
            "{NAME}={}; Path={path}; HttpOnly; SameSite=Strict",
            &*cookie
        );
        Some(Zeroizing::new(field))
    }

    /// Whether a `Cookie` field has the session's, and it alone of that name.
    pub(super) fn is_in(&self, cookies: &str) -> bool {
        let pairs = cookies
            .split(';')
            .filter_map(|pair| pair.trim().split_once('='));
        let mut ours = pairs.filter(|(name, _)| *name == NAME);
        match (ours.next(), ours.next()) {
            (Some((_, value)), None) => self.cookie.is(value),
            (Some(_), Some(_)) | (None, _) => false,
        }
    }

    /// What every action carries, for the page.
    pub(super) fn action_token(&self) -> &str {
        &self.action_token
    }

    /// Whether that is it.
    pub(super) fn may_act(&self, presented: &str) -> bool {
        self.action.is(presented)
    }
}

/// 256 random bits in hexadecimal.
fn text(random: &SystemRandom) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    random.fill(&mut *bytes).map_err(|_| no_random())?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in *bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn no_random() -> io::Error {
    io::Error::other("the system's random number generator failed")
}

/// The name of the cookie.
const NAME: &str = "syncgate_dashboard";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_the_session_once() {
        let (session, key) = Session::new(&SystemRandom::new()).unwrap();
        assert_eq!(session.open(&key[1..]), None);
        assert_eq!(session.open(""), None);
        let cookie = session.open(&key).unwrap();
        assert_eq!(session.open(&key), None);
        let (pair, rest) = cookie.split_once("; ").unwrap();
        let expected = format!("Path={}; HttpOnly; SameSite=Strict", session.path());
        assert_eq!(rest, expected);
        let with = |before: &str, after: &str| format!("{before}{pair}{after}");
        for (cookies, expected) in [
            (with("", ""), true),
            (with("a=b; ", "; c=d"), true),
            (with("", "0"), false),
            (with("", &format!("; {pair}")), false),
            (with("x", ""), false),
            (String::new(), false),
            (format!("{NAME}={}", &*key), false),
            (format!("{NAME}={}", session.action_token()), false),
        ] {
            assert_eq!(session.is_in(&cookies), expected);
        }
        assert!(session.may_act(session.action_token()));
        assert!(!session.may_act("") && !session.may_act(&key));
    }
}
