//! Works on the files of an ordinary user's container. Their owners are the user's subordinate ids, which are accessible in
//! a user namespace only, so a child does the work in one. It joins the user namespace of a running container, where
//! processes are accessible, too. Otherwise it creates one with the same ids.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::inspect;
use crate::error::{Error, Kind, OsContext, Result};
use crate::fs::remove;
use crate::id::{ContainerId, HostPid};
use crate::namespace::{Mapping, Maps, parent};
use crate::rootfs::overlay::{Layers, Upper};
use crate::spec::Config;
use crate::state::{Slot, Store, observe};
use crate::sys::{self, clone, pidfd, socket};

/// User namespace from which files are read, and by whose ids owners are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Host,
    /// The container's user namespace, or one with the same ids.
    Inside,
}

/// Runs `work` where the files of container `id` can be read.
///
/// # Errors
///
/// The user namespace cannot be entered, or `work` fails.
pub fn among_its_files(
    store: &Store,
    id: &ContainerId,
    work: impl FnOnce(Place) -> Result<()>,
) -> Result<()> {
    if geteuid().is_root() {
        return work(Place::Host);
    }
    let slot = store.open(id)?;
    let observed = observe(&slot, &inspect::record(&slot, id)?)?;
    match maps(&inspect::stored_config(&slot)?) {
        Some(maps) => inside(observed.init(), &maps, || work(Place::Inside)),
        None => work(Place::Host),
    }
}

/// Removes the files of an upper directory that is deleted with its container, in a user namespace in which their owners
/// are mapped.
pub(super) fn remove_upper(slot: &Slot, layers: &Layers) -> Result<()> {
    if geteuid().is_root() || !matches!(layers.upper, Upper::Ephemeral { .. }) {
        return Ok(());
    }
    let folders = [layers.upper.upper(), layers.upper.work()];
    let remove_all = || {
        folders.iter().flatten().try_for_each(|path| match remove::tree(path) {
            Err(errno) => Err(Error::os("remove", path.display(), errno)),
            Ok(()) => Ok(()),
        })
    };
    match remove_all() {
        Err(e) if matches!(e.errno(), Some(Errno::EACCES | Errno::EPERM)) => {
            match inspect::stored_config(slot).ok().as_ref().and_then(maps) {
                Some(maps) => inside(None, &maps, remove_all),
                None => Err(e),
            }
        }
        other => other,
    }
}

fn maps(config: &Config) -> Option<Maps> {
    let linux = config.spec.linux().as_ref()?;
    let of = |mappings: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| {
        let mapping = |m: &oci_spec::runtime::LinuxIdMapping| Mapping {
            container: m.container_id(),
            host: m.host_id(),
            size: m.size(),
        };
        mappings.iter().flatten().map(mapping).collect::<Vec<_>>()
    };
    let maps = Maps { uid: of(linux.uid_mappings()), gid: of(linux.gid_mappings()) };
    (!maps.uid.is_empty() && !maps.gid.is_empty()).then_some(maps)
}

/// Joins the user namespace of `init`.
fn inside(
    init: Option<BorrowedFd<'_>>,
    maps: &Maps,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (ours, theirs) = socket::pair().os("socketpair", "")?;
    let new = if init.is_none() { libc::CLONE_NEWUSER | libc::CLONE_NEWNS } else { 0 };
    let child = clone::clone3(clone::SingleThread::proof(), new as u64, None, || {
        let done = enter(init, theirs.as_fd()).and_then(|()| work());
        let failed = done.is_err();
        if let Err(error) = done {
            let _ = socket::send(theirs.as_fd(), &told(&error), &[]);
        }
        clone::exit_now(failed.into())
    })
    .os("clone3", "CLONE_NEWUSER")
    .map_err(|e| e.context("enter a user namespace with the container's ids"))?;
    drop(theirs);
    if init.is_none()
        && let Err(error) = parent::write_maps(HostPid(child.pid), maps)
    {
        let _ = pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait(child.pidfd.as_fd(), true);
        return Err(error);
    }
    // If the process is dead, the next lines report it.
    let _ = socket::send(ours.as_fd(), b"+", &[]);
    let mut message = [0; LONGEST];
    let heard = socket::receive(ours.as_fd(), &mut message).map_or(0, |(length, _)| length);
    let ended = pidfd::wait(child.pidfd.as_fd(), true).os("waitid", "")?;
    match ended {
        Some(ended) if ended.code() == 0 => Ok(()),
        _ => Err(error(&message[..heard])),
    }
}

