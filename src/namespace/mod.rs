//! namespace: to come.
