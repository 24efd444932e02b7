//! Probe of the observer: runs in a container and prints everything that it can see, one sorted line per fact.
//! `docs/observer.md` describes the lines and their comparison.
//!
//! Values that differ between two containers of one bundle by nature (inode numbers, device numbers of anonymous file
//! systems, pids of the host) are replaced by the property that matters.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Namespaces of the host, one line `KIND LINK` each. The test writes the file.
const HOST_NAMESPACES: &str = "/etc/host-namespaces";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, socket, message] = args.as_slice()
        && flag == "--notify"
    {
        return notify(socket, message);
    }
    if let [_, flag] = args.as_slice()
        && flag == "--steal"
    {
        return steal();
    }
    if let [_, flag, mode, number, first] = args.as_slice()
        && flag == "--call"
    {
        return call(mode, number, first);
    }
    let mut facts = Facts::default();
    for look in [
        process,
        identity,
        status,
        limits,
        namespaces,
        mounts,
        cgroup,
        root,
        devices,
        environment,
        descriptors,
        sysctls,
        signals,
        scheduling,
        guarded,
        terminal,
        network,
        keyring,
        timers,
        calls,
    ] {
        look(&mut facts);
    }
    for line in facts.0 {
        println!("{line}");
    }
}

/// Sends a service's readiness message, which busybox cannot. A socket name that begins with @ is abstract.
fn notify(socket: &str, message: &str) {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let sender = UnixDatagram::unbound().expect("a socket");
    match socket.strip_prefix('@') {
        Some(name) => {
            let address = SocketAddr::from_abstract_name(name).expect("a name");
            sender.send_to_addr(message.as_bytes(), &address).expect("sent")
        }
        None => sender.send_to(message.as_bytes(), socket).expect("sent"),
    };
}

/// Waits for a process that runs another program than this one, holds that program open until the process is gone,
/// and tries in every way to write to it (CVE-2019-5736).
fn steal() {
    let own = fs::metadata("/proc/self/exe").expect("own program");
    println!("waiting");
    let (pid, program) = loop {
        let caught = processes().find_map(|pid| {
            let program = fs::File::open(format!("/proc/{pid}/exe")).ok()?;
            let of = program.metadata().ok()?;
            ((of.dev(), of.ino()) != (own.dev(), own.ino())).then_some((pid, program))
        });
        if let Some(caught) = caught {
            break caught;
        }
    };
    let held = program.as_raw_fd();
    let way = format!("/proc/self/fd/{held}");
    let busy = format!("refused with errno {}", libc::ETXTBSY);
    // While a process executes the program, also on the host, it cannot be written anyway.
    while Path::new(&format!("/proc/{pid}/exe")).exists() || sabotage(&way) == busy {
        std::thread::yield_now();
    }
    println!("write: {}", sabotage(&way));
    println!("remount: {}, {}", make_writable(held), sabotage(&way));
    let clone = libc::AT_EMPTY_PATH as u32 | libc::OPEN_TREE_CLONE;
    // SAFETY: the empty path ends in NUL.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, held, c"".as_ptr(), clone) } as i32;
    let tree_way = format!("/proc/self/fd/{tree}");
    println!(
        "clone: {}, {}, {}",
        answer(tree.min(0).into()),
        make_writable(tree),
        sabotage(&tree_way)
    );
    let from = std::ffi::CString::new(way).expect("no NUL");
    let _ = fs::write("/mnt/target", "");
    for flags in [libc::MS_BIND, libc::MS_BIND | libc::MS_REMOUNT] {
        // SAFETY: both paths end in NUL; the other pointers may be null.
        let done = unsafe {
            libc::mount(
                from.as_ptr(),
                c"/mnt/target".as_ptr(),
                std::ptr::null(),
                flags,
                std::ptr::null(),
            )
        };
        println!("bind: {}", answer(done.into()));
        if done != 0 {
            break;
        }
        println!("bound: {}", sabotage("/mnt/target"));
    }
    println!("tried");
}

fn processes() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let names = fs::read_dir("/proc").expect("proc").flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(move |pid| *pid != own)
}

