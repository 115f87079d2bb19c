//! `--name value` arguments, with a default for each.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;

/// The arguments of a bench program.
#[derive(Debug)]
pub struct Arguments(HashMap<String, Vec<String>>);

impl Arguments {
    /// Reads the arguments of this process.
    pub fn from_env() -> Result<Self, Box<dyn Error>> {
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .ok_or_else(|| format!("not an option: {word}"))?;
            let value = words
                .next()
                .ok_or_else(|| format!("--{name} wants a value"))?;
            found.entry(name.to_owned()).or_default().push(value);
        }
        Ok(Self(found))
    }

    /// Takes every value given for `name`.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// Takes the value of `name`, if given.
    pub fn optional<T>(&mut self, name: &str) -> Result<Option<T>, Box<dyn Error>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(value) = self.all(name).pop() else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|error| format!("--{name} {value}: {error}").into())
    }

    /// Takes the value of `name`, or the default.
    pub fn value<T>(&mut self, name: &str, default: T) -> Result<T, Box<dyn Error>>
    where
        T: FromStr,
        T::Err: Display,
    {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// Takes the value of `name`, which must be there.
    pub fn required<T>(&mut self, name: &str) -> Result<T, Box<dyn Error>>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.optional(name)?
            .ok_or_else(|| format!("--{name} is missing").into())
    }

    /// Fails if an argument was given that nobody took.
    pub fn finish(self) -> Result<(), Box<dyn Error>> {
        match self.0.keys().next() {
            Some(name) => Err(format!("unknown option --{name}").into()),
            None => Ok(()),
        }
    }
}
