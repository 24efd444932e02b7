//! The verbs, one file each; the effects of a container on the host, and `rollback`, which undoes them.
//!
//! A verb that changes a container locks its slot, observes its status, rejects what the status does not allow, and acts.
//! Nothing here prints: results and errors are returned.

mod applied;
pub mod commit;
pub mod create;
mod creation;
pub mod delete;
pub mod diff;
mod effect;
mod end;
pub mod events;
pub mod exec;
pub mod export;
mod foreground;
mod frozen;
pub mod handover;
mod hooks;
pub mod inside;
pub mod inspect;
mod intent;
pub mod kill;
pub mod monitor;
pub mod mounts;
pub mod network;
mod notify;
pub mod pause;
mod pid_file;
pub mod prepare;
mod processes;
pub mod reconcile;
mod rollback;
mod setup;
pub mod start;
pub mod stats;
pub mod timeline;
pub mod update;
pub mod userns;
mod view;
pub mod wait;
