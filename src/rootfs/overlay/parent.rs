//! Prepares, makes, shows and removes the overlay of a container, on the host.

use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::mount::{NEW_UPPER, make as make_by, make_attached};
use super::{Layers, Overlay, UPPER, Upper, WORK, quota};
use crate::error::fault::{ChildResult, Fault};
use crate::error::{Context, Error, OsContext, Result};
use crate::fs::{closed, may_exist, record};
use crate::rootfs::parent::id_map::user_namespace;
use crate::sys::clone::{SingleThread, clone3, exit_now};
use crate::sys::mount::{Attributes, Extent, mount_setattr, move_mount, open_tree};
use crate::sys::open::open;
use crate::sys::{pidfd, socket};

/// File in a kept upper directory with the state directory of the container that uses it.
const USER: &str = "used-by";
const LONGEST_USER: usize = 4096;

/// Prepares the directories of an overlay, before anything is created.
///
/// Two overlays on one upper directory would damage it, and the kernel only warns. Other users of the host must not
/// reach what the container writes. Returns a warning if they can reach directories that an engine has given.
///
/// # Errors
///
/// Another container uses the upper directory, other users can reach it, or its file system has no project quotas for a
/// limit.
pub fn prepare(overlay: &Overlay) -> Result<Option<String>> {
    let layers = &overlay.layers;
    if let Some(place) = &layers.shown {
        closed::check(place.parent().unwrap_or(place))
            .context(|| format!("show the rootfs at {}", place.display()))?;
    }
    match &layers.upper {
        Upper::Kept { directory, .. } => {
            claim(directory, Path::new(std::ffi::OsStr::from_bytes(overlay.source.to_bytes())))
                .context(|| format!("use the upper directory {}", directory.display()))?;
        }
        Upper::Given { upper, .. } => {
            let warning = |e: Error| format!("upper directory {e}");
            return Ok(closed::check(upper).err().filter(|e| e.errno().is_none()).map(warning));
        }
        Upper::Ephemeral { .. } | Upper::Tmpfs { .. } => {}
    }
    match overlay.layers.upper.quota() {
        Some((directory, _)) => quota::check(directory).map(|()| None),
        None => Ok(None),
    }
}

fn claim(directory: &Path, user: &Path) -> Result<()> {
    closed::named(directory, &[UPPER, WORK, NEW_UPPER, USER])?;
    let _lock = lock(directory)?;
    if let Some(other) = user_of(directory)?.filter(|other| other != user && may_exist(other)) {
        let name = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(Error::state(format!("already in use by container {name}"))
            .hint("delete that container first, or use another upper directory for this one"));
    }
    record::write(&directory.join(USER), 0o600, user.as_os_str().as_bytes())
}

fn lock(directory: &Path) -> Result<Flock<OwnedFd>> {
    let opened = open(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
    let opened = opened.os("open", directory.display())?;
    Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Error::os("flock", directory.display(), errno))
}

fn user_of(directory: &Path) -> Result<Option<PathBuf>> {
    match record::read(&directory.join(USER), LONGEST_USER) {
        Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(None),
        text => Ok(Some(PathBuf::from(std::ffi::OsStr::from_bytes(&text?)))),
    }
}

/// Makes the overlay, detached.
///
/// # Errors
///
/// A directory cannot be opened, overlayfs rejects one, or a layer does not support id-mapped mounts.
pub fn make(overlay: &Overlay) -> Result<OwnedFd> {
    let namespace = overlay.id_map.as_ref().map(|(map, _)| user_namespace(map)).transpose()?;
    let id_map = namespace.as_ref().map(AsFd::as_fd);
    make_by(overlay, id_map, || mount_in_new_namespace(|| make_attached(overlay, id_map)))
        .map_err(|fault| explain(overlay, fault))
}

