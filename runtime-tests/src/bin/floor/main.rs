//! The floor: the system calls that any runtime needs to run `/bin/true` with the default spec of `runc spec` on
//! cgroup v2, in a straight line and nothing else. It reads no configuration, keeps no state and checks nothing, so a
//! runtime's time divided by the floor's is the cost of the runtime itself.
//!
//! `floor ROOTFS` runs one container; `floor --steps COUNT ROOTFS` runs many in one process and
//! prints the median microseconds of each step.

mod kernel;

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernel::Insn;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mkdirat, mknodat, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{self, Pid};

type Step = fn(&str) -> nix::Result<()>;

/// Steps of the child, in order.
const STEPS: [(&str, Step); 22] = [
    ("cgroup namespace", |_| unshare(CloneFlags::CLONE_NEWCGROUP)),
    ("loopback up", |_| kernel::loopback_up()),
    ("hostname", |_| kernel::set_hostname(c"runc")),
    ("propagation", |_| remount("/", MsFlags::MS_REC | MsFlags::MS_SLAVE)),
    ("bind rootfs", bind_rootfs),
    ("proc", |_| new_mount("proc", "proc", MsFlags::empty(), None)),
    ("dev tmpfs", |_| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME;
        new_mount("tmpfs", "dev", flags, Some("mode=755,size=65536k"))
    }),
    ("dev directories", dev_directories),
    ("devpts", |_| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let data = "newinstance,ptmxmode=0666,mode=0620,gid=5";
        new_mount("devpts", "dev/pts", flags, Some(data))
    }),
    ("shm", |_| new_mount("tmpfs", "dev/shm", INERT, Some("mode=1777,size=65536k"))),
    ("mqueue", |_| new_mount("mqueue", "dev/mqueue", INERT, None)),
    ("sysfs", |_| new_mount("sysfs", "sys", INERT.union(MsFlags::MS_RDONLY), None)),
    ("cgroup2", |_| new_mount("cgroup2", "sys/fs/cgroup", INERT.union(MsFlags::MS_RDONLY), None)),
    ("device nodes", device_nodes),
    ("dev links", dev_links),
    ("pivot_root", |_| unistd::pivot_root(".", ".")),
    ("drop old root", drop_old_root),
    ("read-only paths", read_only_paths),
    ("masked paths", masked_paths),
    ("read-only root", |_| {
        remount("/", MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)
    }),
    ("limits and capabilities", identity),
    ("descriptors", |_| kernel::close_on_exec_from(3)),
];

const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
/// CAP_KILL, CAP_NET_BIND_SERVICE and CAP_AUDIT_WRITE, of the 41 capabilities of Linux 5.9 and later.
const CAPABILITIES: u32 = 1 << 5 | 1 << 10 | 1 << 29;
const LAST_CAPABILITY: u32 = 40;

fn new_mount(kind: &str, target: &str, flags: MsFlags, data: Option<&str>) -> nix::Result<()> {
    mount(Some(kind), target, Some(kind), flags, data)
}

fn remount(target: &str, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
}

fn bind(source: &str, target: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
}

fn bind_rootfs(rootfs: &str) -> nix::Result<()> {
    bind(rootfs, rootfs)?;
    unistd::chdir(rootfs)
}

fn open_path(path: &str) -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

fn dev_directories(_: &str) -> nix::Result<()> {
    umask(Mode::empty());
    ["dev/pts", "dev/shm", "dev/mqueue"]
        .iter()
        .try_for_each(|path| mkdirat(AT_FDCWD, *path, Mode::from_bits_truncate(0o755)))
}

fn device_nodes(_: &str) -> nix::Result<()> {
    let dev = open_path("dev")?;
    DEVICES.iter().try_for_each(|&(name, major, minor)| {
        let mode = Mode::from_bits_truncate(0o666);
        mknodat(&dev, name, SFlag::S_IFCHR, mode, makedev(major, minor))
    })
}

