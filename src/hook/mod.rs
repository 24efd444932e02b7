//! hook: to come.
