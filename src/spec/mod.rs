//! spec: to come.
