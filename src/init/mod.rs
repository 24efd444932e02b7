//! Starts a container's or exec's process: the parent clones the child, and both set it up by messages.
//!
//! ```text
//! parent                                   child
//!   |  clone3 (namespaces, cgroup) ----------> |
//!   |  id maps, cgroup    -- Proceed --------> | (waits for it only if it must: see `held`)
//!   |  limits, devices, record                 |  replays its steps
//!   |  prestart, createRuntime <-- Hooks ----- |  (only if there are such hooks)
//!   |                     -- Served ---------> |  createContainer, pivot, identity ...
//!   |                     <-- Ready ---------- |  all set up
//!   |  record, pid file                        |
//!   |      run, exec:     -- Run ------------> |  seccomp, execve; the socket closes: success
//!   |      create:        -- Park -----------> |  writes to exec.fifo: blocks until `start` reads, then as above
//! ```
//!
//! The child is a fork: it has the plan's steps in memory, and reports the index of a step that fails. The kernel
//! kills it with its parent (PR_SET_PDEATHSIG) until it has looked up the program. After that, an end of file
//! on the socket shows that the parent has ended.

pub mod child;
pub mod gate;
pub mod parent;
mod protocol;
pub mod reaper;
mod relay;
pub mod seal;

#[cfg(fuzzing)]
pub use protocol::check_frame;
