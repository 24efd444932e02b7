//! Creates the container's cgroup, and sets its limits.

use std::fs::{self, TryLockError};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, mkdir};

use super::plan::Target;
use super::{
    Absent, Driver, Paths, Plan, Version, Write, clone, file, freezer, layout, stored, systemd,
};
use crate::error::{Context, Error, OsContext, Result};
use crate::fs::process::in_user_namespace;
use crate::id::HostPid;
use crate::sys::bpf;
use crate::sys::open::open;

/// Cgroup for the container's first process.
#[derive(Debug, Default)]
pub struct Created {
    /// Directory for `CLONE_INTO_CGROUP`, on a hybrid host, too.
    pub dir: Option<OwnedFd>,
    /// `tasks` files for [`super::child::run`].
    pub tasks: Vec<Option<OwnedFd>>,
    /// Actual cgroups of the container: fewer than planned if it is rootless and some are not permitted.
    pub paths: Paths,
    pub warnings: Vec<String>,
    /// True if the first process cannot be cloned into the cgroup: it waits until [`complete`] has moved it.
    pub moves: bool,
    has_unit: bool,
    /// Reason for a missing cgroup in some hierarchy.
    refused: Option<Error>,
    /// Lock of [`take`]. If the first hierarchy is cgroup v2, `dir` is the lock.
    lock: Option<OwnedFd>,
    taken: bool,
    /// Directories that were created, outermost first.
    made: Vec<PathBuf>,
}

impl Created {
    /// Returns the directory for the clone.
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().filter(|_| !self.moves).map(AsFd::as_fd)
    }

    /// Returns true if the first process died because it was cloned into the cgroup. It is then to be cloned again,
    /// and moved.
    pub fn retry_by_moving(&mut self) -> bool {
        let dies = !self.moves && self.dir.as_ref().is_some_and(clone::kills_child);
        self.moves |= dies;
        dies
    }

    /// Removes what was created, except what others use in the meantime.
    fn undo(self) -> Result<()> {
        if self.has_unit {
            systemd::parent::stop(&self.paths);
        }
        let removed = stored::remove(&self.paths);
        self.remove_made();
        removed
    }

    /// Removes the directories that were created, also those above the container's, which no record lists. The kernel
    /// keeps those that others use in the meantime.
    pub fn remove_made(&self) {
        for dir in self.made.iter().rev() {
            file::rmdir(dir).ok();
        }
    }

    /// Returns true if systemd has created a unit around the first process.
    pub fn has_unit(&self) -> bool {
        self.has_unit
    }

    fn is_new(&self, dir: &Path) -> bool {
        self.made.iter().any(|d| d == dir)
    }
}

/// Creates the directories and opens them for the clone. On failure, what was created is removed.
///
/// # Errors
///
/// A cgroup contains processes, is frozen or cannot be created. A rootless container without a requested path
/// continues without it.
pub fn create(plan: &Plan) -> Result<Created> {
    let mut created = Created::default();
    match create_all(plan, &mut created) {
        Ok(()) => Ok(created),
        Err(e) => {
            // A cgroup that existed before is in use: it stays.
            let Created { ref made, ref mut paths, .. } = created;
            paths.retain(|_, dir| made.contains(dir));
            created.undo().ok();
            Err(e)
        }
    }
}

