//! Pure: what is told of live tokens, page by page.

use std::fmt;

use crate::clock::UnixSeconds;
use crate::session::Session;
use crate::token::TokenId;

/// What is known of a token: enough to find a leaked one and to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its public name.
    pub id: TokenId,
    /// Whose it is, since when and until when.
    pub session: Session,
    /// When it was used last, since the process was started.
    pub last_used: Option<UnixSeconds>,
    /// How often it was used since the process was started.
    pub requests: u32,
}

/// A page of the live tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// At most as many as were asked for.
    pub tokens: Vec<TokenInfo>,
    /// What the next page comes after; none on the last.
    pub next: Option<Position>,
}

/// A place in the list of all tokens, as the text that [`TokenStore::position`] reads back.
///
/// [`TokenStore::position`]: super::TokenStore::position
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// In the order of ids.
    Id(TokenId),
    /// In the order of names, and of a user's in the order of their issue.
    Issue {
        /// Whose.
        user: String,
        /// Which of these: rises from one to the next.
        number: u64,
    },
}

impl Position {
    pub(super) fn of_id(text: &str) -> Option<Self> {
        text.parse().ok().map(Self::Id)
    }

    pub(super) fn of_issue(text: &str) -> Option<Self> {
        let (number, user) = text.split_once('~')?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| digits)?;
        crate::accounts::check_name(user).ok()?;
        let user = user.to_owned();
        Some(Self::Issue { user, number })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Issue { user, number } => write!(f, "{number}~{user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_from_its_text() {
        let text = "0123456789abcdef0123";
        assert_eq!(Position::of_id(text).unwrap().to_string(), text);
        assert_eq!(Position::of_id("7~till-01"), None);
    }

    #[test]
    fn so_is_one_among_the_tokens_of_users() {
        let text = "1745402562000~till-01";
        assert_eq!(Position::of_issue(text).unwrap().to_string(), text);
        for text in [
            "",
            "7",
            "~",
            "7~",
            "~till-01",
            "+7~till-01",
            "7~a\nb",
            "x~till-01",
        ] {
            assert_eq!(Position::of_issue(text), None, "{text:?}");
        }
    }
}
