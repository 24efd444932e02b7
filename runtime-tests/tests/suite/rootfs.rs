//! Attacks on the rootfs and what the host must not notice. What mounts look like from inside is
//! compared line by line in `observer`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use runtime_tests::spec::bind;
use runtime_tests::{Container, in_each_view, on_the_host};
use serde_json::json;

fn writable(c: Container) -> Container {
    c.edit(|spec| spec["root"]["readonly"] = false.into())
}

#[test]
fn the_hosts_mounts_are_as_before() {
    in_each_view(|view| {
        let own = |text: String| {
            let others = |line: &&str| !line.contains("aril-test");
            text.lines().filter(others).map(str::to_owned).collect::<Vec<_>>()
        };
        let read = || own(fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"));
        let before = read();
        let c = Container::new(view).sleeper();
        c.run_detached();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&c.mark), "seen from the host while running: {mounts}");
        c.delete_by_force().ok();
        assert_eq!(read(), before);
    });
}

#[test]
fn targets_stay_in_the_root() {
    on_the_host(|view| {
        for target in ["/escape", "/escape/deeper", "/up/../../../escape/x"] {
            let c = writable(Container::new(view)).script("true");
            let outside = c.directory("outside");
            symlink(&outside, c.rootfs().join("escape")).expect("a link");
            fs::create_dir(c.rootfs().join("up")).expect("a directory");
            let source = c.directory("source");
            let file = c.file("file", "text");
            let c = c.mounting(bind(&source, target, &[]));
            let c = c.mounting(bind(&file, &format!("{target}-file"), &[]));
            let c = c.edit(|spec| {
                spec["linux"]["maskedPaths"] = json!(["/escape"]);
                spec["process"]["cwd"] = "/escape/cwd".into();
            });
            let _ = c.run(); // Whether it succeeds is not the point.
            let made: Vec<_> = fs::read_dir(&outside).expect("outside").flatten().collect();
            assert!(made.is_empty(), "{target}: {made:?}");
        }
    });
}

#[test]
fn devices_stay_in_the_root() {
    on_the_host(|view| {
        let c = writable(Container::new(view));
        if !c.runtime.only_aril("runc 1.1.5 makes its links in /dev outside") {
            return;
        }
        let outside = c.directory("outside");
        fs::remove_dir(c.rootfs().join("dev")).expect("rmdir");
        symlink(&outside, c.rootfs().join("dev")).expect("a link");
        let _ = c.run();
        let made: Vec<_> = fs::read_dir(&outside).expect("outside").flatten().collect();
        assert!(made.is_empty(), "{made:?}");
    });
}

#[test]
fn a_root_of_its_own() {
    on_the_host(|view| {
        let c = Container::new(view).script(
            "cd ..; cd ../../..; ls -di . /; test -e /etc/passwd; \
             grep -c ' / / ' /proc/self/mountinfo; ls /proc/1/root/bin/probe",
        );
        let out = c.run().ok();
        let inodes: Vec<&str> =
            out.stdout.lines().take(2).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(inodes[0], inodes[1]);
        let own = fs::metadata(c.rootfs()).expect("rootfs").ino().to_string();
        assert_eq!(inodes[0], own);
    });
}

#[test]
fn propagation_reaches_and_stays_as_asked() {
    on_the_host(|view| {
        let c = Container::new(view)
            .script("grep -E ' (/|/proc|/mnt) ' /proc/self/mountinfo | grep -cE 'shared:|master:'");
        let source = c.directory("source");
        let c = c.mounting(bind(&source, "/mnt", &["rprivate"]));
        let out = c.run();
        assert_eq!(out.stdout.trim(), "0", "nothing leads back to the host: {out:?}");
    });
}

#[test]
fn masked_paths_show_nothing() {
    in_each_view(|view| {
        let c = writable(Container::new(view)).script(
            "cat /secret-file; ls -A /secret-directory; echo x > /secret-file; \
             touch /secret-directory/x 2>/dev/null && echo written; stat -c %t:%T /secret-file",
        );
        fs::write(c.rootfs().join("secret-file"), "secret").expect("a file");
        fs::create_dir(c.rootfs().join("secret-directory")).expect("a directory");
        fs::write(c.rootfs().join("secret-directory/file"), "secret").expect("a file");
        let c = c.edit(|spec| {
            spec["linux"]["maskedPaths"] =
                json!(["/secret-file", "/secret-directory", "/not-there", "/secret-file"]);
        });
        let out = c.run();
        assert_eq!(out.stdout, "1:3\n", "{out:?}");
        assert_eq!(fs::read_to_string(c.rootfs().join("secret-file")).expect("kept"), "secret");
    });
}