fn sabotage(path: &str) -> String {
    use std::os::unix::fs::FileExt as _;
    match fs::OpenOptions::new().write(true).open(path) {
        Ok(file) => format!("opened for writing, {:?}", file.write_at(b"stolen", 0)),
        Err(e) => refusal(&e),
    }
}

/// Clears the read-only attribute of the mount of the descriptor.
fn make_writable(fd: i32) -> String {
    let clear: [u64; 4] = [0, 1, 0, 0];
    // SAFETY: a `struct mount_attr` of four words, which outlives the call; the path ends in NUL.
    let done = unsafe {
        let (path, size) = (c"".as_ptr(), size_of_val(&clear));
        libc::syscall(libc::SYS_mount_setattr, fd, path, libc::AT_EMPTY_PATH, &clear, size)
    };
    answer(done)
}

/// Makes a system call with one argument in an ABI of the processor and prints the result.
fn call(mode: &str, number: &str, first: &str) {
    let number: i64 = number.parse().expect("a number");
    let first: i64 = first.parse().expect("an argument");
    let result = match mode {
        "native" => kernel(number, first),
        #[cfg(target_arch = "x86_64")]
        "x32" => kernel(number | 0x4000_0000, first),
        #[cfg(target_arch = "x86_64")]
        "i386" => interrupt(number, first),
        other => panic!("no mode {other}"),
    };
    println!("{result}");
}

/// Makes a system call in the ABI that this program was built for.
fn kernel(number: i64, first: i64) -> i64 {
    // SAFETY: the tests name calls whose first argument is no pointer; the others are zero.
    match unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) } {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or_default()),
        result => result,
    }
}

/// Makes a system call by `int 0x80`: the kernel takes number and arguments for those of i386.
#[cfg(target_arch = "x86_64")]
fn interrupt(number: i64, first: i64) -> i64 {
    let result: i64;
    // SAFETY: as above. rbx, which the compiler reserves, is restored.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) first => _,
            inlateout("rax") number => result,
            in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    // The result has 32 bits.
    i64::from(result as i32)
}

#[derive(Default)]
struct Facts(BTreeSet<String>);

impl Facts {
    fn add(&mut self, topic: &str, fact: impl Display) {
        self.0.insert(format!("{topic} {fact}"));
    }

    /// Adds the text of a small file on one line, or the error of reading it.
    fn file(&mut self, topic: &str, path: &str) {
        let text = match fs::read(path) {
            Ok(text) => {
                String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ")
            }
            Err(e) => refusal(&e),
        };
        self.add(topic, format_args!("{path}: {text}"));
    }
}

fn refusal(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(n) => format!("refused with errno {n}"),
        None => format!("refused: {error}"),
    }
}

fn answer(result: i64) -> String {
    match result {
        -1 => refusal(&std::io::Error::last_os_error()),
        n => n.to_string(),
    }
}

