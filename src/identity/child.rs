//! Sets the identity of the calling process, in the container's root.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::unistd::{chdir, fchdir};

use super::{Keyring, Names, Step};
use crate::error::fault::{Attempt, ChildResult, Fault};
use crate::error::text;
use crate::fs::{Proc, Root};
use crate::path;
use crate::sys::Errno;
use crate::sys::process::{self, CapabilitySets};

/// Data that all steps share.
pub struct Context<'a> {
    pub proc: &'a Proc,
    /// Root of the container, which is the root of this process.
    pub root: &'a Root,
    /// True if the first attempt to enter the working directory failed for lack of permission.
    pub cwd_pending: bool,
}

impl<'a> Context<'a> {
    pub fn new(proc: &'a Proc, root: &'a Root) -> Self {
        Self { proc, root, cwd_pending: false }
    }
}

/// Runs one step.
///
/// # Errors
///
/// The kernel rejects a system call of the step, or the working directory is outside of the container.
pub fn run(step: &Step, context: &mut Context) -> ChildResult<()> {
    match step {
        Step::SessionKeyring(keyring) => join_keyring(keyring, context.proc),
        Step::MakeCwd(path) => make_cwd(context.root, path),
        Step::EnterCwd(path) => {
            context.cwd_pending = !enter_cwd(context.root, path)?;
            Ok(())
        }
        Step::Umask(mask) => {
            process::umask(*mask);
            Ok(())
        }
        Step::AppArmor { command } => set_apparmor(context.proc, command),
        Step::SelinuxLabel(label) => {
            context.proc.write(c"self/attr/exec", label.as_bytes()).during("write attr/exec")
        }
        Step::NoNewPrivileges => {
            process::set_no_new_privileges().during("prctl PR_SET_NO_NEW_PRIVS")
        }
        Step::Bounding { keep } => drop_bounding(*keep),
        Step::KeepCapabilities => {
            process::set_keep_capabilities(true).during("prctl PR_SET_KEEPCAPS")
        }
        Step::StdioOwner { uid, gid } => change_stdio_owner(*uid, *gid),
        Step::Groups(gids) => process::set_groups(gids).during("setgroups"),
        Step::Gid(gid) => unmapped(process::set_gid(*gid), "setgid", "gid", *gid),
        Step::Uid(uid) => unmapped(process::set_uid(*uid), "setuid", "uid", *uid),
        Step::CheckCwd { path } => check_cwd(path, context.cwd_pending),
        Step::Capabilities(sets) => set_capabilities(sets),
        Step::ReducedCapabilities(sets) => process::capset(sets).during("capset"),
        Step::Ambient(mask) => {
            set_ambient(*mask);
            Ok(())
        }
    }
}

/// Sets the AppArmor profile of the next execve. `attr/exec`, for older kernels, belongs to the first security module.
fn set_apparmor(proc: &Proc, command: &str) -> ChildResult<()> {
    match proc.write(c"self/attr/apparmor/exec", command.as_bytes()) {
        Err(Errno::ENOENT) => proc.write(c"self/attr/exec", command.as_bytes()),
        other => other,
    }
    .during("apparmor failed to apply profile: write attr/apparmor/exec")
}

fn join_keyring(keyring: &Keyring, proc: &Proc) -> ChildResult<()> {
    const ATTRIBUTE: &CStr = c"self/attr/keycreate";
    if let Some(label) = &keyring.label {
        proc.write(ATTRIBUTE, label.as_bytes()).during("write attr/keycreate")?;
    }
    let joined = process::join_session_keyring(&keyring.name);
    if keyring.label.is_some() {
        proc.write(ATTRIBUTE, b"").during("write attr/keycreate")?;
    }
    match (joined, keyring.permissions) {
        // The kernel has no keyrings.
        (Err(Errno::ENOSYS), _) => Ok(()),
        (Err(errno), _) => Err(errno).during("keyctl join session keyring"),
        (Ok(_), None) => Ok(()),
        (Ok(serial), Some(more)) => {
            let now = key_permissions(serial).during("keyctl describe")?;
            process::set_key_permissions(serial, now | more).during("keyctl setperm")
        }
    }
}

fn key_permissions(serial: i32) -> Result<u32, Errno> {
    // The name contains a container ID of up to 255 bytes.
    let mut buffer = [0; 512];
    let description = process::describe_key(serial, &mut buffer)?;
    let field = description.split(|byte| *byte == b';').nth(3);
    field
        .and_then(|hex| str::from_utf8(hex).ok())
        .and_then(|hex| u32::from_str_radix(hex, 16).ok())
        .ok_or(Errno::EINVAL)
}

