//! seccomp: to come.