fn create_all(plan: &Plan, created: &mut Created) -> Result<()> {
    if let Driver::Systemd(unit) = &plan.driver {
        systemd::parent::remove_previous(unit, stored::pids(&plan.paths)?.is_empty());
        if unit.user && !may_clone_into(&plan.targets)? {
            // systemd would move the process into a cgroup that another container uses, or that is frozen.
            for target in &plan.targets {
                if target.dir.exists() {
                    refuse_used(target)?;
                }
                let mut levels = target.dir.ancestors();
                levels.find(|dir| dir.exists()).map_or(Ok(()), |dir| refuse_frozen(target, dir))?;
            }
            created.paths = plan.paths.clone();
            created.moves = true;
            return Ok(());
        }
    }
    // The same hierarchy is the first of each create.
    let (unified, others): (Vec<_>, Vec<_>) = plan.targets.iter().partition(|t| t.is_version2());
    for target in unified.into_iter().chain(others) {
        let made = match created.taken {
            false => take(target, created),
            true => make(target, &mut created.made),
        };
        match made {
            Ok(()) => {
                let entries = target.names.iter().map(|n| (n.clone(), target.dir.clone()));
                created.paths.extend(entries);
            }
            Err(e) if plan.optional && e.errno().is_some_and(is_not_permitted) => {
                continue_without(plan, created, e)?;
                if !target.is_version2() {
                    created.tasks.push(None);
                }
                continue;
            }
            Err(e) => return Err(e),
        }
        if !created.is_new(&target.dir) {
            refuse_used(target)?;
        }
        refuse_frozen(target, &target.dir)?;
        if !created.is_new(&target.dir) && target.is_version2() {
            replace_empty(target, created)?;
        }
        prepare(plan, target, created)?;
    }
    require_joined(plan, created)
}

fn make(target: &Target, made: &mut Vec<PathBuf>) -> Result<()> {
    make_below(&target.dir, &target.mount, made)
        .map_err(|(dir, errno)| Error::os("mkdir", dir.display(), errno))
}

/// Creates the directory: the innermost first, because its parent mostly exists.
fn make_below(
    dir: &Path,
    mount: &Path,
    made: &mut Vec<PathBuf>,
) -> std::result::Result<(), (PathBuf, Errno)> {
    // Another create that fails at the same time removes the parents that it created, and so does systemd.
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        match mkdir(dir, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                made.push(dir.to_owned());
                return Ok(());
            }
            Err(Errno::EEXIST) => return Ok(()),
            Err(Errno::ENOENT | Errno::ENODEV) if dir != mount && dir.starts_with(mount) => {
                if let Some(parent) = dir.parent() {
                    make_below(parent, mount, made)?;
                }
            }
            Err(errno) => return Err((dir.to_owned(), errno)),
        }
    }
    Err((dir.to_owned(), Errno::ENOENT))
}

fn is_not_permitted(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
}

/// Returns true if the kernel permits a move or a clone: it requires write access to the `cgroup.procs` of the common
/// ancestor of the runtime's cgroup and the target.
fn may_clone_into(targets: &[Target]) -> Result<bool> {
    const MEMBERSHIP: &str = "/proc/self/cgroup";
    let text = fs::read_to_string(MEMBERSHIP).os("read", MEMBERSHIP)?;
    let own = layout::own_unified(&text).unwrap_or_default();
    Ok(targets.iter().all(|target| {
        let own = target.mount.join(own.strip_prefix("/").unwrap_or(&own));
        let common = own.ancestors().find(|dir| target.dir.starts_with(dir));
        let procs = common.unwrap_or(&target.mount).join("cgroup.procs");
        access(&procs, AccessFlags::W_OK).is_ok()
    }))
}

/// Completes the cgroup except for memory limits: its unit, which systemd creates, moving a process that is not there
/// yet; limits; the device filter. The container's program must not run before this returns.
///
/// # Errors
///
/// systemd or the kernel rejects a limit, the device filter, or the process.
pub fn complete(plan: &Plan, created: &mut Created, pid: HostPid) -> Result<()> {
    let Driver::Systemd(unit) = &plan.driver else {
        if let (true, Some(dir)) = (created.moves, &created.dir) {
            clone::move_into(dir, pid.0)?;
        }
        return apply(plan, created);
    };
    let settled = unit.settles || created.moves;
    if !settled {
        // First, because systemd then sleeps with the kernel's lock on all cgroups.
        apply(plan, created)?;
    }
    systemd::parent::start(unit, pid, settled)
        .context(|| "unable to apply cgroup configuration".to_owned())?;
    created.has_unit = true;
    // From now on systemd removes the slices.
    created.made.retain(|dir| plan.targets.iter().any(|target| target.dir == *dir));
    if settled { apply_to_unit(plan, created) } else { Ok(()) }
}

