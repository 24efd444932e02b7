//! fs: to come.
