//! Report of the container's init process about a failed step.
//!
//! The parent holds the same steps, so the child need not describe them: it names the call, the
//! errno and, where the step alone does not tell, an object.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

use super::text;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Failed system call, or the text of a failed check of Aril.
    pub call: Cow<'static, str>,
    /// errno of the call; `UnknownErrno` for a failed check of Aril, for which `call` is the whole message.
    pub errno: Errno,
}

impl Fault {
    /// Creates the report of a failed check of Aril with the text `message`.
    #[cold]
    pub fn refused(message: impl Into<Cow<'static, str>>) -> Self {
        Self { call: message.into(), errno: Errno::UnknownErrno }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Errno::UnknownErrno => f.write_str(&self.call),
            errno => write!(f, "{}: {}", self.call, text::errno(errno)),
        }
    }
}

pub type ChildResult<T> = Result<T, Fault>;

/// Adds the name of the failed call to an errno.
pub trait Attempt<T> {
    fn during(self, call: &'static str) -> ChildResult<T>;
}

impl<T> Attempt<T> for Result<T, Errno> {
    fn during(self, call: &'static str) -> ChildResult<T> {
        self.map_err(|errno| Fault { call: call.into(), errno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_an_error_would() {
        let fault = Err::<(), _>(Errno::EPERM).during("setsid").unwrap_err();
        assert_eq!(fault.to_string(), "setsid: operation not permitted");
        assert_eq!(Fault::refused("args must not be empty").to_string(), "args must not be empty");
    }
}