/// Prepares the cgroups that systemd has created, as [`create`] does for others.
fn apply_to_unit(plan: &Plan, created: &mut Created) -> Result<()> {
    if plan.version == Version::V2 {
        for target in &plan.targets {
            // systemd may enable fewer controllers than Aril needs.
            controllers::enable(target, &plan.writes)?;
            if created.moves {
                created.dir = Some(open_directory(&target.dir)?);
                plan.owner.map_or(Ok(()), |owner| delegate(plan, &target.dir, owner))?;
            }
        }
    }
    apply(plan, created)
}

/// Returns true if a rootless container may continue without this cgroup: no path was requested.
fn continue_without(plan: &Plan, created: &mut Created, refused: Error) -> Result<()> {
    if plan.version == Version::V2 && plan.writes.iter().any(Write::needs_controller) {
        return Err(refused.context(
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        ));
    }
    created.refused.get_or_insert(refused);
    Ok(())
}

fn require_joined(plan: &Plan, created: &Created) -> Result<()> {
    let missing = plan.before_join.iter().chain(&plan.writes).find(|w| {
        plan.version == Version::V1
            && w.needs_controller()
            && !created.paths.contains_key(&*w.controller)
    });
    match missing {
        None => Ok(()),
        Some(write) => Err(Error::system(format!(
            "cannot set {} limit: container could not join or create cgroup",
            write.controller
        ))
        .hint(created.refused.as_ref().map_or_else(String::new, Error::to_string))),
    }
}

/// Creates the cgroup, or finds it, and locks it by flock(2) on its directory: two creates with the same cgroup at the
/// same moment would both find it empty. The lock is held until the first process is inside.
fn take(target: &Target, created: &mut Created) -> Result<()> {
    loop {
        make(target, &mut created.made)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = match open(&target.dir, flags) {
            // The create that held the lock has failed.
            Err(Errno::ENOENT | Errno::ENODEV) => continue,
            other => fs::File::from(other.os("open", target.dir.display())?),
        };
        match directory.try_lock() {
            Err(TryLockError::WouldBlock) => {
                // The directory belongs to the other create from now on, even if this one has created it.
                created.made.retain(|dir| *dir != target.dir);
                return refuse_used(target).and(Err(being_created(target)));
            }
            other => other.map_err(std::io::Error::from).os("flock", target.dir.display())?,
        }
        let inode = |path: &Path| fs::metadata(path).map(|found| found.ino()).ok();
        let locked = directory.metadata().os("fstat", target.dir.display())?.ino();
        if inode(&target.dir) == Some(locked) {
            created.lock = Some(directory.into());
            created.taken = true;
            return Ok(());
        }
    }
}

fn being_created(target: &Target) -> Error {
    Error::state("container's cgroup is not empty: another container is being created in it")
        .hint(format!("give the container another cgroupsPath than {}", target.dir.display()))
}

/// Rejects a cgroup with processes: of another container, or left from one.
fn refuse_used(target: &Target) -> Result<()> {
    let paths: Paths = target.names.iter().map(|n| (n.clone(), target.dir.clone())).collect();
    let processes = stored::pids(&paths)?.len();
    if processes > 0 {
        return Err(Error::state(format!(
            "container's cgroup is not empty: {processes} process(es) found"
        ))
        .hint(format!(
            "{} is in use: give the container another cgroupsPath",
            target.dir.display()
        )));
    }
    Ok(())
}

/// Rejects a frozen target, or one with a frozen ancestor: a process there does not run, and the create would wait
/// until the cgroup is thawed. `dir` is the target's directory, or its innermost existing ancestor.
fn refuse_frozen(target: &Target, dir: &Path) -> Result<()> {
    let name = match (target.is_version2(), target.carries("freezer")) {
        (true, _) => "",
        (_, true) => "freezer",
        _ => return Ok(()),
    };
    if !freezer::is_frozen(&Paths::from([(name.to_owned(), dir.to_owned())]))? {
        return Ok(());
    }
    let frozen = freezer::frozen_level(target.is_version2(), dir)?.unwrap_or(dir);
    let text = format!("container's cgroup unexpectedly frozen: {} is frozen", frozen.display());
    Err(Error::state(text).hint("thaw it, or give the container another cgroupsPath"))
}

