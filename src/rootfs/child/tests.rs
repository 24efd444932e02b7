//! Runs the plan of runc's default config in new namespaces. Needs root.
//!
//! Each test starts this program again with unshare(1), because a thread of the test runner must not change its root.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test runs itself in new namespaces"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use oci_spec::runtime::Mount;
use runtime_tests::skip;

use super::*;
use crate::rootfs::parent::open_trees;
use crate::rootfs::plan::{CgroupView, HierarchyView, RootfsRequest, plan};

const INSIDE: &str = "ARIL_TEST_INSIDE";

pub(in crate::rootfs) fn default_mounts() -> Vec<Mount> {
    serde_json::from_str(
        r#"[
        {"destination":"/proc","type":"proc","source":"proc"},
        {"destination":"/dev","type":"tmpfs","source":"tmpfs",
         "options":["nosuid","strictatime","mode=755","size=65536k"]},
        {"destination":"/dev/pts","type":"devpts","source":"devpts",
         "options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
        {"destination":"/dev/shm","type":"tmpfs","source":"shm",
         "options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
        {"destination":"/dev/mqueue","type":"mqueue","source":"mqueue",
         "options":["nosuid","noexec","nodev"]},
        {"destination":"/sys","type":"sysfs","source":"sysfs",
         "options":["nosuid","noexec","nodev","ro"]},
        {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup",
         "options":["nosuid","noexec","nodev","relatime","ro"]}]"#,
    )
    .unwrap()
}

pub(in crate::rootfs) const MASKED: [&str; 10] = [
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

pub(in crate::rootfs) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(in crate::rootfs) fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

/// Bundle with an empty rootfs.
struct Bundle(PathBuf);

impl Bundle {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("aril-rootfs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("rootfs")).unwrap();
        Self(path.canonicalize().unwrap())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Returns the output of the test `name` in new namespaces on `bundle`.
fn inside(name: &str, more: &[&str], bundle: &Path) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--ipc", "--net", "--uts", "--propagation=unchanged"])
        .args(more)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("rootfs::child::tests::{name}"), "--nocapture"])
        .args(["--test-threads=1"])
        .env(INSIDE, bundle)
        .output()
        .unwrap();
    let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(bundle.to_str().unwrap()), "a mount reached the host:\n{host}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Returns the bundle. `None` if the test must start itself again, or cannot run.
fn bundle() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

fn request<'a>(bundle: &'a Path, rootfs: &'a Path, mounts: &'a [Mount]) -> RootfsRequest<'a> {
    RootfsRequest {
        overlay: crate::rootfs::overlay::plan::tests::request(None, None),
        readonly: true,
        mounts,
        kcore: true,
        ..RootfsRequest::of_running(bundle, rootfs)
    }
}

/// Runs the plan, and names the failed step in the error.
fn enact(request: &RootfsRequest<'_>, old_kernel: bool) -> Result<(), String> {
    let plan = plan(request).map_err(|e| e.to_string())?;
    let trees = open_trees(plan.enter.iter()).map_err(|e| e.to_string())?;
    let proc = Proc::of_the_host().unwrap();
    let mut state = State::new(&proc, trees, &[]);
    if old_kernel {
        state = state.without_setattr();
    }
    for step in plan.enter.iter().chain(&plan.pivot).chain(&plan.restrict) {
        run(step, &mut state).map_err(|f| format!("{step}: {}: {}", f.call, f.errno))?;
    }
    Ok(())
}

fn show(path: &str) {
    // The test runner has not ended its line.
    print!("\n{}", std::fs::read_to_string(path).unwrap());
}

/// Returns `mount point options - type` of each line of mountinfo, for comparison.
fn table(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        let dash = fields.iter().position(|f| *f == "-")?;
        Some(format!("{} {} {} {}", fields[3], fields[4], fields[5], fields[dash + 1]))
    };
    text.lines().filter_map(line).collect()
}

fn host_cgroup() -> Vec<HierarchyView> {
    let own = |name: &str| HierarchyView {
        own: Path::new("/sys/fs/cgroup").join(name),
        name: name.into(),
        aliases: Vec::new(),
    };
    let Ok(all) = std::fs::read_dir("/sys/fs/cgroup") else { return Vec::new() };
    let mut names: Vec<_> = all
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n == "cpu" || n == "pids")
        .collect();
    names.sort();
    names.iter().map(|n| own(n)).collect()
}