fn process(facts: &mut Facts) {
    // SAFETY: these calls take no pointers and cannot fail.
    let [pid, ppid, pgid, sid] =
        unsafe { [libc::getpid(), libc::getppid(), libc::getpgid(0), libc::getsid(0)] };
    let is = |id: i32| match id {
        0 => "outside",
        _ if id == pid => "own",
        _ => "another",
    };
    facts.add("process", format_args!("is the first: {}", pid == 1));
    facts
        .add("process", format_args!("parent {} group {} session {}", is(ppid), is(pgid), is(sid)));
    facts.add("process", format_args!("cwd {}", link("/proc/self/cwd")));
    facts.add("process", format_args!("root {}", link("/proc/self/root")));
    facts.add("process", format_args!("exe {}", link("/proc/self/exe")));
    for (index, arg) in std::env::args_os().enumerate() {
        facts.add("process", format_args!("argv {index} {}", arg.display()));
    }
    facts.file("process", "/proc/self/comm");
    facts.file("process", "/proc/self/oom_score_adj");
    facts.file("process", "/proc/self/timens_offsets");
    facts.file("process", "/proc/self/attr/current");
    facts.file("process", "/proc/self/coredump_filter");
    facts.file("process", "/proc/self/loginuid");
    for (name, option) in [
        ("dumpable", libc::PR_GET_DUMPABLE),
        ("keepcaps", libc::PR_GET_KEEPCAPS),
        ("securebits", libc::PR_GET_SECUREBITS),
        ("timerslack", libc::PR_GET_TIMERSLACK),
        ("thp-disable", libc::PR_GET_THP_DISABLE),
        ("no-new-privs", libc::PR_GET_NO_NEW_PRIVS),
    ] {
        // SAFETY: these options take no pointer.
        let value = unsafe { libc::prctl(option, 0, 0, 0, 0) };
        facts.add("process", format_args!("{name} {}", answer(value.into())));
    }
    for (name, option) in [
        ("parent-death-signal", libc::PR_GET_PDEATHSIG),
        ("subreaper", libc::PR_GET_CHILD_SUBREAPER),
    ] {
        let mut value: libc::c_int = 0;
        // SAFETY: both write one int, which outlives the call.
        unsafe { libc::prctl(option, &mut value, 0, 0, 0) };
        facts.add("process", format_args!("{name} {value}"));
    }
}

fn link(path: &str) -> String {
    fs::read_link(path).map_or_else(|e| refusal(&e), |to| to.display().to_string())
}

fn identity(facts: &mut Facts) {
    for file in ["uid_map", "gid_map", "setgroups", "sessionid"] {
        facts.file("identity", &format!("/proc/self/{file}"));
    }
    // SAFETY: writes one utsname, which outlives the call.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&mut name);
        name
    };
    for (what, field) in [
        ("sysname", name.sysname),
        ("nodename", name.nodename),
        ("release", name.release),
        ("machine", name.machine),
        ("domainname", name.domainname),
    ] {
        let text: Vec<u8> =
            field.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned()).collect();
        facts.add("identity", format_args!("uname {what} {}", String::from_utf8_lossy(&text)));
    }
    // SAFETY: takes no pointer; this value only asks.
    let personality = unsafe { libc::personality(0xffff_ffff) };
    facts.add("identity", format_args!("personality {}", answer(personality.into())));
}

fn status(facts: &mut Facts) {
    const TELLING: [&str; 17] = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Speculation_Store_Bypass",
        "SpeculationIndirectBranch",
        "Cpus_allowed_list",
        "Mems_allowed_list",
        "CoreDumping",
    ];
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(':')
            && TELLING.contains(&key)
        {
            let value: Vec<&str> = value.split_whitespace().collect();
            facts.add("status", format_args!("{key} {}", value.join(" ")));
        }
    }
}

fn limits(facts: &mut Facts) {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        facts.add("limit", words.join(" "));
    }
}

fn namespaces(facts: &mut Facts) {
    let host = fs::read_to_string(HOST_NAMESPACES).unwrap_or_default();
    for entry in fs::read_dir("/proc/self/ns").into_iter().flatten().flatten() {
        let kind = entry.file_name().to_string_lossy().into_owned();
        let own = link(&format!("/proc/self/ns/{kind}"));
        let inherited = host.lines().any(|line| line == format!("{kind} {own}"));
        facts.add("namespace", format_args!("{kind} {}", if inherited { "host" } else { "own" }));
    }
}

/// Adds mounts: lines of mountinfo without numbers of IDs. Mounts on one target keep their `order`.
fn mounts(facts: &mut Facts) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut targets: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some((mount, fs)) = line.split_once(" - ") else { continue };
        let mount: Vec<&str> = mount.split(' ').collect();
        let [_, _, _, root, target, options, tags @ ..] = mount.as_slice() else { continue };
        let depth = targets.iter().filter(|t| t == target).count();
        targets.push((*target).into());
        let tags: Vec<&str> = tags.iter().filter_map(|tag| tag.split(':').next()).collect();
        let tags = if tags.is_empty() { "private".into() } else { tags.join("+") };
        facts.add("mount", format_args!("{target} [{depth}] {root} {options} {tags} {fs}"));
    }
}