/// Replaces an existing, empty cgroup by a new one. No process can be cloned into a cgroup whose `cgroup.kill` was
/// ever written: Linux (6.12 and 6.18, at least) kills the child as one that the kill missed. A cgroup with cgroups
/// below it stays.
fn replace_empty(target: &Target, created: &mut Created) -> Result<()> {
    match file::rmdir(&target.dir) {
        Ok(()) if created.lock.is_some() => take(target, created),
        Ok(()) => make(target, &mut created.made),
        Err(_) => Ok(()),
    }
}

fn prepare(plan: &Plan, target: &Target, created: &mut Created) -> Result<()> {
    if target.is_version2() {
        // On a hybrid host the limits are those of v1.
        if plan.version == Version::V2 {
            controllers::enable(target, &plan.writes)?;
        }
        created.dir = match created.lock.take() {
            None => Some(open_directory(&target.dir)?),
            lock => lock,
        };
        return plan.owner.map_or(Ok(()), |owner| delegate(plan, &target.dir, owner));
    }
    if target.carries("cpuset") {
        inherit_cpuset(target.dir.parent().unwrap_or(&target.mount), &target.mount)?;
    }
    let paths: Paths = target.names.iter().map(|n| (n.clone(), target.dir.clone())).collect();
    let of_target = plan.before_join.iter().filter(|w| target.carries(&w.controller));
    set(&paths, of_target)?;
    if target.carries("cpuset") {
        inherit_cpuset(&target.dir, &target.mount)?;
    }
    if target.carries("devices") {
        forbid_devices(plan, created.is_new(&target.dir), &target.dir)?;
    }
    let tasks = target.dir.join("tasks");
    let tasks = open(&tasks, OFlag::O_WRONLY | OFlag::O_CLOEXEC).os("open", tasks.display())?;
    created.tasks.push(Some(tasks));
    Ok(())
}

/// Delegates the cgroup to the container's user, which creates cgroups below it: changes the owner of the directory and
/// of the files that the kernel lists as delegatable.
fn delegate(plan: &Plan, dir: &Path, owner: u32) -> Result<()> {
    const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
    let names = fs::read_to_string(DELEGATE).os("read", DELEGATE)?;
    let files = names.lines().map(|name| dir.join(name));
    for path in std::iter::once(dir.to_owned()).chain(files) {
        match chown(&path, Some(owner), None) {
            // Each file belongs to some controller, or exists on some kernels.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // An ordinary user cannot give files to another user.
            Err(e) if plan.rootless && e.kind() == ErrorKind::PermissionDenied => return Ok(()),
            other => other.os("chown", path.display()).context(|| "delegate the cgroup".into())?,
        }
    }
    Ok(())
}

fn open_directory(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(dir, flags).os("open", dir.display())
}

/// Initializes a new cpuset: an empty one admits no process. Its ancestors may be new, too.
fn inherit_cpuset(dir: &Path, mount: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        inherit(dir, mount, name)?;
    }
    Ok(())
}

fn inherit(dir: &Path, mount: &Path, name: &str) -> Result<String> {
    let file = dir.join(name);
    let own = file::read(&file)?.unwrap_or_default().trim().to_owned();
    match dir.parent() {
        Some(parent) if own.is_empty() && dir != mount => {
            let inherited = inherit(parent, mount, name)?;
            file::write(&file, &inherited)?;
            Ok(inherited)
        }
        _ => Ok(own),
    }
}

