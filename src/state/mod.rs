//! State of a container between two calls: the record on disk, and the kernel's answer.
//!
//! A record is written *before* the effect that it describes (the intended cgroup, then the process), by an atomic rename:
//! after a kill at any instant, `delete --force` finds all that is left. A record may be out of date, so [`observe`] asks
//! the kernel if the process that it names is alive and the same.
//!
//! | entry of `<root>/<id>/` | meaning |
//! |---|---|
//! | `state.json` | the [`Record`]; keys that node agents read have runc's names |
//! | `intent.json` | the record before the first effect; read if `state.json` is missing or damaged |
//! | `config.json` | the bundle's config.json at create, with the options' changes |
//! | `exit.json` | the end of the container; exists if a process of Aril waits for it, and is empty until then |
//! | `exec.fifo` | exists while the container is created and not started |
//! | `notify/` | the socket directory of `NOTIFY_SOCKET` |
//!
//! The directory itself is the container's lock (flock(2)): one verb at a time changes the container. If the directory no
//! longer exists when the lock is taken, another verb has deleted the container.

mod exit;
mod observe;
mod record;
mod store;

pub use exit::{Ending, Exit, ExitFile, ending, wait_for_ending};
pub use observe::{Created, Live, Observed, Paused, Running, Status, boot_id, observe};
pub use record::{Phase, Record, Settings, VERSION};
pub use store::{FIFO, NOTIFY, Slot, Store};
