//! Where a new password comes from: a prompt, standard input or the system's random numbers.
//! Never an argument, which every process of the machine can read.

use std::io::{self, Read};

use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::password::Password;

/// How a command is given the password. By default it asks at the terminal, twice.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub(super) struct PasswordSource {
    /// Make a strong password and print it once, on standard output
    #[arg(long)]
    generate: bool,
    /// Read the password from standard input: one line
    #[arg(long)]
    password_stdin: bool,
}

/// A new password, and its text when nobody knows it yet.
pub(super) struct NewPassword {
    pub(super) password: Password,
    pub(super) generated: Option<Zeroizing<String>>,
}

/// Why there is no password.
#[derive(Debug, Error)]
pub(super) enum PasswordError {
    /// Nobody to ask.
    #[error(
        "cannot ask for the password, there is no terminal; \
         use --password-stdin or --generate ({0})"
    )]
    NoTerminal(io::Error),
    /// Standard input failed.
    #[error("cannot read the password from standard input: {0}")]
    Unreadable(io::Error),
    /// The system's random numbers failed.
    #[error("the system gave no random numbers")]
    NoRandomness,
    /// Typed twice, differently.
    #[error("the two passwords differ; nothing was changed")]
    Different,
    /// Too short to be safe.
    #[error("a password needs {MIN_LENGTH} characters at least; --generate makes a strong one")]
    TooShort,
    /// Longer than anybody types.
    #[error("a password can be {MAX_BYTES} bytes long at most")]
    TooLong,
    /// Probably not what was meant.
    #[error("a password cannot hold line breaks or control characters; send one line")]
    ControlCharacter,
    /// Not text.
    #[error("a password must be UTF-8, as JSON is")]
    NotUtf8,
}

impl PasswordSource {
    /// Instead of asking at the terminal, makes one up.
    pub(super) fn without_asking(self) -> Self {
        let generate = self.generate || !self.password_stdin;
        Self { generate, ..self }
    }

    /// Whether standard input holds the password, and so no answers.
    pub(super) fn takes_stdin(self) -> bool {
        self.password_stdin
    }

    /// Gets the password that the user called `name` shall have.
    pub(super) fn obtain(self, name: Option<&str>) -> Result<NewPassword, PasswordError> {
        if self.generate {
            let text = generate(&SystemRandom::new())?;
            let password = Password::new(String::clone(&text));
            return Ok(NewPassword {
                password,
                generated: Some(text),
            });
        }
        let text = match self.password_stdin {
            true => from_stream(io::stdin().lock())?,
            false => from_terminal(name)?,
        };
        check(&text)?;
        let password = Password::new(String::clone(&text));
        Ok(NewPassword {
            password,
            generated: None,
        })
    }
}

fn from_terminal(name: Option<&str>) -> Result<Zeroizing<String>, PasswordError> {
    let whose = name.map(|name| format!(" for {name}")).unwrap_or_default();
    let ask = |what: &str| {
        let answer = rpassword::prompt_password(format!("{what}{whose}: "));
        answer
            .map(Zeroizing::new)
            .map_err(PasswordError::NoTerminal)
    };
    let text = ask("Password")?;
    check(&text)?;
    if ask("Once more, password")? == text {
        Ok(text)
    } else {
        Err(PasswordError::Different)
    }
}

/// The one line of the stream, with or without its line break.
fn from_stream(stream: impl Read) -> Result<Zeroizing<String>, PasswordError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(STREAM_BOUND));
    stream
        .take(STREAM_BOUND as u64)
        .read_to_end(&mut bytes)
        .map_err(PasswordError::Unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| PasswordError::NotUtf8)?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(Zeroizing::new(
        line.strip_suffix('\r').unwrap_or(line).to_owned(),
    ))
}

fn check(text: &str) -> Result<(), PasswordError> {
    if text.contains(char::is_control) {
        return Err(PasswordError::ControlCharacter);
    }
    if text.len() > MAX_BYTES {
        return Err(PasswordError::TooLong);
    }
    if text.chars().count() < MIN_LENGTH {
        return Err(PasswordError::TooShort);
    }
    Ok(())
}

/// 125 random bits as letters and digits that are hard to mistake for each other, five by five.
fn generate(random: &dyn SecureRandom) -> Result<Zeroizing<String>, PasswordError> {
    let mut bytes = Zeroizing::new([0_u8; GROUPS * GROUP]);
    random
        .fill(bytes.as_mut())
        .map_err(|_| PasswordError::NoRandomness)?;
    let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP + 1)));
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % GROUP == 0 {
            text.push('-');
        }
        // The alphabet has 32 characters, so each is as likely as any other.
        text.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    Ok(text)
}

const MIN_LENGTH: usize = 8;
const MAX_BYTES: usize = 1024;
/// One more than the longest password and its line break, so that a longer one is noticed.
const STREAM_BOUND: usize = MAX_BYTES + 3;
const GROUPS: usize = 5;
const GROUP: usize = 5;
/// Small letters and digits without l, o, 0 and 1.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_stream_is_the_password() {
        let cases: [(&[u8], &str); 5] = [
            (b"secret word\n", "secret word"),
            (b"secret word\r\n", "secret word"),
            (b"secret word", "secret word"),
            (b" secret word \n", " secret word "),
            (b"secret\nword\n", "secret\nword"),
        ];
        for (stream, expected) in cases {
            assert_eq!(from_stream(stream).expect("text").as_str(), expected);
        }
        assert!(matches!(
            from_stream(&b"\xff"[..]),
            Err(PasswordError::NotUtf8)
        ));
        let endless = from_stream(io::repeat(b'a')).expect("text");
        assert!(matches!(check(&endless), Err(PasswordError::TooLong)));
    }

    #[test]
    fn passwords_have_bounds() {
        assert!(check("12345678").is_ok());
        assert!(check("\u{e4}\u{f6}\u{fc}45678").is_ok());
        assert!(check(&"a".repeat(MAX_BYTES)).is_ok());
        assert!(matches!(check("1234567"), Err(PasswordError::TooShort)));
        assert!(matches!(
            check("\u{e4}\u{f6}\u{fc}4567"),
            Err(PasswordError::TooShort)
        ));
        assert!(matches!(check(""), Err(PasswordError::TooShort)));
        assert!(matches!(
            check(&"a".repeat(MAX_BYTES + 1)),
            Err(PasswordError::TooLong)
        ));
        assert!(matches!(
            check("secret\nword"),
            Err(PasswordError::ControlCharacter)
        ));
        assert!(matches!(
            check("secret\tword"),
            Err(PasswordError::ControlCharacter)
        ));
    }

    #[test]
    fn generated_passwords_differ_and_are_easy_to_type() {
        let random = SystemRandom::new();
        let (one, two) = (
            generate(&random).expect("random"),
            generate(&random).expect("random"),
        );
        assert_ne!(one, two);
        let groups: Vec<_> = one.split('-').collect();
        assert_eq!(groups.len(), GROUPS);
        assert!(
            groups.iter().all(|group| group.len() == GROUP),
            "{}",
            one.as_str()
        );
        let distinct: std::collections::HashSet<_> = ALPHABET.iter().collect();
        assert_eq!(distinct.len(), ALPHABET.len());
        assert!(check(&one).is_ok());
    }
}