/// Enters the working directory. Returns false if permission is denied, so that it is tried again as the user.
fn enter_cwd(root: &Root, path: &CStr) -> ChildResult<bool> {
    match open_cwd(root, path).and_then(fchdir) {
        Ok(()) => Ok(true),
        Err(Errno::EACCES | Errno::EPERM) => Ok(false),
        Err(errno) => Err(cwd_fault(path, errno)),
    }
}

fn cwd_fault(path: &CStr, errno: Errno) -> Fault {
    let path = path.to_string_lossy();
    let why = text::errno(errno);
    Fault::refused(format!("chdir to cwd ({path:?}) set in config.json failed: {why}"))
}

/// Opens the working directory. `Root` follows no magic link: `/proc/self/fd/N` would lead out of the container
/// (CVE-2024-21626).
fn open_cwd(root: &Root, path: &CStr) -> Result<OwnedFd, Errno> {
    let open = |path: &CStr| root.open(path, libc::O_PATH | libc::O_DIRECTORY);
    match open(path) {
        // A part of the path before `..` may be missing, as in `/new/../tmp`.
        Err(Errno::ENOENT) => open(&clean(path)?),
        other => other,
    }
}

/// Creates the working directory if it is missing. [`enter_cwd`] reports other problems.
fn make_cwd(root: &Root, path: &CStr) -> ChildResult<()> {
    if !matches!(open_cwd(root, path), Err(Errno::ENOENT)) {
        return Ok(());
    }
    let made = clean(path).and_then(|path| root.mkdir_all(&path, 0o755));
    made.map(drop).during("mkdir")
}

/// Cleans a path as [`path::clean`] does.
fn clean(path: &CStr) -> Result<CString, Errno> {
    let path = path::clean(Path::new(OsStr::from_bytes(path.to_bytes())));
    CString::new(path.into_os_string().into_vec()).map_err(|_| Errno::EINVAL)
}

/// Enters the working directory if the first attempt failed, and checks that it is in the container.
fn check_cwd(path: &CStr, pending: bool) -> ChildResult<()> {
    if pending {
        chdir(path).map_err(|errno| cwd_fault(path, errno))?;
    }
    let mut buffer = [0; libc::PATH_MAX as usize];
    match process::getcwd(&mut buffer) {
        Ok(cwd) if cwd.starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Fault::refused(
            "current working directory is outside of container mount namespace root -- possible \
             container breakout detected",
        )),
        Err(errno) => {
            Err(errno).during("failed to verify if current working directory is safe: getcwd")
        }
    }
}

fn drop_bounding(keep: u64) -> ChildResult<()> {
    for capability in 0..u64::BITS as u8 {
        if keep & 1 << capability == 0 {
            match process::drop_bounding(capability) {
                // The kernel has no more capabilities.
                Err(Errno::EINVAL) => break,
                other => other.during("prctl PR_CAPBSET_DROP")?,
            }
        }
    }
    Ok(())
}

/// Changes the owner of stdio, so that the user can open `/dev/stdout`. Files whose owner cannot be changed are left as
/// they are.
fn change_stdio_owner(uid: u32, gid: u32) -> ChildResult<()> {
    let null = libc::makedev(1, 3);
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        match process::change_owner(fd, uid, gid, null) {
            Ok(()) | Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL | Errno::EBADF) => {}
            Err(errno) => return Err(errno).during("fchown stdio"),
        }
    }
    Ok(())
}

fn unmapped(
    set: Result<(), Errno>,
    call: &'static str,
    kind: &'static str,
    id: u32,
) -> ChildResult<()> {
    match set {
        Err(Errno::EINVAL) => {
            Err(Fault::refused(format!("cannot {call} to unmapped {kind} {id} in user namespace")))
        }
        other => other.during(call),
    }
}

/// Sets the capabilities. Those that the kernel does not know are ignored.
fn set_capabilities(sets: &CapabilitySets) -> ChildResult<()> {
    process::set_keep_capabilities(false).during("prctl PR_SET_KEEPCAPS")?;
    process::capset(sets).map_err(|errno| {
        let held = process::capget().map_or(u64::MAX, |own| own.permitted);
        let missing = (sets.permitted | sets.inheritable) & !held;
        let call = match missing {
            0 => "capset".into(),
            _ => format!("capset: the runtime itself lacks {}", Names(missing)).into(),
        };
        Fault { call, errno }
    })
}

