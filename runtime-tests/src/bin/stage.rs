//! `stage STAGE [ARGUMENT] ... -- COMMAND [ARGUMENT] ...`: prepares the environment of a command and becomes it.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};

const USAGE: &str = "stage STAGE ... -- COMMAND ...
  v2               Enter a mount namespace with cgroup2 alone on /sys/fs/cgroup
  cgroup-ro        Enter a mount namespace with read-only cgroup hierarchies
  ro PATH          Enter a mount namespace with PATH read-only
  full PATH        Enter a mount namespace with a full file system at PATH
  mounts           Enter a new mount namespace
  network SCRIPT   Enter a new network namespace and run the shell script in it
  cgroup DIR       Enter this cgroup
  user UID         Become this user, with the group of the same number alone
  without CALLS    Make these system calls, separated by commas, fail with ENOSYS
  marked           Set what a child could inherit: keys, timers, a signal mask, ...
  terminal         Make standard input the controlling terminal of a new session
  subreaper FILE   Reap orphans of the command, and write a line `PID STATUS` for each to FILE";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stage: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = std::env::args_os().skip_while(|word| word != "--").nth(1);
    let (mut record, mut opened) = (None, None);
    loop {
        let word = words.next().context(USAGE)?;
        let mut argument = || words.next().context(USAGE);
        match word.to_str() {
            Some("v2") => view_v2()?,
            Some("cgroup-ro") => read_only_cgroups()?,
            Some("ro") => read_only(&argument()?)?,
            Some("full") => full(&argument()?)?,
            Some("mounts") => private_mounts()?,
            Some("network") => network(&argument()?)?,
            Some("cgroup") => enter_cgroup(&argument()?)?,
            Some("user") => {
                opened = open(program.as_ref());
                become_user(&argument()?)?;
            }
            Some("without") => without(&argument()?)?,
            Some("marked") => marked()?,
            Some("terminal") => controlling_terminal()?,
            Some("subreaper") => record = Some(argument()?),
            Some("--help") => bail!(USAGE),
            Some("--") => break,
            _ => bail!("no stage {}\n{USAGE}", word.display()),
        }
    }
    let name = words.next().context(USAGE)?;
    let mut command = match &opened {
        Some(file) => Command::new(format!("/proc/self/fd/{}", file.as_raw_fd())),
        None => Command::new(&name),
    };
    command.arg0(&name).args(words);
    match record {
        None => Err(command.exec()).with_context(|| format!("exec {command:?}")),
        Some(file) => reap(&mut command, &file),
    }
}

/// Opens the program while its path is accessible: a repository below /root is closed to other users. execvp(3) looks
/// up a name without a slash in PATH instead.
fn open(program: Option<&OsString>) -> Option<fs::File> {
    let path = Path::new(program?);
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH);
    path.is_absolute().then(|| options.open(path).ok()).flatten()
}

fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mount")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("make / a slave")
}

fn view_v2() -> Result<()> {
    private_mounts()?;
    let options = runtime_tests::host::cgroup2_options();
    let kind = Some("cgroup2");
    mount(Some("none"), "/sys/fs/cgroup", kind, MsFlags::empty(), Some(options.as_str()))
        .context("mount cgroup2")
}

fn read_only_cgroups() -> Result<()> {
    private_mounts()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let cgroups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    for target in cgroups.filter_map(|line| line.split(' ').nth(4)) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        match mount(None::<&str>, target, None::<&str>, flags, None::<&str>) {
            // These two errors come from mounts that the v2 view covers.
            Ok(()) | Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINVAL) => {}
            Err(errno) => return Err(errno).with_context(|| format!("remount {target}")),
        }
    }
    Ok(())
}

fn read_only(path: &OsString) -> Result<()> {
    private_mounts()?;
    let path = path.as_os_str();
    mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind")?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).context("remount")
}

/// Mounts a file system with room for directories, and for no byte.
fn full(path: &OsString) -> Result<()> {
    private_mounts()?;
    let flags = MsFlags::empty();
    mount(Some("full"), path.as_os_str(), Some("tmpfs"), flags, Some("size=4k,mode=755"))
        .context("mount tmpfs")?;
    let mut filler = fs::File::create(Path::new(path).join(".filler"))?;
    while filler.write_all(&[0; 4096]).is_ok() {}
    Ok(())
}

