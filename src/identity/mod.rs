//! identity: to come.
