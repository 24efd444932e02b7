//! `reconcile`: finds and removes resources that killed runtimes left.
//!
//! Each concern reports its findings as [`Leftover`]s, without changes. Resources of a live or kept container are at most
//! reported. A removal checks again under the lock, because a finding may be out of date.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{end, rollback};
use crate::error::{Error, Kind, Result};
use crate::fs::process;
use crate::id::ContainerId;
use crate::rootfs::overlay;
use crate::state::{Ending, Observed, Phase, Record, Slot, Store, boot_id, ending, observe};

/// Finding of one concern.
pub struct Leftover<'a> {
    /// Kind of resource, such as `container`.
    pub kind: &'static str,
    pub name: String,
    /// Reason for the finding, or for keeping the resource.
    pub why: String,
    /// Function that removes the resource. `None` if it is only reported.
    pub remove: Option<Removal<'a>>,
}

/// Lists findings, and errors of the search.
pub type Removal<'a> = Box<dyn FnOnce(&dyn Fn(&str)) -> Result<()> + 'a>;

type Concern = for<'a> fn(&'a Store) -> Result<Vec<Leftover<'a>>>;

/// Concerns that are searched. Containers are first: other resources may belong to them.
const CONCERNS: &[Concern] = &[containers, super::network::leftovers, shown];

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: &'static str,
    pub name: String,
    pub why: String,
    pub action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Removed,
    WouldRemove,
    Kept,
    Failed,
}

/// Reports each finding after its removal.
///
/// # Errors
///
/// A search or a removal fails; the others continue.
pub fn reconcile(store: &Store, dry_run: bool, tell: &mut dyn FnMut(Finding)) -> Result<()> {
    for concern in CONCERNS {
        for leftover in concern(store)? {
            tell(deal_with(leftover, dry_run));
        }
    }
    Ok(())
}

fn deal_with(leftover: Leftover, dry_run: bool) -> Finding {
    let Leftover { kind, name, why, remove } = leftover;
    let (action, error) = match remove {
        None => (Action::Kept, None),
        Some(_) if dry_run => (Action::WouldRemove, None),
        Some(remove) => {
            let warnings = RefCell::new(Vec::new());
            let done = remove(&|text| warnings.borrow_mut().push(text.to_owned()));
            let warnings = warnings.into_inner().join("; and: ");
            match done {
                Ok(()) => (Action::Removed, Some(warnings).filter(|text| !text.is_empty())),
                Err(e) => (Action::Failed, Some(e.to_string())),
            }
        }
    };
    Finding { kind, name, why, action, error }
}

/// State directories, with the cgroups and upper directories that their records name.
fn containers(store: &Store) -> Result<Vec<Leftover<'_>>> {
    let boot = boot_id()?;
    let mut leftovers = Vec::new();
    let mut living = BTreeMap::new();
    let ids = store.ids()?;
    for id in &ids {
        let slot = match store.open(id) {
            Err(e) if e.kind() == Kind::NotFound => continue,
            other => other?,
        };
        match judge(&slot, &boot) {
            Verdict::Living(paths) => {
                living.extend(paths.into_iter().map(|path| (path, id.clone())))
            }
            verdict => leftovers.push((id.clone(), verdict)),
        }
    }
    let judged = leftovers.into_iter().map(|(id, verdict)| {
        let verdict = spare(verdict, &living);
        leftover(store, id, verdict, &boot)
    });
    Ok(judged.collect())
}

/// Overlays on the host of containers without state, for example after a cleanup of the state root.
fn shown(store: &Store) -> Result<Vec<Leftover<'_>>> {
    let places = overlay::parent::shown_without_state(store.root())?;
    let leftover = |place: PathBuf| Leftover {
        kind: "mount",
        name: place.display().to_string(),
        why: "it shows the rootfs of a container whose state is gone".to_owned(),
        remove: Some(Box::new(move |_| overlay::parent::hide(&place))),
    };
    Ok(places.into_iter().map(leftover).collect())
}

