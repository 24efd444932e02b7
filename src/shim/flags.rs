//! Parses the command line that containerd gives a shim: Go's flags, with one dash, before or after the action.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// Action of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start,
    Delete,
    Info,
    Version,
    /// Anchor process of a pod, which the server starts.
    Anchor,
    /// No action: the server itself, as `start` starts it.
    Serve,
}

/// Parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    pub action: Action,
    pub namespace: String,
    pub id: String,
    /// Path of containerd's socket.
    pub address: String,
    pub bundle: PathBuf,
    /// Path of the server's own socket.
    pub socket: PathBuf,
}

impl Flags {
    /// Parses the command line.
    ///
    /// # Errors
    ///
    /// The namespace, the id or the action is missing or invalid.
    pub fn parse(words: &[OsString]) -> Result<Self> {
        let mut flags = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: PathBuf::new(),
            socket: PathBuf::new(),
        };
        let mut words = words.iter().map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-') else {
                flags.action = action(&word)?;
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut value = || value.clone().or_else(|| words.next()).ok_or_else(|| no_value(name));
            match name {
                "v" | "version" => flags.action = Action::Version,
                "info" => flags.action = Action::Info,
                "debug" => {}
                "namespace" => flags.namespace = value()?,
                "id" => flags.id = value()?,
                "address" => flags.address = value()?,
                "bundle" => flags.bundle = value()?.into(),
                "socket" => flags.socket = value()?.into(),
                // Flags of newer daemons are ignored.
                "publish-binary" => drop(value()?),
                _ => return Err(usage(format!("flag provided but not defined: -{name}"))),
            }
        }
        flags.check()
    }

    fn check(self) -> Result<Self> {
        let named = |text: &str| !text.is_empty() && !text.contains('/') && !text.starts_with('.');
        match self.action {
            Action::Start | Action::Delete | Action::Serve => {
                if !named(&self.namespace) {
                    return Err(usage("shim namespace cannot be empty, nor a path".into()));
                }
                if !named(&self.id) {
                    return Err(usage("shim id cannot be empty, nor a path".into()));
                }
            }
            Action::Info | Action::Version | Action::Anchor => {}
        }
        Ok(self)
    }
}

fn action(word: &str) -> Result<Action> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        "anchor" => Ok(Action::Anchor),
        _ => Err(usage(format!("unknown action {word:?}: expected start or delete"))),
    }
}

fn no_value(name: &str) -> Error {
    usage(format!("flag needs an argument: -{name}"))
}

fn usage(message: String) -> Error {
    Error::new(Kind::Usage, message)
        .hint("containerd runs this program; configure the runtime io.containerd.aril.v2")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags> {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        Flags::parse(&words)
    }

    #[test]
    fn as_containerd_calls() {
        let flags =
            parse("-namespace ns -address /a -publish-binary /c -id i -bundle /b -debug delete");
        let flags = flags.unwrap();
        assert_eq!((&*flags.namespace, &*flags.id, &*flags.address), ("ns", "i", "/a"));
        assert_eq!((flags.action, flags.bundle), (Action::Delete, "/b".into()));
        assert_eq!(parse("-id=i -namespace=ns start").unwrap().action, Action::Start);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let why = |line: &str| parse(line).unwrap_err().to_string();
        assert_eq!(why("-namespace n -id"), "flag needs an argument: -id");
        assert_eq!(why("-x"), "flag provided but not defined: -x");
        assert_eq!(why("stop"), "unknown action \"stop\": expected start or delete");
        assert_eq!(why("-namespace n start"), "shim id cannot be empty, nor a path");
        assert!(why("-namespace ../n -id i start").contains("namespace"));
    }
}
