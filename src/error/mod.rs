//! Error type for all errors that a user reads.
//!
//! An [`Error`] has the attempted action (the trail, outermost first), the object, the kernel's answer (the cause), and a hint
//! if one is known. It is printed once, at the top. Texts follow Go's conventions (lower case, no `(os error N)`), because
//! engines search for them: see [`text`].

pub mod fault;
mod hint;
pub mod text;

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

pub use fault::Fault;

pub type Result<T> = std::result::Result<T, Error>;

/// Kind of error, for callers in this program. Engines get texts only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Invalid command line.
    Usage,
    /// Invalid config.json, process.json or other document.
    Config,
    /// No container has the id.
    NotFound,
    /// The id is taken.
    Exists,
    /// The container is not in a state that allows the verb.
    State,
    /// Another call holds the container's lock.
    Busy,
    /// The kernel or another process rejected a request.
    System,
    /// The container's program does not exist.
    NoProgram,
    /// The container's program exists but cannot be executed.
    NotExecutable,
    /// The caller has interrupted three times.
    Interrupted,
}

impl Kind {
    /// Returns the exit status of `run` for the error: 126 and 127 as in shells and Docker.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::NoProgram => 127,
            Self::NotExecutable => 126,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

/// Error, boxed so that a successful `Result` has one word.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    /// Innermost first; printed in reverse.
    trail: Vec<String>,
    cause: Option<Cause>,
    hint: Option<String>,
}

/// Failed system call.
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

    /// Creates the error of `call` on `object` with `errno`: `open /proc/x: permission denied`.
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

    /// Creates the error from one of `std::io`, which has an errno if the kernel rejected a call.
    #[cold]
    pub fn io(call: &'static str, object: impl fmt::Display, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(n) => Self::os(call, object, Errno::from_raw(n)),
            None => Self::system(format!("{call} {object}: {error}")),
        }
    }

    /// Adds the attempted action in front.
    #[must_use]
    #[cold]
    pub fn context(mut self, attempted: impl Into<String>) -> Self {
        self.0.trail.push(attempted.into());
        self
    }

    /// Adds a hint: what the user can do. The innermost hint is kept.
    #[must_use]
    #[cold]
    pub fn hint(mut self, advice: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| advice.into());
        self
    }

    /// Changes the kind of the error.
    #[must_use]
    #[cold]
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns true if the container's program could not be executed.
    pub fn is_of_program(&self) -> bool {
        matches!(self.0.kind, Kind::NoProgram | Kind::NotExecutable)
    }

    /// Returns the errno, if the kernel rejected a call.
    pub fn errno(&self) -> Option<Errno> {
        self.0.cause.as_ref().map(|c| c.errno)
    }

    /// Returns the hint: the explicit one, or that of the table [`hint`].
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

/// Adds context to results.
pub trait Context<T> {
    /// Adds the attempted action. The closure runs only on failure.
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.context(attempted()))
    }
}

/// Converts an errno to an [`Error`] with call and object.
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
