//! A root of layers is a file system like another: the same verdicts as on a plain folder, by
//! stress-ng's file-system stressors and by a program of our own for what they do not try.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::Mode;
use runtime_tests::{Container, View, on_the_host, skip, spec};
use serde_json::json;

/// The stressors that need no device and no privilege that a container lacks, with their options. Left out are io,
/// which syncs the whole host, procfs, which is not about files of the root, and fpunch: that of Debian 13 reads what
/// its other processes write, and fails on a tmpfs of the host as well.
const STRESSORS: [(&str, &str); 43] = [
    ("access", ""),
    ("chattr", ""),
    ("chdir", "--chdir-dirs 64"),
    ("chmod", ""),
    ("chown", ""),
    ("copy-file", "--copy-file-bytes 128m"),
    ("dentry", ""),
    ("dir", "--dir-dirs 256"),
    ("dirdeep", "--dirdeep-inodes 256"),
    ("dirmany", ""),
    ("dnotify", ""),
    ("dup", ""),
    ("fallocate", "--fallocate-bytes 8m"),
    ("fcntl", ""),
    ("file-ioctl", ""),
    ("filename", ""),
    ("flock", ""),
    ("fsize", ""),
    ("fstat", ""),
    ("getdent", ""),
    ("hdd", "--hdd-bytes 4m"),
    ("inode-flags", ""),
    ("inotify", ""),
    ("iomix", "--iomix-bytes 4m"),
    ("lease", ""),
    ("link", ""),
    ("locka", ""),
    ("lockf", ""),
    ("lockofd", ""),
    ("mknod", ""),
    ("mmap", "--mmap-file --mmap-bytes 4m"),
    ("msync", "--msync-bytes 4m"),
    ("open", ""),
    ("readahead", "--readahead-bytes 4m"),
    ("rename", ""),
    ("revio", "--revio-bytes 4m"),
    ("seek", "--seek-size 4m"),
    ("sendfile", "--sendfile-size 1m"),
    ("splice", ""),
    ("sync-file", "--sync-file-bytes 4m"),
    ("touch", ""),
    ("utime", ""),
    ("xattr", ""),
];

/// A few operations of each stressor, and no more than a second. Newer versions say how many they skipped, and with
/// which process ID. One that fails without naming a fault was stopped before it had done anything, as happens on a
/// loaded machine: it is started again, with twice the time.
fn exerciser() -> String {
    let mut script = String::from("mkdir /scratch\n");
    for (name, more) in STRESSORS {
        let _ = writeln!(
            script,
            "for time in 1 2 4 8 16 32 64; do said=$(busybox timeout 600 stress-ng --temp-path /scratch --timeout $time \
             --verify --{name} 1 --{name}-ops 20 {more} 2>&1); code=$?; \
             verdict=$(echo \"$said\" | grep -v 'skipped: 0$' | grep -E ' fail: |skip' | sed 's/\\[[0-9]*\\]//'); \
             [ $code = 2 ] && [ -z \"$verdict\" ] || break; done; echo {name} $code; echo \"$verdict\"; \
             [ $code = 0 ] || echo \"$said\" >&2"
        );
    }
    script + "ls /scratch"
}

/// The roots that are compared: none for the plain folder.
const UPPERS: [Option<&str>; 4] = [None, Some("ephemeral"), Some("tmpfs"), Some("./kept")];

/// A container that has the host's programs, on a root of that kind.
fn container(view: View, upper: Option<&str>) -> Option<Container> {
    let mut c = Container::new(view).edit(|spec| {
        spec["root"]["readonly"] = false.into();
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(spec::FOURTEEN);
        }
    });
    if let Some(upper) = upper {
        if !c.runtime.only_aril("layers by annotation are its own") {
            return None;
        }
        c = c.annotated("io.aril.rootfs.upper", upper);
    }
    for folder in ["/usr", "/lib", "/lib64"].map(Path::new).iter().filter(|f| f.exists()) {
        c = c.mounting(spec::bind(folder, folder.to_str().expect("utf-8"), &["ro"]));
    }
    Some(c)
}

/// An emulated processor takes its time.
const PATIENCE: Duration = Duration::from_secs(900);

/// What the script prints must be the same on each kind of root.
fn is_the_same(view: View, prepare: impl Fn(&Path), script: &str) -> Option<String> {
    let mut containers = Vec::new();
    for upper in UPPERS {
        let c = container(view, upper)?;
        prepare(&c.rootfs());
        containers.push((upper, c.script(script)));
    }
    // Beside each other: most of the time they wait for the disk.
    let running: Vec<_> =
        containers.iter().map(|(_, c)| c.run_call(&[]).patient(PATIENCE).spawn()).collect();
    let outputs: Vec<_> = running.into_iter().map(|call| call.wait().ok()).collect();
    let plain = &outputs[0].stdout;
    for ((upper, c), output) in containers.iter().zip(&outputs) {
        let only = |a: &str, b: &str| {
            let missing = a.lines().filter(|line| !b.lines().any(|other| other == *line));
            missing.map(str::to_owned).collect::<Vec<_>>()
        };
        let (here, there) = (only(&output.stdout, plain), only(plain, &output.stdout));
        assert!(
            output.stdout == *plain,
            "{upper:?}: {here:#?}, in a plain directory: {there:#?}\n{}",
            output.stderr
        );
        c.leaves_nothing();
    }
    outputs.into_iter().next().map(|output| output.stdout)
}