#[test]
fn a_link_in_the_place_of_null_does_not_unmask() {
    on_the_host(|view| {
        // The mask is a bind of /dev/null: one that the image has replaced must not be trusted.
        let c = writable(Container::new(view)).script("cat /secret-file");
        fs::write(c.rootfs().join("secret-file"), "secret").expect("a file");
        symlink("/secret-file", c.rootfs().join("dev/null")).expect("a link");
        let c = c.edit(|spec| {
            spec["mounts"]
                .as_array_mut()
                .expect("mounts")
                .retain(|m| !m["destination"].as_str().expect("a path").starts_with("/dev"));
            spec["linux"]["maskedPaths"] = json!(["/secret-file"]);
        });
        let out = c.run();
        assert!(!out.stdout.contains("secret"), "{out:?}");
    });
}

#[test]
fn recursive_read_only() {
    on_the_host(|view| {
        let c = Container::new(view).script("echo x > /mnt/deep/file; echo y > /mnt/file");
        if !c.runtime.only_aril("runc 1.1.5 may not know rro on every build") {
            return;
        }
        let source = c.directory("source");
        fs::create_dir(source.join("deep")).expect("a directory");
        let c = c.mounting(bind(&source, "/mnt", &["rro"]));
        let out = c.run();
        assert_eq!(out.stderr.matches("Read-only file system").count(), 2, "{out:?}");
    });
}

#[test]
fn pseudo_terminals_are_the_containers() {
    on_the_host(|view| {
        let c = Container::new(view)
            .script("ls /dev/pts; readlink /dev/ptmx; stat -c %a /dev/pts/ptmx");
        let out = c.run().ok();
        assert_eq!(out.stdout, "ptmx\npts/ptmx\n666\n");
    });
}

#[test]
fn copy_up_keeps_owner_mode_and_attributes() {
    on_the_host(|view| {
        let c = writable(Container::new(view));
        if !c.runtime.only_aril("that runc copies attributes is not seen from its output") {
            return;
        }
        let below = c.rootfs().join("mnt");
        fs::create_dir(below.join("deep")).expect("a directory");
        for (name, mode, owner) in [("deep/file", 0o4750, 8), ("plain", 0o604, 0)] {
            use std::os::unix::fs::PermissionsExt as _;
            let file = below.join(name);
            fs::write(&file, "text").expect("a file");
            std::os::unix::fs::chown(&file, Some(owner), Some(owner)).expect("chown");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
        }
        // A capability of the file (VFS_CAP_REVISION_2, CAP_NET_RAW): ping in an image has it.
        let capability = "0x0100000200200000000000000000000000000000";
        let file = below.join("plain").display().to_string();
        let value: Vec<u8> = (2..capability.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&capability[at..at + 2], 16).expect("hex"))
            .collect();
        set_attribute(&file, c"security.capability", &value);
        let tmpfs = json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                           "options": ["tmpcopyup"]});
        let c = c.mounting(tmpfs).sleeper();
        c.run_detached();
        let inside = format!("/proc/{}/root/mnt/plain", c.pid());
        assert_eq!(attribute(&inside, c"security.capability"), value);
        let stat = "stat -c '%a %u:%g %n' /mnt/* /mnt/deep/*";
        let out = c.exec(["sh", "-c", stat]).ok();
        for line in ["4750 8:8 /mnt/deep/file", "604 0:0 /mnt/plain"] {
            assert!(out.stdout.lines().any(|l| l == line), "{line}: {out:?}");
        }
    });
}

fn set_attribute(path: &str, name: &std::ffi::CStr, value: &[u8]) {
    let path = std::ffi::CString::new(path).expect("a path");
    // SAFETY: path and name are NUL terminated, value is as long as is said; all are only read.
    let done = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    assert_eq!(done, 0, "setxattr: {}", std::io::Error::last_os_error());
}

fn attribute(path: &str, name: &std::ffi::CStr) -> Vec<u8> {
    let path = std::ffi::CString::new(path).expect("a path");
    let mut value = vec![0_u8; 256];
    // SAFETY: as above; at most as many bytes are written as the buffer has.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(
        usize::try_from(length)
            .unwrap_or_else(|_| panic!("getxattr {path:?}: {}", std::io::Error::last_os_error())),
    );
    value
}