fn default_config(bundle: &Path, old_kernel: bool) {
    let (mounts, rootfs) = (default_mounts(), bundle.join("rootfs"));
    let (masked, readonly) = (strings(&MASKED), strings(&READ_ONLY));
    let unified = std::env::var_os("ARIL_TEST_UNIFIED").map(PathBuf::from);
    let legacy = host_cgroup();
    let mut request = request(bundle, &rootfs, &mounts);
    (request.masked_paths, request.readonly_paths) = (&masked, &readonly);
    request.cgroup = match &unified {
        Some(path) => CgroupView::Unified(path),
        None => CgroupView::Legacy(&legacy),
    };
    enact(&request, old_kernel).unwrap();
}

const EXPECTED: [&str; 13] = [
    "/ /proc rw,relatime proc",
    "/ /dev rw,nosuid tmpfs",
    "/ /dev/pts rw,nosuid,noexec,relatime devpts",
    "/ /dev/shm rw,nosuid,nodev,noexec,relatime tmpfs",
    "/ /dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue",
    "/ /sys ro,nosuid,nodev,noexec,relatime sysfs",
    "/bus /proc/bus ro,relatime proc",
    "/fs /proc/fs ro,relatime proc",
    "/irq /proc/irq ro,relatime proc",
    "/sys /proc/sys ro,relatime proc",
    "/ /proc/acpi ro,relatime tmpfs",
    "/null /proc/keys rw,nosuid tmpfs",
    "/ /sys/firmware ro,relatime tmpfs",
];

fn as_expected(text: &str) {
    let table = table(text);
    for line in EXPECTED {
        // The kernel may not have these files.
        let place = line.split(' ').nth(1).unwrap();
        if !Path::new(place).exists() {
            continue;
        }
        assert!(table.iter().any(|found| found == line), "{line} is not in\n{}", table.join("\n"));
    }
    let root = table.iter().find(|l| l.contains(" / ")).unwrap();
    assert!(root.contains(" / ro"), "{root}");
    assert!(!table.iter().any(|l| l.contains("/rootfs/")), "{}", table.join("\n"));
}

/// Runs `work` on a bundle in new namespaces. Outside of them, returns its output.
fn isolated(name: &str, work: impl FnOnce(&Path)) -> Option<String> {
    isolated_more(name, &[], work)
}

/// Does the same with more arguments for unshare(1).
fn isolated_more(name: &str, more: &[&str], work: impl FnOnce(&Path)) -> Option<String> {
    if let Some(bundle) = bundle() {
        work(&bundle);
        return None;
    }
    if !skip::is_root() {
        return None;
    }
    let bundle = Bundle::new(name);
    Some(inside(name, more, &bundle.0))
}

fn mounts(json: &str) -> Vec<Mount> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn runcs_default_config() {
    let shown = isolated("runcs_default_config", |bundle| {
        default_config(bundle, false);
        show("/proc/self/mountinfo");
    });
    shown.iter().for_each(|text| as_expected(text));
}

#[test]
fn runcs_default_config_on_an_old_kernel() {
    let shown = isolated("runcs_default_config_on_an_old_kernel", |bundle| {
        default_config(bundle, true);
        show("/proc/self/mountinfo");
    });
    shown.iter().for_each(|text| as_expected(text));
}

#[test]
fn without_pivot_root() {
    let shown = isolated("without_pivot_root", |bundle| {
        let (mounts, rootfs) = (default_mounts(), bundle.join("rootfs"));
        let mut request = request(bundle, &rootfs, &mounts);
        request.no_pivot = true;
        enact(&request, false).unwrap();
        show("/proc/self/mountinfo");
    });
    if let Some(text) = shown {
        let table = table(&text);
        assert!(table.iter().any(|l| l.contains(" / ro")), "{table:?}");
        assert!(table.iter().any(|l| l == "/ /proc rw,relatime proc"), "{table:?}");
    }
}