fn dev_links(_: &str) -> nix::Result<()> {
    let dev = open_path("dev")?;
    LINKS.iter().try_for_each(|(to, name)| unistd::symlinkat(*to, &dev, *name))
}

fn drop_old_root(_: &str) -> nix::Result<()> {
    umount2(".", MntFlags::MNT_DETACH)?;
    unistd::chdir("/")
}

/// Ignores ENOENT: a file that the kernel does not have needs no protection.
fn if_present(result: nix::Result<()>) -> nix::Result<()> {
    if result == Err(Errno::ENOENT) { Ok(()) } else { result }
}

fn read_only_paths(_: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    READ_ONLY
        .iter()
        .try_for_each(|path| if_present(bind(path, path).and_then(|()| remount(path, flags))))
}

/// Masks directories with one read-only tmpfs, and files with /dev/null.
fn masked_paths(_: &str) -> nix::Result<()> {
    let empty = kernel::empty_tmpfs()?;
    let null = open_path("/dev/null")?;
    MASKED.iter().try_for_each(|path| if_present(mask(path, empty.as_fd(), null.as_fd())))
}

fn mask(path: &str, empty: BorrowedFd, null: BorrowedFd) -> nix::Result<()> {
    let target = open_path(path)?;
    let is_dir = fstat(&target)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let cover = kernel::clone_mount(if is_dir { empty } else { null }, c"")?;
    kernel::attach_mount(cover.as_fd(), target.as_fd())
}

fn identity(_: &str) -> nix::Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1024)?;
    (0..=LAST_CAPABILITY)
        .filter(|&capability| capability > 31 || CAPABILITIES >> capability & 1 == 0)
        .try_for_each(|capability| kernel::drop_from_bounding_set(capability.into()))?;
    unistd::setgroups(&[])?;
    unistd::setresgid(0.into(), 0.into(), 0.into())?;
    unistd::setresuid(0.into(), 0.into(), 0.into())?;
    kernel::set_capabilities(CAPABILITIES)?;
    kernel::no_new_privileges()
}

