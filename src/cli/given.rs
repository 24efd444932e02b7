//! Reads the values that clap has matched. Errors name the flag and the expected value.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;

use super::value;
use crate::error::{Error, Kind, OsContext, Result};

/// Flags of one command line.
pub struct Given(ArgMatches);

impl Given {
    /// Matches `flags`, which are canonical words: see [`super::argv::split`].
    ///
    /// # Errors
    ///
    /// A flag is given twice, or conflicts with another.
    pub fn new(table: clap::Command, flags: Vec<OsString>) -> Result<Self> {
        table.no_binary_name(true).try_get_matches_from(flags).map(Self).map_err(|refusal| {
            let text = refusal.to_string();
            usage(text.lines().next().unwrap_or_default())
        })
    }

    pub fn switch(&self, name: &str) -> bool {
        self.0.get_flag(name)
    }

    pub fn raw(&self, name: &str) -> Option<&OsString> {
        self.0.get_one(name)
    }

    /// Returns the value of a flag.
    ///
    /// # Errors
    ///
    /// The value is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        self.raw(name).map(|value| text(value, name)).transpose()
    }

    /// Returns all values of a flag.
    ///
    /// # Errors
    ///
    /// A value is not UTF-8.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let values = self.0.get_many::<OsString>(name).unwrap_or_default();
        values.map(|value| text(value, name)).collect()
    }

    /// Returns the value as an absolute path. An empty value is `None`.
    ///
    /// # Errors
    ///
    /// The current directory cannot be read.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        let given = self.raw(name).filter(|path| !path.is_empty());
        given.map(|path| std::path::absolute(path).os("getcwd", "")).transpose()
    }

    /// Returns the bundle's directory. The default is the current directory.
    ///
    /// # Errors
    ///
    /// The current directory cannot be read.
    pub fn bundle(&self) -> Result<PathBuf> {
        match self.path("bundle")? {
            Some(path) => Ok(path),
            None => std::env::current_dir().os("getcwd", ""),
        }
    }

    /// Returns the value of a flag with `true` or `false`.
    ///
    /// # Errors
    ///
    /// The value is another word.
    pub fn choice(&self, name: &str) -> Result<Option<bool>> {
        self.parsed(name, value::boolean, "true or false")
    }

    /// Returns the value of a flag with a number.
    ///
    /// # Errors
    ///
    /// The value is no number, or out of range.
    pub fn number(&self, name: &str) -> Result<Option<u32>> {
        self.parsed(name, value::number, "a number")
    }

    /// Returns all values of a flag with numbers.
    ///
    /// # Errors
    ///
    /// A value is no number, or out of range.
    pub fn numbers(&self, name: &str) -> Result<Vec<u32>> {
        self.parsed_all(name, value::number, "a number; repeat it for more")
    }

    /// Parses all values of a flag. `wanted` describes a value in errors.
    ///
    /// # Errors
    ///
    /// `parse` rejects a value.
    pub fn parsed_all<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Result<Vec<T>> {
        let parse = |text: String| parse(&text).ok_or_else(|| invalid(&text, name, wanted));
        self.texts(name)?.into_iter().map(parse).collect()
    }

    /// Parses the value of a flag. `wanted` describes it in errors.
    ///
    /// # Errors
    ///
    /// `parse` rejects the value.
    pub fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Result<Option<T>> {
        let given = self.text(name)?;
        given.map(|text| parse(&text).ok_or_else(|| invalid(&text, name, wanted))).transpose()
    }
}

/// Returns a value in UTF-8, for a JSON document.
///
/// # Errors
///
/// The word is not UTF-8.
pub fn operand(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| usage(format!("argument {word:?} is not valid UTF-8")))
}

fn text(value: &OsString, name: &str) -> Result<String> {
    let text = value.to_str().ok_or_else(|| invalid(&value.to_string_lossy(), name, "UTF-8"))?;
    Ok(text.to_owned())
}

fn invalid(text: &str, name: &str, wanted: &str) -> Error {
    usage(format!("invalid value {text:?} for flag --{name}: want {wanted}"))
}

#[cold]
pub fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, message)
}