#[test]
fn chroot_without_a_mount_namespace() {
    isolated("chroot_without_a_mount_namespace", |bundle| {
        let rootfs = bundle.join("rootfs");
        let mut request = request(bundle, &rootfs, &[]);
        (request.mount_namespace, request.readonly) = (false, false);
        enact(&request, false).unwrap();
        let entries = std::fs::read_dir("/").unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(entries.collect::<Vec<_>>(), ["dev"]);
        assert_eq!(std::fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
    });
}

#[test]
fn symlinks_lead_nowhere_but_inside() {
    isolated("symlinks_lead_nowhere_but_inside", |bundle| {
        let rootfs = bundle.join("rootfs");
        let canary = bundle.join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(bundle.join("file"), "bound").unwrap();
        std::os::unix::fs::symlink(&canary, rootfs.join("volume")).unwrap();
        std::fs::create_dir_all(rootfs.join(canary.strip_prefix("/").unwrap())).unwrap();
        let mounts = mounts(
            r#"[{"destination":"/volume/sub/file","type":"bind","source":"file",
                 "options":["bind","ro","nosuid"]},
                {"destination":"/volume/tmp","type":"tmpfs","source":"tmpfs"}]"#,
        );
        enact(&request(bundle, &rootfs, &mounts), false).unwrap();
        let inside = canary.join("sub/file");
        assert_eq!(std::fs::read_to_string(&inside).unwrap(), "bound");
        assert!(std::fs::write(&inside, "x").is_err());
    });
}