fn network(script: &OsString) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare network")?;
    let status = Command::new("/bin/sh").arg("-ec").arg(script).status().context("/bin/sh")?;
    if !status.success() {
        bail!("{}: {status}", script.display());
    }
    Ok(())
}

fn enter_cgroup(dir: &OsString) -> Result<()> {
    let procs = Path::new(dir).join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("enter {}", procs.display()))
}

fn become_user(uid: &OsString) -> Result<()> {
    let uid: u32 = uid.to_str().context(USAGE)?.parse()?;
    nix::unistd::setgroups(&[]).context("setgroups")?;
    nix::unistd::setgid(uid.into()).context("setgid")?;
    nix::unistd::setuid(uid.into()).context("setuid")
}

/// Makes system calls answer ENOSYS by a seccomp filter, which programs inherit across execve.
fn without(calls: &OsString) -> Result<()> {
    const KNOWN: [(&str, libc::c_long); 13] = [
        ("clone3", libc::SYS_clone3),
        ("close_range", libc::SYS_close_range),
        ("faccessat2", libc::SYS_faccessat2),
        ("fsmount", libc::SYS_fsmount),
        ("fsopen", libc::SYS_fsopen),
        ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset),
        ("memfd_create", libc::SYS_memfd_create),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("move_mount", libc::SYS_move_mount),
        ("open_tree", libc::SYS_open_tree),
        ("openat2", libc::SYS_openat2),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("statx", libc::SYS_statx),
    ];
    let calls = calls.to_str().context("names of system calls")?;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, answer) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    let mut program = vec![instruction(load, 0, 0, 0)];
    for name in calls.split(',').filter(|name| !name.is_empty()) {
        let known = KNOWN.iter().find(|(known, _)| *known == name);
        let number = known.with_context(|| format!("no system call {name}"))?.1;
        program.push(instruction(equal, 0, 1, number as u32));
        program.push(instruction(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    program.push(instruction(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program has the given length, outlives the call, and is only read.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }
    {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).context("PR_SET_SECCOMP"),
    }
}

/// Sets what a caller may have and its container's programs must not inherit.
fn marked() -> Result<()> {
    const JOIN_SESSION: libc::c_long = 1;
    const SESSION: libc::c_long = -3;
    const PROCESS: libc::c_long = -2;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let (kind, name) = (c"user".as_ptr(), c"aril-test-key".as_ptr());
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 600, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 600, tv_usec: 0 },
    };
    // SAFETY: strings end in NUL, the secret has the given length of one byte, and the timer and the signal set
    // outlive their calls.
    unsafe {
        for ring in [SESSION, PROCESS] {
            if ring == SESSION {
                libc::syscall(libc::SYS_keyctl, JOIN_SESSION, c"aril-test-session".as_ptr());
            }
            libc::syscall(libc::SYS_add_key, kind, name, c"s".as_ptr(), 1_usize, ring);
        }
        for which in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
            libc::setitimer(which as _, &timer, std::ptr::null_mut());
        }
        for signal in [libc::SIGUSR1, libc::SIGCHLD, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
    for number in [5, 7, 9] {
        // SAFETY: the path ends in NUL; the descriptors must stay open across execve.
        unsafe { libc::dup2(libc::open(c"/".as_ptr(), libc::O_RDONLY), number) };
    }
    Ok(())
}

fn controlling_terminal() -> Result<()> {
    nix::unistd::setsid().context("setsid")?;
    // SAFETY: TIOCSCTTY takes an int, no pointer.
    match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).context("TIOCSCTTY"),
    }
}

/// Runs the command as a child and waits until its last descendant is gone.
fn reap(command: &mut Command, file: &OsString) -> Result<ExitCode> {
    nix::sys::prctl::set_child_subreaper(true).context("become subreaper")?;
    let child = command.spawn().context("spawn")?.id().cast_signed();
    let mut code = 125;
    let mut lines = String::new();
    loop {
        let (pid, status) = match wait() {
            Ok(WaitStatus::Exited(pid, status)) => (pid.as_raw(), status),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
            Ok(_) => continue,
            Err(nix::errno::Errno::ECHILD) => break,
            Err(errno) => return Err(errno).context("wait"),
        };
        if pid == child {
            code = status;
        } else {
            lines += &format!("{pid} {status}\n");
        }
    }
    fs::write(file, lines).context("write the record")?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}