fn cgroup(facts: &mut Facts) {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for line in text.lines() {
        // The number of a hierarchy is a property of the host.
        facts.add("cgroup", line.split_once(':').map_or(line, |(_, rest)| rest));
    }
    let mut directories = vec![Path::new("/sys/fs/cgroup").to_owned()];
    // A v2 tree without a cgroup namespace shows the whole host; of v1 these are the hierarchies.
    let v2 = Path::new("/sys/fs/cgroup/cgroup.procs").exists();
    let children = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for entry in children.filter(|_| !v2) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => directories.push(entry.path()),
            Ok(kind) if kind.is_symlink() => {
                let path = entry.path().display().to_string();
                facts.add("cgroup", format_args!("{path} -> {}", link(&path)));
            }
            _ => {}
        }
    }
    for directory in directories {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let files = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_file())).count();
        facts.add("cgroup", format_args!("{}: {files} files", directory.display()));
        for file in [
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "memory.swappiness",
            "memory.oom_control",
            "cpu.shares",
            "cpu.cfs_quota_us",
            "cpu.cfs_period_us",
            "cpuset.cpus",
            "cpuset.mems",
            "pids.max",
            "devices.list",
            "blkio.weight",
            "blkio.bfq.weight",
            "blkio.throttle.read_bps_device",
            "memory.max",
            "memory.low",
            "memory.high",
            "memory.swap.max",
            "cpu.max",
            "cpu.weight",
            "io.max",
            "io.weight",
            "cgroup.controllers",
            "cgroup.subtree_control",
            "cgroup.type",
            "hugetlb.2MB.max",
            "hugetlb.1GB.max",
            "freezer.state",
            "cgroup.freeze",
            "notify_on_release",
        ] {
            let path = directory.join(file);
            if file == "devices.list" {
                // A set of rules, whose order is that of writing.
                for rule in fs::read_to_string(&path).unwrap_or_default().lines() {
                    facts.add("cgroup", format_args!("{}: {rule}", path.display()));
                }
            } else if path.exists() {
                facts.file("cgroup", &path.display().to_string());
            }
        }
    }
}

/// Lists parts of the rootfs: mount points and files that the runtime created are among them.
fn root(facts: &mut Facts) {
    for directory in ["/", "/etc", "/run", "/tmp", "/mnt", "/root", "/var"] {
        listing(facts, "file", Path::new(directory), 0);
    }
}

fn devices(facts: &mut Facts) {
    listing(facts, "device", Path::new("/dev"), 2);
    for path in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        if let Ok(data) = fs::metadata(path) {
            facts.add(
                "device",
                format_args!("{path} {:o} {}:{}", data.mode(), data.uid(), data.gid()),
            );
        }
    }
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        let opened = fs::OpenOptions::new().read(true).write(true).open(path);
        facts.add(
            "device",
            format_args!("{path} opens: {}", opened.map_or_else(|e| refusal(&e), |_| "yes".into())),
        );
    }
    for (name, kind, major, minor) in [
        ("null", libc::S_IFCHR, 1, 3),
        ("mem", libc::S_IFCHR, 1, 1),
        ("tun", libc::S_IFCHR, 10, 200),
        ("fuse", libc::S_IFCHR, 10, 229),
        ("disk", libc::S_IFBLK, 254, 0),
        ("console", libc::S_IFCHR, 5, 1),
    ] {
        let path = format!("/tmp/.probe-{name}\0");
        // SAFETY: the path ends in NUL.
        let made =
            unsafe { libc::mknod(path.as_ptr().cast(), kind | 0o600, libc::makedev(major, minor)) };
        let made = answer(made.into());
        let path = path.trim_end_matches('\0');
        let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let opened = opened.map_or_else(|e| refusal(&e), |_| "yes".into());
        facts.add("device", format_args!("{name} {major}:{minor} made: {made}, opens: {opened}"));
        let _ = fs::remove_file(path);
    }
}