/// Writes the v1 device rules while no process is inside: the first lines forbid everything.
fn forbid_devices(plan: &Plan, new: bool, dir: &Path) -> Result<()> {
    if new && plan.devices.permits_all() {
        return Ok(()); // The new cgroup has just inherited what its parent permits.
    }
    for (name, lines) in plan.devices.v1_lines() {
        match file::write(&dir.join(name), &lines) {
            Err(e) if !device_refusal_matters(plan, &e) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// Returns true in a user namespace: device rules cannot be set there and are not needed, because mknod(2) is
/// rejected.
fn device_refusal_matters(plan: &Plan, e: &Error) -> bool {
    !(plan.rootless || e.errno() == Some(Errno::EPERM) && in_user_namespace())
}

/// Sets the limits, except for memory, and the device filter. The first process may be inside already.
fn apply(plan: &Plan, created: &Created) -> Result<()> {
    set(&created.paths, plan.writes.iter().filter(|w| !w.is_memory()))?;
    if plan.version == Version::V2
        && let Some(dir) = &created.dir
        && let Some(path) = created.paths.get("")
    {
        // systemd has attached a filter that it made of Aril's rules: Aril's replaces it.
        let bare = created.is_new(path) && plan.driver == Driver::Cgroupfs;
        let filtered = filter_devices(plan, dir, bare);
        if let Err(e) = filtered.os("bpf", path.display())
            && device_refusal_matters(plan, &e)
        {
            return Err(e.context("cannot attach the device filter"));
        }
    }
    Ok(())
}

fn filter_devices(plan: &Plan, dir: &OwnedFd, new: bool) -> crate::sys::Result<()> {
    let replaced = if new { None } else { bpf::sole_device_filter(dir.as_fd())? };
    if plan.devices.permits_all() && replaced.is_none() {
        return Ok(());
    }
    let program = bpf::load_device_filter(&plan.devices.program())?;
    bpf::attach_device_filter(dir.as_fd(), program.as_fd(), replaced.as_ref().map(AsFd::as_fd))
}

/// Writes limits in order, at `create` or for `update`.
///
/// # Errors
///
/// The kernel rejects a value, or a file for a limit is missing.
pub fn set<'a>(paths: &Paths, writes: impl IntoIterator<Item = &'a Write>) -> Result<()> {
    let mut postponed: Vec<(&Write, Error)> = Vec::new();
    for write in writes {
        match set_one(paths, write) {
            Ok(()) => {
                for (earlier, _) in std::mem::take(&mut postponed) {
                    postpone(paths, earlier, &mut postponed)?;
                }
            }
            Err(e) if write.again && e.errno() == Some(Errno::EINVAL) => {
                postponed.push((write, e));
            }
            Err(e) => return Err(e),
        }
    }
    match postponed.into_iter().next() {
        Some((_, e)) => Err(e),
        None => Ok(()),
    }
}

fn postpone<'a>(
    paths: &Paths,
    write: &'a Write,
    postponed: &mut Vec<(&'a Write, Error)>,
) -> Result<()> {
    match set_one(paths, write) {
        Err(e) if e.errno() == Some(Errno::EINVAL) => postponed.push((write, e)),
        other => other?,
    }
    Ok(())
}

fn set_one(paths: &Paths, write: &Write) -> Result<()> {
    let key = match Version::of(paths) {
        Version::V2 => "",
        Version::V1 => &*write.controller,
    };
    let Some(dir) = paths.get(key) else {
        return match write.absent {
            Absent::Ignore => Ok(()),
            _ => Err(Error::system(format!(
                "cannot set {} limit: container could not join or create cgroup",
                write.controller
            ))),
        };
    };
    check_guard(dir, write)?;
    match (write_patiently(&dir.join(&*write.file), write), &write.absent) {
        (Err(e), Absent::Ignore) if e.errno() == Some(Errno::ENOENT) => Ok(()),
        (Err(e), Absent::Instead(other)) if e.errno() == Some(Errno::ENOENT) => {
            set_one(paths, other)
        }
        (Err(e), _) => Err(explain(dir, write, e)),
        (Ok(()), _) => Ok(()),
    }
}

/// Sets a v1 memory limit. It is rejected while more is in use, which includes pages that CPUs have charged in
/// advance. v1 releases those but does not wait for the release, so the write is repeated.
fn write_patiently(path: &Path, write: &Write) -> Result<()> {
    const TRIES: u32 = 20;
    let busy = |e: &Error| write.is_memory() && e.errno() == Some(Errno::EBUSY);
    for _ in 0..TRIES {
        match file::write(path, &write.value) {
            Err(e) if busy(&e) => sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    file::write(path, &write.value)
}

/// Rejects limits below the present usage if `checkBeforeUpdate` requests it, before systemd, which does not check,
/// sets them.
///
/// # Errors
///
/// The present usage exceeds a limit.
pub fn check_usage(paths: &Paths, writes: &[Write]) -> Result<()> {
    for write in writes.iter().filter(|write| write.guard.is_some()) {
        let key = if Version::of(paths) == Version::V2 { "" } else { &*write.controller };
        if let Some(dir) = paths.get(key) {
            check_guard(dir, write)?;
        }
    }
    Ok(())
}

fn check_guard(dir: &Path, write: &Write) -> Result<()> {
    let Some(guard) = write.guard else { return Ok(()) };
    let used: u64 = guard.usage.iter().map(|name| number(dir, name)).sum();
    if guard.limit < used {
        return Err(Error::state(format!(
            "rejecting {} {} < usage {used}",
            guard.what, guard.limit
        )));
    }
    Ok(())
}

pub(super) fn number(dir: &Path, name: &str) -> u64 {
    let text = file::read(&dir.join(name)).ok().flatten();
    text.and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// Explains the rejection of this file.
fn explain(dir: &Path, write: &Write, e: Error) -> Error {
    match e.errno() {
        Some(Errno::EBUSY) if write.file == "memory.limit_in_bytes" => {
            let usage = number(dir, "memory.usage_in_bytes");
            let peak = number(dir, "memory.max_usage_in_bytes");
            e.context(format!(
                "unable to set memory limit to {} (current usage: {usage}, peak usage: {peak})",
                write.value
            ))
            .hint("the memory limit is too low for what is in use")
        }
        Some(Errno::ENOENT) => explain_absence(dir, write, e),
        _ if write.unified => {
            e.context(format!("unable to set unified resource {:?}", &*write.file))
        }
        _ => e,
    }
}

/// Returns an error other than `no such file or directory`, by which engines recognize a missing command.
fn explain_absence(dir: &Path, write: &Write, e: Error) -> Error {
    if !dir.exists() {
        return e.context("cgroup not exist");
    }
    let (controller, name) = (&*write.controller, &*write.file);
    let list = file::read(&dir.join("cgroup.controllers")).ok().flatten();
    let here = list.as_ref().is_none_or(|l| l.split_whitespace().any(|c| c == controller));
    let what = match write.unified {
        true if !here && controller != "cgroup" => {
            let text = format!(
                "unified resource {name:?} can't be set: controller {controller:?} not available"
            );
            // In crun's words, too, which its tests look for.
            return Error::system(text).hint(format!(
                "the requested cgroup controller `{controller}` is not available: \
                 {}/cgroup.controllers has: {}",
                dir.display(),
                list.unwrap_or_default().trim()
            ));
        }
        // The config names the file itself.
        true => return e.context(format!("unable to set unified resource {name:?}")),
        false if !here => {
            return Error::system(format!(
                "cannot set {controller} limit: controller {controller:?} not available in {}",
                dir.display()
            ));
        }
        false => format!("cannot set {controller} limit"),
    };
    let e = Error::system(format!("{what}: this kernel has no {name}"));
    match controller {
        "hugetlb" => e.hint("the page sizes of this kernel are in /sys/kernel/mm/hugepages"),
        "memory" if name.contains("sw") => {
            e.hint("this kernel does not account for swap: boot with swapaccount=1")
        }
        _ => e,
    }
}

/// Enables controllers in `cgroup.subtree_control`, from the mount down to the container.
mod controllers {
    use super::*;

    /// Enables every available controller, because callers read statistics of controllers that no limit needs. Mostly
    /// all are enabled already, which the kernel's list in the new cgroup shows.
    ///
    /// # Errors
    ///
    /// The kernel rejects a controller that a limit needs.
    pub fn enable(target: &Target, writes: &[Write]) -> Result<()> {
        const TRIES: u32 = 40;
        let root = list(&target.mount, "cgroup.controllers")?;
        let mut here = list(&target.dir, "cgroup.controllers")?;
        let mut refusal = None;
        for _ in 0..TRIES {
            if !root.iter().all(|c| here.contains(c)) {
                refusal = None;
                here = descend(target, root.clone(), &mut refusal)?;
            }
            let missing = writes.iter().find(|w| {
                w.needs_controller() && !w.unified && !here.iter().any(|c| *c == w.controller)
            });
            match missing {
                None => return Ok(()),
                // The controller was there a moment ago: systemd disables it when another unit beside this one ends.
                Some(_) if refusal.as_ref().and_then(Error::errno) == Some(Errno::ENOENT) => {
                    sleep(Duration::from_millis(5));
                }
                Some(write) => return Err(unavailable(target, write, &root, refusal)),
            }
        }
        let needs = writes.iter().find(|w| w.needs_controller() && !w.unified);
        needs.map_or(Ok(()), |write| Err(unavailable(target, write, &root, refusal)))
    }

    fn list(dir: &Path, name: &str) -> Result<Vec<String>> {
        let path = dir.join(name);
        match file::read(&path)? {
            Some(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
            None => Err(Error::os("open", path.display(), Errno::ENOENT)),
        }
    }

    /// Returns the controllers that are available in the container's cgroup in the end, and the last rejection.
    fn descend(
        target: &Target,
        mut available: Vec<String>,
        refusal: &mut Option<Error>,
    ) -> Result<Vec<String>> {
        let levels = target.dir.ancestors().skip(1).take_while(|d| d.starts_with(&target.mount));
        for level in levels.collect::<Vec<_>>().into_iter().rev() {
            let enabled = list(level, "cgroup.subtree_control")?;
            let missing: Vec<&str> =
                available.iter().filter(|c| !enabled.contains(c)).map(String::as_str).collect();
            if missing.is_empty() {
                available = enabled;
                continue;
            }
            let file = level.join("cgroup.subtree_control");
            match add(&file, &missing) {
                Ok(()) => {}
                // One of them fails: for example, realtime processes prevent the cpu controller.
                Err(e) if e.errno() == Some(Errno::EINVAL) && missing.len() > 1 => {
                    for controller in &missing {
                        if let Err(e) = add(&file, &[controller]) {
                            *refusal = Some(e);
                        }
                    }
                    available = list(level, "cgroup.subtree_control")?;
                }
                // Enabling fewer of them could make the level a threaded domain: leave it.
                Err(e) => {
                    *refusal = Some(e);
                    available = enabled;
                }
            }
        }
        Ok(available)
    }

    fn add(file: &Path, controllers: &[&str]) -> Result<()> {
        let value: Vec<String> = controllers.iter().map(|c| format!("+{c}")).collect();
        file::write(file, &value.join(" "))
    }

    fn unavailable(
        target: &Target,
        write: &Write,
        root: &[String],
        refusal: Option<Error>,
    ) -> Error {
        let (controller, dir) = (&write.controller, target.dir.display());
        let e = Error::system(format!(
            "cannot set {controller} limit: controller {controller:?} not available in {dir}"
        ));
        match refusal {
            _ if !root.iter().any(|c| c == controller) => e.hint(format!(
                "{}/cgroup.controllers has: {}. A controller is missing there if the kernel lacks \
                 it, cgroup_disable= names it, or a cgroup v1 hierarchy has it. Without it, take {} \
                 out of linux.resources",
                target.mount.display(),
                if root.is_empty() { "none".to_owned() } else { root.join(" ") },
                write.file
            )),
            Some(refusal) => {
                let why = match refusal.errno() {
                    Some(Errno::EBUSY) => ": that cgroup holds processes itself; move them",
                    Some(Errno::EACCES | Errno::EPERM) => ": it is not delegated to this user",
                    _ => "",
                };
                e.hint(format!("an ancestor could not enable it: {refusal}{why}"))
            }
            None => e,
        }
    }
}
