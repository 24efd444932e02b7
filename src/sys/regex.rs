//! Extended regular expressions of POSIX, by the C library: regcomp(3), regexec(3).

use std::ffi::CStr;

/// A compiled expression.
pub struct Regex(libc::regex_t);

impl Regex {
    /// `None` if it is no expression.
    pub fn new(pattern: &CStr) -> Option<Self> {
        // SAFETY: regex_t is plain data, which regcomp fills.
        let mut compiled: libc::regex_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pattern ends with a NUL; where regcomp fails, nothing is left to be freed.
        let refused = unsafe {
            libc::regcomp(&raw mut compiled, pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB)
        };
        (refused == 0).then_some(Self(compiled))
    }

    /// Whether it matches some part of `text`.
    pub fn matches(&self, text: &CStr) -> bool {
        // SAFETY: it was compiled above; without a place for matches, none is written.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled above, and freed once.
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