#[test]
fn stressors_pass_as_in_a_plain_directory() {
    on_the_host(|view| {
        if skip::tool("stress-ng", "stress-ng").is_none() {
            return;
        }
        let Some(verdicts) = is_the_same(view, |_| (), &exerciser()) else { return };
        let passed = verdicts.lines().filter(|line| line.ends_with(" 0")).count();
        assert_eq!(passed, STRESSORS.len(), "{verdicts}");
    });
}

/// Of everything that a file system keeps.
fn plant(image: &Path) {
    let tree = image.join("tree");
    for folder in ["up", "gone/sub", "was_folder", "many", "rename/full", "rename/empty"] {
        fs::create_dir_all(tree.join(folder)).expect("a folder");
    }
    let write = |name: &str, text: &[u8]| {
        let file = tree.join(name);
        fs::write(&file, text).expect("a file");
        file
    };
    for name in [
        "append",
        "overwrite",
        "truncate",
        "open_trunc",
        "chmod",
        "chown",
        "utime",
        "setxattr",
        "removexattr",
        "link",
        "rename",
        "only_read",
        "suid_write",
        "both",
    ] {
        let file = write(&format!("up/{name}"), b"lower text\n");
        chown(&file, Some(3), Some(4)).expect("chown");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("chmod");
        set_note(&file);
        let early = std::time::UNIX_EPOCH + Duration::new(86_400, 123_456_789);
        let times = fs::FileTimes::new().set_modified(early);
        fs::File::options().write(true).open(&file).expect("open").set_times(times).expect("utime");
    }
    for name in ["gone/file", "gone/sub/file", "was_file", "rename/a", "rename/b", "unlinked"] {
        write(name, name.as_bytes());
    }
    write("rename/full/file", b"x");
    for number in 0..300 {
        write(&format!("many/{number}"), b"");
    }
    let large: Vec<u8> =
        (0..8_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write("large", &large);
    write("mapped", &large[..8192]);
    let sparse = fs::File::create(tree.join("sparse")).expect("a file");
    std::os::unix::fs::FileExt::write_at(&sparse, &large[..4096], 8 << 20).expect("write");
    sparse.set_len(32 << 20).expect("truncate");
    symlink("up/chmod", tree.join("symlink")).expect("a symlink");
    nix::unistd::mkfifo(&tree.join("fifo"), Mode::from_bits_truncate(0o600)).expect("a fifo");
}

fn set_note(file: &Path) {
    let set = std::process::Command::new("setfattr")
        .args(["-n", "user.note", "-v", "lower"])
        .arg(file)
        .status();
    assert!(set.expect("setfattr").success());
}

#[test]
fn changes_of_the_image_read_the_same_as_on_a_plain_folder() {
    on_the_host(|view| {
        if skip::tool("python3", "python3-minimal").and(skip::tool("setfattr", "attr")).is_none() {
            return;
        }
        let program = |image: &Path| {
            plant(image);
            fs::write(image.join("program.py"), include_str!("overlay_exerciser.py"))
                .expect("a file");
        };
        let Some(lines) = is_the_same(view, program, "python3 /program.py 2>&1") else { return };
        assert!(!lines.contains("Traceback"), "{lines}");
        // It did what it says: a few of the lines, one of each kind.
        for line in ["rmdir full: ENOTEMPTY", "its length: 2048", "by the map: b'shared'"] {
            assert!(lines.lines().any(|l| l == line), "{line}: {lines}");
        }
    });
}

/// What docs/rootfs.md says about the kernel's overlayfs: if it changes, the page is wrong.
#[test]
fn differences_to_a_plain_directory_are_documented() {
    on_the_host(|view| {
        for (upper, says) in [(None, "one\nother\n0\n"), (Some("ephemeral"), "one\n1\n")] {
            let Some(c) = container(view, upper) else { return };
            let image = c.rootfs();
            fs::create_dir(image.join("folder")).expect("a folder");
            fs::write(image.join("one"), "one\n").expect("a file");
            fs::hard_link(image.join("one"), image.join("other")).expect("a link");
            let c = c.script(
                "echo other >> /one; cat /other; \
                 perl -e 'rename(\"/folder\", \"/moved\") or exit 1'; echo $?; \
                 test -d /moved || mv /folder /moved; test -d /moved",
            );
            c.run().ok().prints(says);
        }
    });
}