fn listing(facts: &mut Facts, topic: &str, directory: &Path, depth: u32) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        let kind = data.file_type();
        let more = if kind.is_symlink() {
            format!(" -> {}", link(&path.display().to_string()))
        } else if kind.is_char_device() || kind.is_block_device() {
            format!(" {}:{}", libc::major(data.rdev()), libc::minor(data.rdev()))
        } else {
            String::new()
        };
        let (mode, uid, gid) = (data.mode(), data.uid(), data.gid());
        facts.add(topic, format_args!("{} {mode:o} {uid}:{gid}{more}", path.display()));
        if depth > 0 && kind.is_dir() {
            listing(facts, topic, &path, depth - 1);
        }
    }
}

fn environment(facts: &mut Facts) {
    // As the kernel passed it, with order and duplicates.
    let block = fs::read("/proc/self/environ").unwrap_or_default();
    for (index, variable) in block.split(|b| *b == 0).filter(|v| !v.is_empty()).enumerate() {
        facts.add("env", format_args!("{index} {}", String::from_utf8_lossy(variable)));
    }
}

fn descriptors(facts: &mut Facts) {
    let own = fs::read_dir("/proc/self/fd").expect("/proc/self/fd");
    let numbers: Vec<i32> =
        own.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for number in numbers {
        let target = link(&format!("/proc/self/fd/{number}"));
        if target.starts_with("refused") {
            continue; // the descriptor of the listing itself
        }
        let target = target.split(":[").next().unwrap_or_default().to_owned();
        // SAFETY: neither takes a pointer.
        let [status, own] =
            unsafe { [libc::fcntl(number, libc::F_GETFL), libc::fcntl(number, libc::F_GETFD)] };
        // Flags that only affect the open itself.
        let flags = status & !(libc::O_NOFOLLOW | libc::O_CLOEXEC | 0o100_000);
        facts.add("fd", format_args!("{number} {target} flags {flags:o} {own}"));
    }
}

fn sysctls(facts: &mut Facts) {
    for name in [
        "kernel/hostname",
        "kernel/domainname",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "fs/mqueue/msg_max",
        "fs/mqueue/queues_max",
        "net/ipv4/ip_forward",
        "net/ipv4/ping_group_range",
        "net/ipv4/ip_unprivileged_port_start",
        "net/core/somaxconn",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv6/conf/all/disable_ipv6",
        "user/max_user_namespaces",
        "kernel/cap_last_cap",
    ] {
        facts.file("sysctl", &format!("/proc/sys/{name}"));
    }
}

fn signals(facts: &mut Facts) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in
        text.lines().filter(|l| ["SigBlk", "SigIgn", "SigCgt"].contains(&&l[..6.min(l.len())]))
    {
        facts.add("signal", line.replace('\t', " "));
    }
}

fn scheduling(facts: &mut Facts) {
    // SAFETY: none of these takes a pointer, but for sched_getparam, which writes one struct.
    unsafe {
        let mut parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_getparam(0, &mut parameters);
        facts.add("schedule", format_args!("policy {}", libc::sched_getscheduler(0)));
        facts.add("schedule", format_args!("priority {}", parameters.sched_priority));
        facts.add("schedule", format_args!("nice {}", libc::getpriority(libc::PRIO_PROCESS, 0)));
        facts.add("schedule", format_args!("io {}", libc::syscall(libc::SYS_ioprio_get, 1, 0)));
        facts.add("schedule", format_args!("cpus {}", libc::sysconf(libc::_SC_NPROCESSORS_ONLN)));
    }
}

