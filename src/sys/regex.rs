//! POSIX extended regular expressions of the C library: regcomp(3), regexec(3).

use std::ffi::CStr;

/// Compiled expression.
pub struct Regex(libc::regex_t);

impl Regex {
    /// Compiles an expression. `None` if the syntax is wrong.
    pub fn new(pattern: &CStr) -> Option<Self> {
        // SAFETY: regex_t is plain data, which regcomp fills.
        let mut compiled: libc::regex_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pattern is NUL terminated. If regcomp fails, it leaves nothing to free.
        let refused = unsafe {
            libc::regcomp(&raw mut compiled, pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB)
        };
        (refused == 0).then_some(Self(compiled))
    }

    /// Returns true if the expression matches a part of `text`.
    pub fn matches(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled. Without memory for matches, none is written.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: the expression is compiled, and freed once.
        unsafe { libc::regfree(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let web = Regex::new(c"^web-[0-9]+$").unwrap();
        assert!(web.matches(c"web-12") && !web.matches(c"web-") && !web.matches(c"a-web-1"));
        assert!(Regex::new(c"b|c").unwrap().matches(c"abd"));
        assert!(Regex::new(c"a(").is_none() && Regex::new(c"[").is_none());
    }
}
