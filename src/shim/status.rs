//! Errors of calls: gRPC's codes, on which containerd acts, and a text, which it shows.

use crate::error::Error;

/// Codes of gRPC that the shim uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

/// Code and text of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    /// Returns a status.
    #[cold]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Returns a status for an invalid argument.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Returns a status for a missing object.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// Returns a status for a request that the present state does not allow.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// Returns a status for any other failure.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }
}

/// Adds the hint to the text: users see nothing but the engine's error.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let hint = error.advice().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Self::unknown(format!("{error}{hint}"))
    }
}