#[test]
fn proc_and_sys_are_ordinary_directories() {
    isolated("proc_and_sys_are_ordinary_directories", |bundle| {
        let rootfs = bundle.join("rootfs");
        for (kind, link) in [("proc", "proc"), ("sysfs", "sys")] {
            std::os::unix::fs::symlink("elsewhere", rootfs.join(link)).unwrap();
            let json = format!(r#"[{{"destination":"/{link}","type":"{kind}"}}]"#);
            let mounts = mounts(&json);
            let error = enact(&request(bundle, &rootfs, &mounts), false).unwrap_err();
            let text = format!("filesystem {link:?} must be mounted on ordinary directory");
            assert!(error.contains(&text), "{error}");
        }
    });
}

#[test]
fn a_directory_does_not_go_on_a_file() {
    isolated("a_directory_does_not_go_on_a_file", |bundle| {
        let rootfs = bundle.join("rootfs");
        std::fs::write(rootfs.join("file"), "").unwrap();
        std::fs::create_dir(rootfs.join("dir")).unwrap();
        let onto_file =
            r#"{"destination":"/file","type":"bind","options":["bind"],"source":"/etc"}"#;
        let onto_directory =
            r#"{"destination":"/dir","type":"bind","options":["bind"],"source":"/etc/passwd"}"#;
        for mount in [onto_file, onto_directory] {
            let mounts = mounts(&format!("[{mount}]"));
            let error = enact(&request(bundle, &rootfs, &mounts), false).unwrap_err();
            assert!(error.contains("move_mount: ENOTDIR"), "{error}");
        }
    });
}

#[test]
fn no_way_into_proc_by_another_name() {
    isolated("no_way_into_proc_by_another_name", |bundle| {
        let rootfs = bundle.join("rootfs");
        std::os::unix::fs::symlink("proc", rootfs.join("volume")).unwrap();
        let tmpfs = mounts(
            r#"[{"destination":"/proc","type":"proc"},
                {"destination":"/volume/self","type":"tmpfs"}]"#,
        );
        let error = enact(&request(bundle, &rootfs, &tmpfs), false).unwrap_err();
        assert!(error.contains("cannot be mounted because it is inside /proc"), "{error}");
        let false_proc =
            mounts(r#"[{"destination":"/proc","type":"bind","options":["bind"],"source":"."}]"#);
        let error = enact(&request(bundle, &rootfs, &false_proc), false).unwrap_err();
        assert!(error.contains("cannot be mounted because it is not of type proc"), "{error}");
    });
}

#[test]
fn a_false_null_device_masks_nothing() {
    isolated("a_false_null_device_masks_nothing", |bundle| {
        let rootfs = bundle.join("rootfs");
        std::fs::create_dir(rootfs.join("dev")).unwrap();
        std::fs::write(rootfs.join("secret"), "").unwrap();
        std::fs::write(bundle.join("canary"), "").unwrap();
        let mounts = mounts(r#"[{"destination":"/proc","type":"proc"}]"#);
        let masked = strings(&["/secret"]);
        let mut request = request(bundle, &rootfs, &mounts);
        request.masked_paths = &masked;
        std::os::unix::fs::symlink("/proc/version", rootfs.join("dev/null")).unwrap();
        let error = enact(&request, false).unwrap_err();
        assert!(error.contains("another file of that name exists"), "{error}");
    });
}

#[test]
fn console_is_not_made_through_a_symlink() {
    isolated("console_is_not_made_through_a_symlink", |bundle| {
        let rootfs = bundle.join("rootfs");
        std::fs::create_dir(rootfs.join("dev")).unwrap();
        std::os::unix::fs::symlink("/canary", rootfs.join("dev/console")).unwrap();
        let mounts =
            mounts(r#"[{"destination":"/dev/pts","type":"devpts","options":["newinstance"]}]"#);
        let proc = Proc::of_the_host().unwrap();
        let plan = plan(&request(bundle, &rootfs, &mounts)).unwrap();
        let mut state = State::new(&proc, Vec::new(), &[]);
        for step in plan.enter.iter().chain(&plan.pivot) {
            run(step, &mut state).unwrap();
        }
        let master = nix::pty::posix_openpt(nix::fcntl::OFlag::O_RDWR).unwrap();
        nix::pty::unlockpt(&master).unwrap();
        let slave = std::fs::File::open(nix::pty::ptsname_r(&master).unwrap()).unwrap();
        let fault = bind_console(&state, slave.as_fd()).unwrap_err();
        assert!(fault.call.contains("neither a file nor a device"), "{}", fault.call);
        assert!(!Path::new("/canary").exists());
        std::fs::remove_file("/dev/console").unwrap();
        bind_console(&state, slave.as_fd()).unwrap();
        let console = nix::sys::stat::stat("/dev/console").unwrap();
        assert_eq!(console.st_rdev, fstat(&slave).unwrap().st_rdev);
        let null = std::fs::File::open("/dev/null").unwrap();
        let fault = bind_console(&state, null.as_fd()).unwrap_err();
        assert_eq!(fault.call, "the terminal does not belong to a devpts");
    });
}

#[test]
fn binds_and_copies() {
    isolated("binds_and_copies", |bundle| {
        let rootfs = bundle.join("rootfs");
        std::fs::create_dir_all(rootfs.join("etc/deep")).unwrap();
        std::fs::write(rootfs.join("etc/deep/file"), "copied").unwrap();
        std::os::unix::fs::symlink("deep", rootfs.join("etc/link")).unwrap();
        std::fs::create_dir_all(bundle.join("data/below")).unwrap();
        std::fs::set_permissions(
            rootfs.join("etc"),
            std::os::unix::fs::PermissionsExt::from_mode(0o1751),
        )
        .unwrap();
        let mounts = mounts(
            r#"[{"destination":"/proc","type":"proc"},
                {"destination":"/below","type":"bind","source":"data/below","options":["bind","rprivate"]},
                {"destination":"/etc","type":"tmpfs","options":["tmpcopyup","ro","nodev"]},
                {"destination":"/data","type":"bind","source":"data",
                 "options":["rbind","rro","noatime","slave"]}]"#,
        );
        enact(&request(bundle, &rootfs, &mounts), false).unwrap();
        assert_eq!(std::fs::read_to_string("/etc/link/file").unwrap(), "copied");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata("/etc").unwrap().mode() & 0o7777, 0o1751);
        show("/proc/self/mountinfo");
    })
    .iter()
    .for_each(|text| {
        let table = table(text);
        for line in [
            "/ /etc ro,nodev,relatime tmpfs",
            "/data/below /below rw,relatime",
            "/data /data ro,noatime",
        ] {
            let (root, rest) = line.split_once(' ').unwrap();
            let found = |l: &String| l.contains(&format!("{root} {rest}"));
            assert!(table.iter().any(found), "{line} is not in\n{}", table.join("\n"));
        }
    });
}

/// CVE-2026-41579: an image without a mount for /dev contains a symlink of that name.
#[test]
fn dev_as_a_symlink() {
    isolated("dev_as_a_symlink", |bundle| {
        let rootfs = bundle.join("rootfs");
        let canary = bundle.join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::os::unix::fs::symlink(&canary, rootfs.join("dev")).unwrap();
        let mut request = request(bundle, &rootfs, &[]);
        request.readonly = false;
        let inside = rootfs.join(canary.strip_prefix("/").unwrap());
        let outside = std::fs::File::open(&canary).unwrap();
        enact(&request, false).unwrap();
        // / is the container's root now: the same name is the file that was created inside.
        assert!(canary.join("null").exists() && !inside.exists());
        let mut entries = nix::dir::Dir::from_fd(outside.into()).unwrap();
        assert_eq!(entries.iter().count(), 2, "more than . and ..");
    });
}

/// fsconfig accepts 255 bytes of a value; overlays have longer ones.
#[test]
fn a_value_too_long_for_fsconfig() {
    isolated("a_value_too_long_for_fsconfig", |bundle| {
        let rootfs = bundle.join("rootfs");
        let lower = |n: usize| bundle.join(format!("{n}-{}", "x".repeat(150)));
        for n in 0..2 {
            std::fs::create_dir(lower(n)).unwrap();
            std::fs::write(lower(n).join(format!("file{n}")), "").unwrap();
        }
        let json = format!(
            r#"[{{"destination":"/a","type":"overlay","source":"overlay",
                 "options":["ro","lowerdir={}:{}"]}}]"#,
            lower(0).display(),
            lower(1).display()
        );
        enact(&request(bundle, &rootfs, &mounts(&json)), false).unwrap();
        assert!(Path::new("/a/file0").exists() && Path::new("/a/file1").exists());
    });
}