fn explain(overlay: &Overlay, fault: Fault) -> Error {
    let idmap = overlay.id_map.is_some() && fault.call.contains("IDMAP");
    let errno = fault.errno;
    let error = match errno {
        Errno::UnknownErrno => Error::system(fault.call.into_owned()),
        errno => Error::os(fault.call, "", errno),
    };
    match errno {
        Errno::EINVAL if idmap => error.hint(
            "the file system of the layer may not support id-mapped mounts: chown the layer into \
             the container's range",
        ),
        Errno::EINVAL | Errno::EOPNOTSUPP => error.hint(
            "the upper directory must be on a file system that overlayfs can write to, not on an \
             overlay or a network: `--upper tmpfs` needs none",
        ),
        _ => error,
    }
}

/// Makes one detached mount in a new mount namespace: see [`mounts_in_new_namespace`].
///
/// # Errors
///
/// The errors of [`mounts_in_new_namespace`].
pub fn mount_in_new_namespace(make: impl FnOnce() -> ChildResult<OwnedFd>) -> ChildResult<OwnedFd> {
    let mut made = mounts_in_new_namespace(|| Ok(vec![make()?]))?;
    made.pop().ok_or(UNFINISHED)
}

const UNFINISHED: Fault = Fault {
    call: Cow::Borrowed("the process that makes the mounts ended unexpectedly"),
    errno: Errno::ECHILD,
};

/// Runs `make` in a mount namespace that ends with the call, for mounts that need an attached mount. Returns detached
/// mounts.
///
/// # Errors
///
/// An error of clone3(2), or that of `make`.
pub fn mounts_in_new_namespace(
    make: impl FnOnce() -> ChildResult<Vec<OwnedFd>>,
) -> ChildResult<Vec<OwnedFd>> {
    let failed = |call: &'static str| move |errno| Fault { call: call.into(), errno };
    let (receiver, sender) = socket::pair().map_err(failed("socketpair"))?;
    let child = clone3(SingleThread::proof(), libc::CLONE_NEWNS as u64, None, || -> Infallible {
        let sent = match cut_off().and_then(|()| make()) {
            Ok(made) => send_all(&sender, &made),
            Err(fault) => socket::send(sender.as_fd(), &encode_fault(&fault), &[]).map(drop),
        };
        exit_now(i32::from(sent.is_err()))
    })
    .map_err(failed("clone3"))?;
    drop(sender);
    let received = receive_all(&receiver);
    let _ = pidfd::wait(child.pidfd.as_fd(), true);
    received.map_err(failed("receive"))?
}

const LONGEST_FAULT: usize = 4096;

/// Sends the descriptors, then a message without descriptors and without a fault.
fn send_all(end: &OwnedFd, made: &[OwnedFd]) -> crate::sys::Result<()> {
    for some in made.chunks(socket::MAX_FDS) {
        let fds: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        socket::send(end.as_fd(), b"+", &fds)?;
    }
    socket::send(end.as_fd(), b"+", &[]).map(drop)
}

fn receive_all(end: &OwnedFd) -> crate::sys::Result<ChildResult<Vec<OwnedFd>>> {
    let mut made = Vec::new();
    let mut message = [0; LONGEST_FAULT];
    loop {
        let (length, fds) = socket::receive(end.as_fd(), &mut message)?;
        match (&message[..length], fds.is_empty()) {
            (_, false) => made.extend(fds),
            (b"+", true) => return Ok(Ok(made)),
            (fault, true) => return Ok(Err(decode_fault(fault))),
        }
    }
}

fn encode_fault(fault: &Fault) -> Vec<u8> {
    let mut message = (fault.errno as i32).to_ne_bytes().to_vec();
    message.extend(fault.call.bytes().take(LONGEST_FAULT - message.len()));
    message
}

fn decode_fault(message: &[u8]) -> Fault {
    match message.split_first_chunk() {
        Some((errno, call)) => Fault {
            call: String::from_utf8_lossy(call).into_owned().into(),
            errno: Errno::from_raw(i32::from_ne_bytes(*errno)),
        },
        None => UNFINISHED,
    }
}

fn cut_off() -> ChildResult<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|errno| Fault { call: "mount /".into(), errno })
}

