//! One error type for everything that an operator reads.
//!
//! An [`Error`] says what was attempted (the trail, outermost first), on what object, what the
//! kernel answered (the cause), and where we know it, what to do (the hint). It is printed once, at
//! the top; nothing in between logs and returns. Texts follow Go's conventions (lower case, no
//! `(os error N)`), because engines search for them: see [`text`].

pub mod fault;
mod hint;
pub mod text;

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

pub use fault::Fault;

pub type Result<T> = std::result::Result<T, Error>;

/// What a caller of the library may need to tell apart. Engines see texts, not kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line.
    Usage,
    /// config.json, process.json or another input document.
    Config,
    /// No container of that id.
    NotFound,
    /// The id is taken.
    Exists,
    /// The container is not in a state that allows the verb.
    State,
    /// Another call holds the container's lock.
    Busy,
    /// The kernel, or another process, refused.
    System,
    /// The container's program does not exist.
    NoProgram,
    /// The container's program exists, and cannot be executed.
    NotExecutable,
    /// The caller does not want to wait any longer.
    Interrupted,
}

impl Kind {
    /// The exit code by which `run` reports the error: that of shells and Docker for a program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::NoProgram => 127,
            Self::NotExecutable => 126,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

/// Boxed, so that a `Result` costs one word on the path where nothing fails.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    /// Innermost first; printed in reverse.
    trail: Vec<String>,
    cause: Option<Cause>,
    hint: Option<String>,
}

/// A refused system call.
struct Cause {
    call: Cow<'static, str>,
    object: String,
    errno: Errno,
}

impl Error {
    #[cold]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, trail: vec![message.into()], cause: None, hint: None }))
    }

    #[cold]
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    #[cold]
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(Kind::State, message)
    }

    #[cold]
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }

    /// `call` on `object` failed with `errno`: reads `open /proc/x: permission denied`.
    #[cold]
    pub fn os(call: impl Into<Cow<'static, str>>, object: impl fmt::Display, errno: Errno) -> Self {
        let cause = Cause { call: call.into(), object: object.to_string(), errno };
        Self(Box::new(Inner {
            kind: Kind::System,
            trail: Vec::new(),
            cause: Some(cause),
            hint: None,
        }))
    }

    /// The same from `std::io`, whose errors carry an errno whenever the kernel spoke.
    #[cold]
    pub fn io(call: &'static str, object: impl fmt::Display, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(n) => Self::os(call, object, Errno::from_raw(n)),
            None => Self::system(format!("{call} {object}: {error}")),
        }
    }

    /// Puts what was being attempted in front.
    #[must_use]
    #[cold]
    pub fn context(mut self, attempted: impl Into<String>) -> Self {
        self.0.trail.push(attempted.into());
        self
    }

    /// What the operator can do about it. The innermost hint, nearest to the cause, wins.
    #[must_use]
    #[cold]
    pub fn hint(mut self, advice: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| advice.into());
        self
    }

    /// The same error, of another kind.
    #[must_use]
    #[cold]
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the container's program is what failed.
    pub fn is_of_program(&self) -> bool {
        matches!(self.0.kind, Kind::NoProgram | Kind::NotExecutable)
    }

    /// The kernel's answer, if it was the kernel who refused.
    pub fn errno(&self) -> Option<Errno> {
        self.0.cause.as_ref().map(|c| c.errno)
    }

    /// The advice, explicit or from the table of [`hint`].
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref().or_else(|| {
            let cause = self.0.cause.as_ref()?;
            hint::for_cause(&cause.call, &cause.object, cause.errno)
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for part in self.0.trail.iter().rev() {
            write!(f, "{separator}{part}")?;
            separator = ": ";
        }
        if let Some(Cause { call, object, errno }) = &self.0.cause {
            write!(f, "{separator}{call}")?;
            if !object.is_empty() {
                write!(f, " {object}")?;
            }
            write!(f, ": {}", text::errno(*errno))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}

/// Context on results, of ours and of the layers below us.
pub trait Context<T> {
    /// Says what was being attempted. The closure runs only on failure.
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.context(attempted()))
    }
}

/// Turns the bare errno of `sys` into an [`Error`] that names call and object.
pub trait OsContext<T> {
    fn os(self, call: &'static str, object: impl fmt::Display) -> Result<T>;
}

impl<T> OsContext<T> for std::result::Result<T, Errno> {
    fn os(self, call: &'static str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|errno| Error::os(call, object, errno))
    }
}

impl<T> OsContext<T> for std::io::Result<T> {
    fn os(self, call: &'static str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::io(call, object, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_gos_path_errors() {
        let e =
            Error::os("open", "/x", Errno::ENOENT).context("load config").context("create failed");
        assert_eq!(e.to_string(), "create failed: load config: open /x: no such file or directory");
        assert_eq!(e.errno(), Some(Errno::ENOENT));
    }

    #[test]
    fn the_innermost_hint_wins() {
        let e = Error::system("a").hint("first").hint("second");
        assert_eq!(e.advice(), Some("first"));
    }
}