#[test]
fn says_what_the_file_system_said() {
    isolated("says_what_the_file_system_said", |bundle| {
        let rootfs = bundle.join("rootfs");
        let mounts = mounts(r#"[{"destination":"/a","type":"tmpfs","options":["size=bogus"]}]"#);
        let error = enact(&request(bundle, &rootfs, &mounts), false).unwrap_err();
        let text =
            "mount tmpfs on /a (size=bogus): fsconfig size=bogus: tmpfs: Bad value for 'size'";
        assert!(error.starts_with(text), "{error}");
    });
}

/// Sysctls and /proc/self belong to the process that writes them, independent of the procfs mount.
#[test]
fn the_hosts_proc_acts_on_the_caller() {
    let ttl = "/proc/sys/net/ipv4/ip_default_ttl";
    let before = std::fs::read_to_string(ttl).unwrap_or_default();
    let ran = isolated("the_hosts_proc_acts_on_the_caller", |bundle| {
        let (mounts, rootfs) = (default_mounts(), bundle.join("rootfs"));
        let plan = plan(&request(bundle, &rootfs, &mounts)).unwrap();
        let proc = Proc::of_the_host().unwrap();
        let mut state = State::new(&proc, Vec::new(), &[]);
        for step in plan.enter.iter().chain(&plan.pivot) {
            run(step, &mut state).unwrap();
        }
        proc.write(c"sys/net/ipv4/ip_default_ttl", b"77").unwrap();
        proc.write(c"sys/kernel/msgmax", b"4321").unwrap();
        proc.write(c"sys/kernel/domainname", b"inside").unwrap();
        proc.write(c"self/oom_score_adj", b"321").unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read("/proc/sys/net/ipv4/ip_default_ttl"), "77\n");
        assert_eq!(read("/proc/sys/kernel/msgmax"), "4321\n");
        assert_eq!(read("/proc/sys/kernel/domainname"), "inside\n");
        assert_eq!(read("/proc/self/oom_score_adj"), "321\n");
    });
    if ran.is_some() {
        assert_eq!(std::fs::read_to_string(ttl).unwrap_or_default(), before);
    }
}