/// Mounts the overlay also at the path of `--show-rootfs`, for tools of the host.
///
/// # Errors
///
/// The directory cannot be created, or the kernel rejects the mount.
pub fn show(overlay: &Overlay, made: Option<&mut OwnedFd>) -> Result<()> {
    let (Some(place), Some(made)) = (&overlay.layers.shown, made) else { return Ok(()) };
    let what = || format!("show the rootfs at {}", place.display());
    match fs::create_dir(place) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(Error::io("mkdir", place.display(), &e)).context(what);
        }
        _ => {}
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let directory = open(place, flags).os("open", place.display()).context(what)?;
    let attach = |mount: &OwnedFd| {
        move_mount(mount.as_fd(), directory.as_fd()).os("move_mount", place.display()).context(what)
    };
    match open_tree(Some(made.as_fd()), c"", Extent::One) {
        Ok(copy) => attach(&copy),
        // Linux before 6.15 can copy only an attached mount.
        Err(Errno::EINVAL) => {
            attach(made)?;
            *made = private_copy(made).os("copy", place.display()).context(what)?;
            Ok(())
        }
        Err(errno) => Err(Error::os("open_tree", place.display(), errno)).context(what),
    }
}

/// Copies an attached mount as a private one. On a shared mount of the host, it has become shared, and later mounts of
/// the container would appear there.
fn private_copy(attached: &OwnedFd) -> crate::sys::Result<OwnedFd> {
    let copy = open_tree(Some(attached.as_fd()), c"", Extent::One)?;
    let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
    mount_setattr(copy.as_fd(), Extent::One, private)?;
    Ok(copy)
}

/// Removes the parts of an overlay that do not end with the container.
///
/// # Errors
///
/// The shown rootfs cannot be unmounted, or the quota cannot be removed.
pub fn undo(layers: &Layers, state_directory: &Path) -> Result<()> {
    if let Some(place) = &layers.shown
        && is_mounted_by(place, state_directory)?
    {
        hide(place)?;
    }
    match &layers.upper {
        Upper::Kept { directory, .. } => {
            if user_of(directory)?.is_some_and(|user| user == state_directory) {
                let _ = fs::remove_file(directory.join(USER));
            }
        }
        Upper::Ephemeral { directory, size } => {
            if size.is_some() {
                quota::remove_limit(directory)?;
            }
            clear(directory);
        }
        Upper::Tmpfs { .. } | Upper::Given { .. } => {}
    }
    Ok(())
}

/// Removes the directories of an overlay that the container has not written to, by name. Reading the kernel's work
/// directories, which no other program writes, would take ten times the calls. Other files are removed with
/// `directory`.
fn clear(directory: &Path) {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let Ok(directory) = open(directory, flags) else { return };
    let _ = unlinkat(&directory, c"work/work/incompat/volatile/dirty", UnlinkatFlags::NoRemoveDir);
    for name in
        [c"work/work/incompat/volatile", c"work/work/incompat", c"work/work", c"work", c"upper"]
    {
        let _ = unlinkat(&directory, name, UnlinkatFlags::RemoveDir);
    }
}

/// Returns true if the mount at `place` belongs to the container. An engine may have mounted another one there.
fn is_mounted_by(place: &Path, state_directory: &Path) -> Result<bool> {
    let table = fs::read(MOUNTS).os("read", MOUNTS)?;
    // The path of the bundle may contain a symlink.
    let real = fs::canonicalize(place);
    let place = real.as_deref().unwrap_or(place);
    let topmost = lines(&table).filter(|line| line.place == place).last();
    Ok(topmost.is_some_and(|line| line.source == state_directory))
}

/// Lists the mount points of shown rootfs directories without a container: their state directory in `root` is gone.
///
/// # Errors
///
/// An error of reading the mount table.
pub fn shown_without_state(root: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read(MOUNTS).os("read", MOUNTS)?;
    let lost = |line: &Line| {
        line.kind == b"overlay" && line.source.parent() == Some(root) && !may_exist(&line.source)
    };
    Ok(lines(&table).filter(lost).map(|line| line.place).collect())
}

/// Unmounts a shown rootfs. It is not an error if it is not mounted.
///
/// # Errors
///
/// An error of umount2(2) other than `EINVAL`.
pub fn hide(place: &Path) -> Result<()> {
    match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(Error::os("umount2", place.display(), errno)),
    }
}

