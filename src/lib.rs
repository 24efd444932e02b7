//! Aril, an OCI container runtime.
//!
//! | layer | modules | may name |
//! |---|---|---|
//! | L0 | [`sys`] | no other module |
//! | L1 | [`error`], [`id`], [`path`], [`time`], [`spec`] | L0 |
//! | L2 | [`fs`] | L0, L1 |
//! | L3 | [`namespace`] [`cgroup`] [`rootfs`] [`identity`] [`seccomp`] [`limits`] [`network`] [`console`] [`hook`] [`layer`] [`volume`] [`landlock`] | L0 to L2, never each other |
//! | L4 | [`plan`] [`explain`] | L0 to L3 |
//! | L5 | [`init`], [`state`] | L0 to L4 |
//! | L6 | [`lifecycle`] | L0 to L5 |
//! | L7 | [`cli`], [`cni`], [`shim`] | all layers |
//!
//! `runtime-tests/tests/tidy.rs` checks the table.
//!
//! Reading order: [`plan`] (the description of a container), [`init`] (the two processes that create it), [`lifecycle`]
//! (the commands). Then one directory of L3 at a time: `mod.rs` (its types), `plan.rs` (pure decisions), `parent.rs`
//! (effects on the host), `child.rs` (effects after the clone). See `docs/architecture.md`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod sys;

pub mod error;
pub mod id;
pub mod path;
pub mod spec;
pub mod time;

pub mod fs;

pub mod cgroup;
pub mod console;
pub mod hook;
pub mod identity;
pub mod landlock;
pub mod layer;
pub mod limits;
pub mod namespace;
pub mod network;
pub mod rootfs;
pub mod seccomp;
pub mod volume;

pub mod explain;
pub mod plan;

pub mod init;
pub mod state;

pub mod lifecycle;

pub mod cli;
pub mod cni;
#[cfg(feature = "shim")]
pub mod shim;