enum Verdict {
    /// Container that exists, or is locked by a verb, with its cgroups.
    Living(Vec<PathBuf>),
    Kept(String),
    /// Container to remove.
    Remove(&'static str, Vec<PathBuf>),
    /// Live container with a stale FIFO.
    RemoveGate,
    /// Kept container that has ended, with a network to release.
    Disconnect,
}

const UNRECORDED: &str = "its create was killed before it wrote anything down";
const UNFINISHED: &str = "its create was killed";
const UNATTENDED: &str = "it has ended, and the process that would have deleted it was killed";
const CONNECTED: &str =
    "its container has ended, and the process that would have released it was killed";
const EARLIER_BOOT: &str = "the machine was started anew since";
const GATE: &str = "its start was killed after the container had started";

fn judge(slot: &Slot, boot: &str) -> Verdict {
    if slot.is_busy() {
        let record = slot.read().ok().flatten();
        return Verdict::Living(record.map(|r| cgroups(&r)).unwrap_or_default());
    }
    let observed = slot.read().and_then(|record| match record {
        None => Ok(None),
        Some(record) => observe(slot, &record).map(|observed| Some((record, observed))),
    });
    match observed {
        Err(e) => {
            Verdict::Kept(format!("{e}; aril delete --force removes what its create intended"))
        }
        Ok(None) => Verdict::Remove(UNRECORDED, Vec::new()),
        Ok(Some((record, observed))) => {
            let verdict = of_record(&record, &observed, boot);
            match ending(slot) {
                Ok(Ending::Awaited) => Verdict::Living(cgroups(&record)),
                Ok(Ending::Lost) if record.network.is_some() && verdict.keeps() => {
                    Verdict::Disconnect
                }
                _ => verdict,
            }
        }
    }
}

impl Verdict {
    fn keeps(&self) -> bool {
        matches!(self, Self::Kept(_))
    }
}

fn cgroups(record: &Record) -> Vec<PathBuf> {
    record.cgroup_paths.values().cloned().collect()
}

fn of_record(record: &Record, observed: &Observed, boot: &str) -> Verdict {
    let paths = cgroups(record);
    if observed.init().is_some() {
        // init has passed the FIFO in the meantime and executes the program.
        let init = process::stat(record.init_process_pid).ok().flatten();
        let passed = || init.is_some_and(|init| init.executed);
        return match matches!(observed, Observed::Created(_)) && passed() {
            true => Verdict::RemoveGate,
            false => Verdict::Living(paths),
        };
    }
    if !record.boot.is_empty() && record.boot != boot {
        // The cgroups do not exist any more, and others may have their names.
        return Verdict::Remove(EARLIER_BOOT, Vec::new());
    }
    if record.phase == Phase::Creating {
        return Verdict::Remove(UNFINISHED, paths);
    }
    if record.deleted_at_end {
        return Verdict::Remove(UNATTENDED, paths);
    }
    Verdict::Kept("it has ended, and was kept; aril delete removes it".to_owned())
}

/// Returns true for cgroups of a killed create that another container may use.
fn spare(verdict: Verdict, living: &BTreeMap<PathBuf, ContainerId>) -> Verdict {
    match verdict {
        Verdict::Remove(why, paths) => match paths.iter().find_map(|path| living.get(path)) {
            Some(other) => Verdict::Kept(format!("{why}, but its cgroup is that of {other} too")),
            None => Verdict::Remove(why, paths),
        },
        other => other,
    }
}

fn leftover<'a>(store: &'a Store, id: ContainerId, verdict: Verdict, boot: &str) -> Leftover<'a> {
    let (kind, name) = ("container", id.to_string());
    match verdict {
        Verdict::Living(_) => unreachable!("told apart by the caller"),
        Verdict::Kept(why) => Leftover { kind, name, why, remove: None },
        Verdict::RemoveGate => {
            let remove: Removal = Box::new(move |_| store.lock(&id)?.remove_fifo());
            Leftover { kind: "gate", name, why: GATE.to_owned(), remove: Some(remove) }
        }
        Verdict::Disconnect => {
            let remove: Removal = Box::new(move |_| {
                let slot = store.lock(&id)?;
                slot.read()?.map_or(Ok(()), |record| end::disconnect(&slot, record))
            });
            Leftover { kind: "network", name, why: CONNECTED.to_owned(), remove: Some(remove) }
        }
        Verdict::Remove(why, _) => {
            let boot = boot.to_owned();
            let remove: Removal = Box::new(move |warn| remove(store, &id, &boot, warn));
            Leftover { kind, name, why: why.to_owned(), remove: Some(remove) }
        }
    }
}

fn remove(store: &Store, id: &ContainerId, boot: &str, warn: &dyn Fn(&str)) -> Result<()> {
    let slot = match store.lock(id) {
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        other => other?,
    };
    match judge(&slot, boot) {
        Verdict::Remove(..) => {}
        Verdict::Kept(why) => return Err(Error::state(why)),
        _ => return Err(Error::state("in use by another command: run reconcile again")),
    }
    let Some(record) = slot.read()? else { return slot.remove() };
    rollback::kill_and_remove(&slot, &rollback::of_this_boot(record, boot), warn)
}