/// Sets the ambient capabilities. If the kernel rejects one it is left out, which takes privileges away and adds none.
fn set_ambient(mask: u64) {
    let _ = process::clear_ambient();
    for capability in (0..u64::BITS as u8).filter(|bit| mask & 1 << bit != 0) {
        let _ = process::raise_ambient(capability);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::sys::pidfd::Ended;
    use crate::sys::spawn::in_child;

    fn replay(steps: &[Step]) -> ChildResult<()> {
        let (proc, root) =
            (Proc::of_the_host().unwrap(), Root::new(File::open("/").unwrap().into()));
        let mut context = Context::new(&proc, &root);
        steps.iter().try_for_each(|step| run(step, &mut context))
    }

    fn as_root(body: impl FnOnce()) {
        if nix::unistd::geteuid().is_root() {
            assert_eq!(in_child(body), Ended::Exited(0));
        }
    }

    fn status(field: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_user_keeps_the_capabilities_it_is_given() {
        const KILL: u64 = 1 << 5;
        const CHOWN: u64 = 1;
        let sets = CapabilitySets { effective: KILL, permitted: KILL | CHOWN, inheritable: KILL };
        as_root(move || {
            replay(&[
                Step::Umask(0o027),
                Step::NoNewPrivileges,
                Step::Bounding { keep: KILL | CHOWN },
                Step::KeepCapabilities,
                Step::Groups(vec![7, 9]),
                Step::Gid(1001),
                Step::Uid(1000),
                Step::CheckCwd { path: c"/".into() },
                Step::Capabilities(sets),
                Step::Ambient(KILL),
            ])
            .unwrap();
            for (field, value) in [
                ("Uid", "1000 1000 1000 1000"),
                ("Gid", "1001 1001 1001 1001"),
                ("Groups", "7 9"),
                ("CapBnd", "0000000000000021"),
                ("CapEff", "0000000000000020"),
                ("CapPrm", "0000000000000021"),
                ("CapInh", "0000000000000020"),
                ("CapAmb", "0000000000000020"),
                ("NoNewPrivs", "1"),
                ("Umask", "0027"),
            ] {
                assert_eq!(status(field), value, "{field}");
            }
        });
    }

    #[test]
    fn missing_capabilities_are_named() {
        const KILL: u64 = 1 << 5;
        let none = Step::Capabilities(CapabilitySets::default());
        let kill = CapabilitySets { permitted: KILL, ..CapabilitySets::default() };
        as_root(move || {
            let fault = replay(&[none, Step::Capabilities(kill)]).unwrap_err();
            assert_eq!(fault.call, "capset: the runtime itself lacks CAP_KILL");
            assert_eq!(fault.errno, Errno::EPERM);
        });
    }

    #[test]
    fn the_cwd_is_made_and_may_be_closed_to_root() {
        let top = std::env::temp_dir().join(format!("aril-cwd-{}", std::process::id()));
        let path = top.join("a//b/../c");
        let c_path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let enter = Step::EnterCwd(c_path.clone());
        let message = replay(std::slice::from_ref(&enter)).unwrap_err().call;
        let expected =
            format!("chdir to cwd ({path:?}) set in config.json failed: no such file or directory");
        assert_eq!(message, expected);
        let make = Step::MakeCwd(c_path.clone());
        as_root(move || replay(&[make, enter, Step::CheckCwd { path: c_path }]).unwrap());
        let made = top.join("a/c").is_dir();
        let _ = std::fs::remove_dir_all(&top);
        assert!(made || !nix::unistd::geteuid().is_root());
    }

    #[test]
    fn a_magic_link_is_no_cwd() {
        let dir = File::open("/").unwrap();
        let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let path = CString::new(link.as_str()).unwrap();
        let steps = [Step::MakeCwd(path.clone()), Step::EnterCwd(path)];
        let message = replay(&steps).unwrap_err().call;
        assert!(message.ends_with("too many levels of symbolic links"), "{message}");
    }

    #[test]
    fn a_cwd_outside_of_the_root_is_refused() {
        as_root(|| {
            chdir(c"/usr").unwrap();
            nix::unistd::chroot("/etc").unwrap();
            let fault = check_cwd(c"/", false).unwrap_err();
            assert!(fault.call.contains("possible container breakout detected"));
        });
    }

    #[test]
    fn the_keyring_is_named_and_searchable() {
        let keyring = |permissions| {
            let name = CString::new(format!("_ses.test-{}", std::process::id())).unwrap();
            Step::SessionKeyring(Keyring { name, permissions, label: None })
        };
        as_root(move || {
            // The kernel may have no keyrings, or deny access to them.
            if replay(&[keyring(Some(0x0008_0000))]).is_ok()
                && let Ok(serial) = process::join_session_keyring(c"_ses.probe")
            {
                assert!(key_permissions(serial).is_ok());
            }
        });
    }
}