/// Program that allows mknod of any node, and mknod, reading and writing of the default devices; nothing else.
fn device_filter() -> Vec<Insn> {
    const LOAD: u8 = 0x61;
    const AND: u8 = 0x57;
    const SHIFT: u8 = 0x77;
    const IF_EQUAL: u8 = 0x15;
    const IF_NOT: u8 = 0x55;
    const SET: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    const ANY: i32 = -1;
    let answer = |allow| [Insn::new(SET, 0, 0, 0, allow), Insn::new(EXIT, 0, 0, 0, 0)];
    // r1: the context; r2: type, r3: access, r4: major, r5: minor.
    let mut program = vec![
        Insn::new(LOAD, 2, 1, 0, 0),
        Insn::new(LOAD, 3, 1, 0, 0),
        Insn::new(AND, 2, 0, 0, 0xffff),
        Insn::new(SHIFT, 3, 0, 0, 16),
        Insn::new(LOAD, 4, 1, 4, 0),
        Insn::new(LOAD, 5, 1, 8, 0),
        Insn::new(IF_NOT, 3, 0, 2, 1),
    ];
    program.extend(answer(1));
    program.push(Insn::new(IF_EQUAL, 2, 0, 2, 2));
    program.extend(answer(0));
    let known = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, ANY)];
    for (major, minor) in known {
        let minors = if minor == ANY { 0 } else { 1 };
        program.push(Insn::new(IF_NOT, 4, 0, 2 + minors, major));
        if minor != ANY {
            program.push(Insn::new(IF_NOT, 5, 0, 2, minor));
        }
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

/// Times of the steps, for `--steps`: the parent's, and the child's in shared memory.
struct Clock {
    origin: Instant,
    parent: Vec<(&'static str, u64)>,
    child: &'static [AtomicU64],
}

impl Clock {
    fn new(child: &'static [AtomicU64]) -> Clock {
        Clock { origin: Instant::now(), parent: Vec::with_capacity(8), child }
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn mark(&mut self, step: &'static str) {
        if !self.child.is_empty() {
            self.parent.push((step, self.now()));
        }
    }

    fn mark_child(&self, index: usize) {
        if let Some(cell) = self.child.get(index) {
            cell.store(self.now(), Ordering::Relaxed);
        }
    }
}

fn fail(what: &str, errno: Errno) -> ! {
    eprintln!("floor: {what}: {errno}");
    exit(1)
}

fn done<T>(what: &str, result: nix::Result<T>) -> T {
    result.unwrap_or_else(|errno| fail(what, errno))
}

fn child(rootfs: &str, clock: &Clock) -> ! {
    clock.mark_child(0);
    for (index, (name, step)) in STEPS.iter().enumerate() {
        done(name, step(rootfs));
        clock.mark_child(index + 1);
    }
    let env: [&CStr; 2] =
        [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", c"TERM=xterm"];
    let Err(errno) = unistd::execve(c"/bin/true", &[c"/bin/true"], &env);
    fail("exec /bin/true", errno)
}

fn container(rootfs: &str, clock: &mut Clock) {
    let path = format!("/sys/fs/cgroup/floor-{}", std::process::id());
    done("mkdir cgroup", unistd::mkdir(path.as_str(), Mode::from_bits_truncate(0o755)));
    clock.mark("mkdir cgroup");
    let cgroup = done("open cgroup", open_path(&path));
    let filter = done("load device filter", kernel::device_filter(&device_filter()));
    clock.mark("load device filter");
    done("attach device filter", kernel::attach_device_filter(cgroup.as_fd(), filter.as_fd()));
    clock.mark("attach device filter");
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNS;
    let pid = done("clone3", kernel::clone_into(namespaces, cgroup.as_fd()));
    if pid == 0 {
        child(rootfs, clock);
    }
    clock.mark("clone3");
    let status = done("wait", waitpid(Pid::from_raw(pid), None));
    clock.mark("child");
    done(
        "rmdir cgroup",
        fs::remove_dir(&path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0))),
    );
    clock.mark("rmdir cgroup");
    if !matches!(status, WaitStatus::Exited(_, 0)) {
        eprintln!("floor: the container's process ended with {status:?}");
        exit(1);
    }
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2] as f64 / 1e3
}

/// Runs `count` containers and prints each step's median.
fn steps(count: usize, gap: Duration, rootfs: &str) {
    let cells = done("mmap", kernel::shared_cells(STEPS.len() + 1));
    let mut taken: Vec<(&str, Vec<u64>)> = Vec::new();
    let mut note = |index: usize, name: &'static str, ns: u64| {
        if taken.len() == index {
            taken.push((name, Vec::with_capacity(count)));
        }
        taken[index].1.push(ns);
    };
    for _ in 0..count {
        std::thread::sleep(gap);
        let mut clock = Clock::new(cells);
        container(rootfs, &mut clock);
        let cell = |index: usize| cells[index].load(Ordering::Relaxed);
        let mut row = 0;
        let mut last = 0;
        for &(name, at) in &clock.parent {
            if name == "child" {
                for (index, (step, _)) in STEPS.iter().enumerate() {
                    note(row, step, cell(index + 1) - cell(index));
                    row += 1;
                }
                note(row, "exec, true, exit, teardown", at - cell(STEPS.len()));
            } else {
                note(row, name, at - last);
            }
            row += 1;
            last = at;
        }
        note(row, "all", last);
    }
    for (name, values) in taken {
        println!("{name:26} {:8.1}", median(values));
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [rootfs] => container(rootfs, &mut Clock::new(&[])),
        ["--steps", count, rootfs] => steps(count.parse().unwrap_or(100), Duration::ZERO, rootfs),
        ["--steps", count, "--rested", rootfs] => {
            steps(count.parse().unwrap_or(100), Duration::from_millis(100), rootfs)
        }
        _ => {
            eprintln!("usage: floor [--steps COUNT [--rested]] ROOTFS");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