/// Masked and read-only paths: what can still be read, listed or opened for writing.
fn guarded(facts: &mut Facts) {
    for path in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/interrupts",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
        "/sys/fs/selinux",
        "/sys/dev/block",
        "/proc/kmsg",
        "/proc/config.gz",
        "/masked-file",
        "/masked-directory",
    ] {
        facts.add("guarded", format_args!("{path} reads: {}", reading(Path::new(path))));
    }
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/swappiness",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/proc/self/oom_score_adj",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory/cgroup.procs",
        "/etc/passwd",
        "/readonly-file",
    ] {
        let opened = fs::OpenOptions::new().write(true).open(path);
        let opened = opened.map_or_else(|e| refusal(&e), |_| "yes".into());
        facts.add("guarded", format_args!("{path} opens for writing: {opened}"));
    }
    for directory in ["/", "/tmp", "/run", "/dev", "/dev/shm", "/proc/acpi", "/readonly-directory"]
    {
        let path = Path::new(directory).join(".probe-write");
        let written = fs::write(&path, "x").map_or_else(|e| refusal(&e), |()| "yes".into());
        facts.add("guarded", format_args!("{directory} takes a file: {written}"));
        let _ = fs::remove_file(path);
    }
}

fn reading(path: &Path) -> String {
    let Ok(data) = fs::symlink_metadata(path) else { return "absent".into() };
    if data.is_dir() {
        return match fs::read_dir(path) {
            Ok(entries) => match entries.count() {
                0 => "an empty directory".into(),
                _ => "a directory with entries".into(),
            },
            Err(e) => refusal(&e),
        };
    }
    let mut byte = [0];
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    match opened.and_then(|mut file| file.read(&mut byte)) {
        Ok(0) => "nothing".into(),
        Ok(_) => "something".into(),
        Err(e) => refusal(&e),
    }
}

fn terminal(facts: &mut Facts) {
    for fd in 0..3 {
        // SAFETY: takes no pointer.
        let tty = unsafe { libc::isatty(fd) } == 1;
        facts.add("terminal", format_args!("{fd} {}", if tty { "a terminal" } else { "none" }));
    }
    // SAFETY: each call writes one struct, which outlives it; both were zeroed.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(0, libc::TIOCGWINSZ, &mut size) == 0 {
            facts.add("terminal", format_args!("size {}x{}", size.ws_row, size.ws_col));
        }
        let mut modes: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(0, &mut modes) == 0 {
            let libc::termios { c_iflag, c_oflag, c_cflag, c_lflag, .. } = modes;
            facts.add(
                "terminal",
                format_args!("modes {c_iflag:o} {c_oflag:o} {c_cflag:o} {c_lflag:o}"),
            );
        }
    }
    let controlling = fs::File::open("/dev/tty").map_or_else(|e| refusal(&e), |_| "yes".into());
    facts.add("terminal", format_args!("controlling: {controlling}"));
    // SAFETY: takes no pointer.
    let is_terminal = unsafe { libc::isatty(0) } == 1;
    if is_terminal && let Ok(data) = fs::metadata("/proc/self/fd/0") {
        let (mode, uid, gid) = (data.mode(), data.uid(), data.gid());
        facts.add("terminal", format_args!("stdin {mode:o} {uid}:{gid}"));
    }
}

fn network(facts: &mut Facts) {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    for name in text.lines().skip(2).filter_map(|line| line.split(':').next()) {
        let name = name.trim();
        // SAFETY: the name is copied into a zeroed request with room for its NUL; the ioctl reads
        // and writes that one struct.
        let flags = unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes().iter().take(15)) {
                *to = from.cast_signed();
            }
            let done = libc::ioctl(socket, libc::SIOCGIFFLAGS as _, &mut request);
            libc::close(socket);
            if done == 0 { i32::from(request.ifr_ifru.ifru_flags) } else { -1 }
        };
        facts.add("network", format_args!("{name} up {}", flags & libc::IFF_UP != 0));
    }
}

/// `KEY_SPEC_*`: keyrings that a process can inherit or get.
const KEYRINGS: [(&str, libc::c_long); 3] = [("thread", -1), ("process", -2), ("session", -3)];

