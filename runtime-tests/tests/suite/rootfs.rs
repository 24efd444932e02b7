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
