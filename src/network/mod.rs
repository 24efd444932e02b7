//! network: to come.