/// Creates a user namespace. Files that are created in it belong to the caller, because the caller's id stays the same.
fn enter(init: Option<BorrowedFd<'_>>, parent: BorrowedFd<'_>) -> Result<()> {
    let alone = sys::process::set_parent_death_signal(libc::SIGKILL);
    alone.os("prctl", "PR_SET_PDEATHSIG")?;
    // The mappings are written, and the parent is alive.
    socket::receive(parent, &mut [0]).os("recvmsg", "")?;
    if let Some(init) = init {
        sys::namespace::setns(init, libc::CLONE_NEWUSER).os("setns", "the user namespace")?;
        sys::namespace::unshare(libc::CLONE_NEWNS).os("unshare", "CLONE_NEWNS")?;
    }
    Ok(())
}

const LONGEST: usize = 8192;
const KINDS: [Kind; 7] = [
    Kind::Usage,
    Kind::Config,
    Kind::NotFound,
    Kind::Exists,
    Kind::State,
    Kind::Busy,
    Kind::System,
];

/// Encodes an error: its kind, its text, and the hint after a NUL.
fn told(error: &Error) -> Vec<u8> {
    let kind = KINDS.iter().position(|kind| *kind == error.kind()).unwrap_or_default();
    let mut message = vec![kind as u8];
    message.extend_from_slice(error.to_string().as_bytes());
    if let Some(advice) = error.advice() {
        message.push(0);
        message.extend_from_slice(advice.as_bytes());
    }
    message.truncate(LONGEST);
    message
}

fn error(message: &[u8]) -> Error {
    let Some((kind, text)) = message.split_first() else {
        return Error::system("the process in the container's user namespace was killed");
    };
    let text = String::from_utf8_lossy(text);
    let kind = KINDS.get(usize::from(*kind)).copied().unwrap_or(Kind::System);
    match text.split_once('\0') {
        Some((text, advice)) => Error::new(kind, text).hint(advice),
        None => Error::new(kind, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_whole() {
        let first = Error::os("open", "/x", Errno::ENOENT).context("read").hint("look");
        let heard = error(&told(&first));
        assert_eq!((heard.to_string(), heard.kind()), (first.to_string(), Kind::System));
        assert_eq!(heard.advice(), Some("look"));
        let plain = Error::state("busy");
        assert_eq!(error(&told(&plain)).advice(), None);
        assert_eq!(error(&told(&plain)).kind(), Kind::State);
        assert!(error(b"").to_string().contains("was killed"));
    }

    #[test]
    fn a_child_does_the_work_as_root_of_its_own() {
        let (uid, gid) = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let one = |host| vec![Mapping { container: 0, host, size: 1 }];
        let maps = Maps { uid: one(uid), gid: one(gid) };
        let before = std::fs::read_link("/proc/self/ns/user").unwrap();
        inside(None, &maps, || {
            let there = std::fs::read_link("/proc/self/ns/user").unwrap();
            let root = geteuid().is_root() && there != before;
            if root { Ok(()) } else { Err(Error::system("not inside")) }
        })
        .unwrap();
        let failed = inside(None, &maps, || Err(Error::config("no").hint("yes"))).unwrap_err();
        assert_eq!((failed.to_string(), failed.advice()), ("no".to_owned(), Some("yes")));
        // An id that is mapped twice.
        let wrong = Maps { uid: [maps.uid.clone(), maps.uid].concat(), gid: maps.gid };
        assert!(inside(None, &wrong, || Ok(())).is_err());
    }
}