/// CVE-2021-30465, CVE-2024-45310: a directory of a shared volume alternates with a symlink while mounts are made below
/// it.
#[test]
fn a_race_for_the_target_is_not_won() {
    isolated("a_race_for_the_target_is_not_won", |bundle| {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        let rootfs = bundle.join("rootfs");
        let canary = bundle.join("canary");
        std::fs::create_dir_all(rootfs.join("volume/a")).unwrap();
        std::fs::create_dir(&canary).unwrap();
        std::os::unix::fs::symlink(&canary, rootfs.join("volume/b")).unwrap();
        let (a, b) = (rootfs.join("volume/a"), rootfs.join("volume/b"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        let root = Root::new(std::fs::File::open(&rootfs).unwrap().into());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            for n in 0..3000 {
                let path = CString::new(format!("/volume/a/{n}/deep")).unwrap();
                // Both results are allowed, but neither may change the canary.
                let _ = root.mkdir_all(&path, 0o755);
                let _ = root.create_file(&path, 0o644);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
    });
}

/// No mount of the container appears on a host with shared mounts, which systemd sets up.
#[test]
fn nothing_reaches_a_shared_host() {
    isolated("nothing_reaches_a_shared_host", |bundle| {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        let none: Option<&str> = None;
        nix::mount::mount(none, "/", none, flags, none).unwrap();
        let before = std::fs::read("/proc/self/mountinfo").unwrap();
        for propagation in ["", "rslave", "shared", "rshared", "slave", "private", "unbindable"] {
            let output = Command::new("unshare")
                .args(["--mount", "--propagation=unchanged"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "rootfs::child::tests::with_propagation", "--nocapture"])
                .env(INSIDE, bundle)
                .env("ARIL_TEST_PROPAGATION", propagation)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{propagation}: {text}");
            assert_eq!(before, std::fs::read("/proc/self/mountinfo").unwrap(), "{propagation}");
        }
    });
}

/// Part of [`nothing_reaches_a_shared_host`] that runs in the container.
#[test]
fn with_propagation() {
    let (Some(bundle), Ok(propagation)) = (bundle(), std::env::var("ARIL_TEST_PROPAGATION")) else {
        return;
    };
    let (mounts, rootfs) = (default_mounts(), bundle.join("rootfs"));
    let mut request = request(&bundle, &rootfs, &mounts);
    request.propagation = Some(&propagation);
    enact(&request, false).unwrap();
}

/// Device nodes are bind-mounted from the host, and locked flags of the host's mounts stay.
#[test]
fn in_a_user_namespace() {
    let more = ["--user", "--map-root-user"];
    let shown = isolated_more("in_a_user_namespace", &more, |bundle| {
        let rootfs = bundle.join("rootfs");
        let mut all = default_mounts();
        // The namespace has no group 5.
        all.retain(|m| !m.destination().ends_with("pts"));
        all.extend(mounts(
            r#"[{"destination":"/data","type":"bind","source":"/proc/sys","options":["bind","ro"]}]"#,
        ));
        let legacy = host_cgroup();
        let mut request = request(bundle, &rootfs, &all);
        request.cgroup = CgroupView::Legacy(&legacy);
        request.user_namespace = true;
        enact(&request, false).unwrap();
        let null = fstat(std::fs::File::open("/dev/null").unwrap()).unwrap();
        assert!(is_null(&null));
        show("/proc/self/mountinfo");
    });
    if let Some(text) = shown {
        let table = table(&text);
        let bound = |l: &String| l.starts_with("/null /dev/null ");
        assert!(table.iter().any(bound), "{}", table.join("\n"));
        assert!(table.iter().any(|l| l.starts_with("/sys /data ro,")), "{}", table.join("\n"));
    }
}

/// Returns the mount point of cgroup2, and this process's cgroup in it.
fn unified_cgroup() -> Option<(String, String)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let place =
        mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find(|l| l[2] == "cgroup2");
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|l| l.strip_prefix("0::"))?.to_owned();
    Some((place?[1].to_owned(), own))
}

/// A bind mount of the own directory looks like a new mount in the cgroup namespace.
#[test]
fn the_view_of_cgroup2_is_that_of_a_new_mount() {
    let Some((place, own)) = unified_cgroup() else {
        return skip::inapplicable("this host has no cgroup2");
    };
    // In the cgroup namespace, the own cgroup is /.
    let variable = format!("ARIL_TEST_UNIFIED={place}{}", own.trim_end_matches('/'));
    let more = ["--cgroup", "env", &variable];
    let shown = isolated_more("the_view_of_cgroup2_is_that_of_a_new_mount", &more, |bundle| {
        let source = std::env::var("ARIL_TEST_UNIFIED").unwrap();
        let rootfs = bundle.join("rootfs");
        let all = mounts(
            r#"[{"destination":"/proc","type":"proc"},
                {"destination":"/a","type":"cgroup","options":["nosuid","noexec","nodev","ro"]},
                {"destination":"/b","type":"cgroup2","options":["nosuid","noexec","nodev","ro"]}]"#,
        );
        let mut request = request(bundle, &rootfs, &all);
        request.cgroup = CgroupView::Unified(Path::new(&source));
        enact(&request, false).unwrap();
        let [a, b] = ["/a", "/b"].map(|path| nix::sys::stat::stat(path).unwrap());
        assert_eq!((a.st_dev, a.st_ino), (b.st_dev, b.st_ino));
        show("/proc/self/mountinfo");
    });
    if let Some(text) = shown {
        let table = table(&text);
        for place in ["/a", "/b"] {
            let line = format!("/ {place} ro,nosuid,nodev,noexec,relatime cgroup2");
            assert!(table.contains(&line), "{line} is not in\n{}", table.join("\n"));
        }
    }
}
