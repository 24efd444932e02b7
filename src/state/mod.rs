//! What is remembered of a container between two calls, and what is true of it.
//!
//! A record is written *before* the effect that it describes (the intended cgroup, then the
//! process), by an atomic rename, so that a kill at any instant leaves nothing that `delete --force`
//! cannot find. And a record is a rumour: [`observe`] asks the kernel whether the process that it
//! names still lives, and is the same.
//!
//! | entry of `<root>/<id>/` | meaning |
//! |---|---|
//! | `state.json` | the [`Record`]; keys that node agents read have runc's names |
//! | `intent.json` | the same as it was intended, before there was anything; read where `state.json` is missing, or damaged |
//! | `config.json` | the bundle's, as it was at create |
//! | `exit.json` | how it ended: made, empty, by a process of ours that waits for the end, and written by it |
//! | `exec.fifo` | exists while the container is created and not started |
//! | `notify/` | the socket directory of `NOTIFY_SOCKET` |
//!
//! The directory itself is the container's lock (flock(2)): one verb changes it at a time, and a
//! directory that is gone once the lock is held means that another verb has won.

mod exit;
mod observe;
mod record;
mod store;

pub use exit::{Ending, Exit, ExitFile, ending, wait_for_ending};
pub use observe::{Observed, Status, boot_id, observe};
pub use record::{Phase, Record, Settings, VERSION};
pub use store::{FIFO, NOTIFY, Slot, Store};