fn keyring(facts: &mut Facts) {
    const DESCRIBE: libc::c_long = 6;
    const READ: libc::c_long = 11;
    let call = |operation: libc::c_long, ring: libc::c_long, buffer: &mut [u8]| {
        // SAFETY: the kernel writes at most the given length.
        let length = unsafe {
            libc::syscall(libc::SYS_keyctl, operation, ring, buffer.as_mut_ptr(), buffer.len())
        };
        usize::try_from(length).map_err(|_| refusal(&std::io::Error::last_os_error()))
    };
    for (name, ring) in KEYRINGS {
        let mut text = [0_u8; 256];
        let described = call(DESCRIBE, ring, &mut text)
            .map(|length| String::from_utf8_lossy(&text[..length.clamp(1, 256) - 1]).into_owned());
        facts.add("keyring", format_args!("{name} {}", described.unwrap_or_else(|why| why)));
    }
    // A topic of its own: hosts without SELinux have none.
    const SECURITY: libc::c_long = 17;
    let mut text = [0_u8; 256];
    if let Ok(length @ 2..) = call(SECURITY, -3, &mut text) {
        let label = String::from_utf8_lossy(&text[..length.min(256) - 1]).into_owned();
        facts.add("keylabel", label);
    }
    // Each key has a serial number of four bytes.
    let keys = call(READ, -3, &mut [0; 256]).map(|length| (length / 4).to_string());
    facts.add("keyring", format_args!("session holds {} keys", keys.unwrap_or_else(|why| why)));
}

fn timers(facts: &mut Facts) {
    for (name, which) in [
        ("real", libc::ITIMER_REAL),
        ("virtual", libc::ITIMER_VIRTUAL),
        ("prof", libc::ITIMER_PROF),
    ] {
        // SAFETY: writes one struct, for which all zeroes is a value, and which outlives the call.
        let left = unsafe {
            let mut timer: libc::itimerval = std::mem::zeroed();
            libc::getitimer(which as _, &mut timer);
            timer.it_value
        };
        let armed = left.tv_sec != 0 || left.tv_usec != 0;
        facts.add("timer", format_args!("{name} {}", if armed { "runs" } else { "none" }));
    }
    facts.file("timer", "/proc/self/timers");
}

/// Makes calls that filters and capabilities decide, with arguments that do no harm if a call is allowed.
fn calls(facts: &mut Facts) {
    type Call<'a> = (&'a str, libc::c_long, [libc::c_long; 4]);
    let calls: [Call; 18] = [
        ("unshare nothing", libc::SYS_unshare, [0; 4]),
        ("setns -1", libc::SYS_setns, [-1, 0, 0, 0]),
        ("mount null", libc::SYS_mount, [0; 4]),
        ("umount2 null", libc::SYS_umount2, [0; 4]),
        ("bpf 0", libc::SYS_bpf, [0, 0, 0, 0]),
        ("clone3 null", libc::SYS_clone3, [0; 4]),
        ("keyctl 9999", libc::SYS_keyctl, [9999, 0, 0, 0]),
        ("personality 8", libc::SYS_personality, [0x0008, 0, 0, 0]),
        ("personality 0", libc::SYS_personality, [0; 4]),
        ("ptrace traceme of a stranger", libc::SYS_ptrace, [16, 0, 0, 0]),
        ("socket vsock", libc::SYS_socket, [40, 1, 0, 0]),
        ("socket vsock beyond 32 bits", libc::SYS_socket, [1 << 32 | 40, 1, 0, 0]),
        ("socket alg", libc::SYS_socket, [38, 5, 0, 0]),
        ("syslog size", libc::SYS_syslog, [10, 0, 0, 0]),
        ("socket raw", libc::SYS_socket, [2, 3, 1, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [0; 4]),
        ("call number 5000", 5000, [0; 4]),
        ("call number 460", 460, [0; 4]),
    ];
    for (name, number, [a, b, c, d]) in calls {
        // SAFETY: every pointer argument is null, which these calls answer with an errno.
        let result = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
        let result = if result >= 0 { "allowed".into() } else { answer(result) };
        facts.add("call", format_args!("{name}: {result}"));
    }
    let path = Path::new("/tmp/.probe-owner");
    if fs::write(path, "").is_ok() {
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: the path ends in NUL.
        let done = unsafe { libc::chown(name.as_ptr(), 12, 34) };
        facts.add("call", format_args!("chown: {}", answer(done.into())));
        let _ = fs::remove_file(path);
    }
}