const MOUNTS: &str = "/proc/self/mountinfo";

/// Line of a mount table.
struct Line<'a> {
    place: PathBuf,
    kind: &'a [u8],
    source: PathBuf,
}

fn lines(table: &[u8]) -> impl Iterator<Item = Line<'_>> {
    table.split(|b| *b == b'\n').filter_map(|line| {
        let mut words = line.split(|b| *b == b' ');
        let place = unescape(words.nth(4)?);
        let mut rest = words.skip_while(|word| *word != b"-");
        Some(Line { place, kind: rest.nth(1)?, source: unescape(rest.next()?) })
    })
}

/// Decodes a field of a mount table, in which space, tab, newline and backslash are three octal digits.
pub(in crate::rootfs) fn unescape(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, CString};
    use std::os::unix::fs::MetadataExt;

    use runtime_tests::skip;

    use super::*;
    use crate::fs::Root;
    use crate::rootfs::IdMap;

    struct TestDirectory(PathBuf);

    impl TestDirectory {
        /// Creates the layers `low` and `high`, which both contain a file `same`.
        fn new(name: &str) -> Self {
            let directory = Self(
                std::env::temp_dir().join(format!("aril-overlay-{name}-{}", std::process::id())),
            );
            for layer in ["low", "high", "at"] {
                fs::create_dir_all(directory.0.join(layer)).unwrap();
                fs::write(directory.0.join(layer).join("same"), layer).unwrap();
            }
            fs::write(directory.0.join("low/file"), "x").unwrap();
            directory
        }

        fn overlay(&self, upper: Upper) -> Overlay {
            let path = |path: PathBuf| CString::new(path.as_os_str().as_bytes()).unwrap();
            Overlay {
                layers: Layers {
                    lowers: vec![self.0.join("low"), self.0.join("high")],
                    upper,
                    shown: None,
                },
                at: path(self.0.join("at")),
                source: path(self.0.clone()),
                tree: Some(0),
                id_map: None,
            }
        }

        fn ephemeral(&self) -> Upper {
            Upper::Ephemeral { directory: self.0.clone(), size: None }
        }
    }

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn read(mount: &Root, name: &CStr) -> String {
        let mut text = String::new();
        let mut file = fs::File::from(mount.open(name, libc::O_RDONLY).unwrap());
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        text
    }

    /// Makes the overlay by descriptors and by mount(2), which must have the same result.
    #[expect(clippy::disallowed_macros, reason = "a test")]
    fn each_way(overlay: &Overlay, check: impl Fn(Root)) {
        let before = fs::read("/proc/self/mountinfo").unwrap();
        check(Root::new(make(overlay).unwrap()));
        if let Some(work) = overlay.layers.upper.work() {
            // A volatile overlay can be mounted once.
            fs::remove_dir_all(work).unwrap();
        }
        let namespace = overlay.id_map.as_ref().map(|(map, _)| user_namespace(map).unwrap());
        let id_map = namespace.as_ref().map(AsFd::as_fd);
        let made = mount_in_new_namespace(|| {
            make_attached(overlay, id_map).inspect_err(|fault| eprintln!("{fault}"))
        });
        check(Root::new(made.unwrap()));
        assert_eq!(fs::read("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn higher_layers_cover_lower_ones_and_neither_is_written() {
        if !skip::is_root() {
            return;
        }
        let directory = TestDirectory::new("order");
        fs::set_permissions(
            directory.0.join("high"),
            std::os::unix::fs::PermissionsExt::from_mode(0o751),
        )
        .unwrap();
        each_way(&directory.overlay(directory.ephemeral()), |root| {
            assert_eq!((read(&root, c"/same"), read(&root, c"file")), ("high".into(), "x".into()));
            assert_eq!(nix::sys::stat::fstat(&root).unwrap().st_mode & 0o7777, 0o751);
            let _ = root.create_file(c"/new", 0o600);
            assert!(directory.0.join("upper/new").exists());
        });
        assert_eq!(fs::read_dir(directory.0.join("high")).unwrap().count(), 1);
    }

    #[test]
    fn a_tmpfs_takes_what_is_written_up_to_its_size() {
        if !skip::is_root() {
            return;
        }
        let directory = TestDirectory::new("tmpfs");
        each_way(&directory.overlay(Upper::Tmpfs { size: Some(65536) }), |root| {
            let mut file = fs::File::from(root.create_file(c"/new", 0o600).unwrap());
            drop(file);
            file = fs::File::from(root.open(c"/new", libc::O_WRONLY).unwrap());
            let full = std::io::Write::write_all(&mut file, &[0; 1 << 17]).unwrap_err();
            assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
        });
        assert!(!directory.0.join("upper").exists());
    }

    #[test]
    fn the_most_layers_there_can_be() {
        if !skip::is_root() {
            return;
        }
        let directory = TestDirectory::new("most");
        let mut overlay = directory.overlay(directory.ephemeral());
        overlay.layers.lowers = (0..super::super::MOST_LOWERS)
            .map(|n| directory.0.join(format!("layer-with-a-name-that-fills-a-page-{n}")))
            .inspect(|layer| fs::create_dir(layer).unwrap())
            .collect();
        fs::write(overlay.layers.lowers[0].join("lowest"), "0").unwrap();
        each_way(&overlay, |root| assert_eq!(read(&root, c"/lowest"), "0"));
    }

    #[test]
    fn owners_of_lowers_are_mapped() {
        if !skip::is_root() {
            return;
        }
        let directory = TestDirectory::new("idmap");
        let mut overlay = directory.overlay(directory.ephemeral());
        let ids = vec![[0, 300_000, 65536]];
        let map = IdMap { extent: Extent::One, uids: ids.clone(), gids: ids };
        overlay.id_map = Some((map, vec![true, false]));
        each_way(&overlay, |root| {
            let owner = |name| {
                let fd = root.open(name, libc::O_PATH).unwrap();
                nix::sys::stat::fstat(&fd).unwrap().st_uid
            };
            assert_eq!((owner(c"file"), owner(c"/same")), (300_000, 0));
        });
        assert_eq!(fs::metadata(directory.0.join("low/file")).unwrap().uid(), 0);
    }

    #[test]
    fn lines_of_a_mount_table() {
        let table =
            b"36 35 0:40 / /b\\040x/rootfs rw shared:1 - overlay /run/aril/c rw,lowerdir=/x\n\
            37 35 0:5 / /tmp rw - tmpfs tmp\\134fs rw\n";
        let all: Vec<_> = lines(table).map(|l| (l.place, l.kind.to_vec(), l.source)).collect();
        assert_eq!(
            all,
            [
                ("/b x/rootfs".into(), b"overlay".to_vec(), "/run/aril/c".into()),
                ("/tmp".into(), b"tmpfs".to_vec(), "tmp\\fs".into()),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let directory = TestDirectory::new("wrong");
        let mut overlay = directory.overlay(directory.ephemeral());
        overlay.layers.lowers[0] = directory.0.join("missing");
        if !skip::is_root() {
            return;
        }
        let fault = mount_in_new_namespace(|| make_attached(&overlay, None)).unwrap_err();
        for text in [make(&overlay).unwrap_err().to_string(), fault.to_string()] {
            assert!(text.starts_with("open layer ") && text.contains("no such file"), "{text}");
        }
    }

    #[test]
    fn a_kept_upper_has_one_user() {
        let directory = TestDirectory::new("claim");
        let (kept, other) = (directory.0.join("kept"), directory.0.join("at"));
        let upper = Upper::Kept { directory: kept.clone(), size: None };
        let overlay = directory.overlay(upper.clone());
        prepare(&overlay).unwrap();
        prepare(&overlay).unwrap();
        assert!(claim(&kept, &other).unwrap_err().to_string().contains("in use by container"));
        let layers = Layers { upper, ..overlay.layers };
        undo(&layers, &other).unwrap();
        assert!(claim(&kept, &other).is_err());
        undo(&layers, &directory.0).unwrap();
        claim(&kept, &other).unwrap();
    }
}
