//! Between create and start, and behind the gate: where no caller waits any more.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use runtime_tests::container::wait_until;
use runtime_tests::{Container, on_the_host};
use serde_json::json;

/// What the container has written to the stderr that `create` gave it.
fn told(c: &Container) -> String {
    let files = fs::read_dir(c.path("calls")).expect("outputs").flatten();
    let errors =
        files.map(|f| f.path()).filter(|path| path.extension().is_some_and(|e| e == "err"));
    errors.map(|path| fs::read_to_string(path).expect("an output")).collect()
}

/// Whoever the process is by then, it must get through the gate.
#[test]
fn a_user_without_capabilities_is_started() {
    on_the_host(|view| {
        for umask in ["022", "077"] {
            let c = Container::new(view).sleeper().edit(|spec| {
                spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                spec["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
            });
            let script = format!("umask {umask}; exec \"$@\"");
            c.create_call(&[]).in_shell(&script).ok();
            assert_eq!(c.status(), "created");
            c.start();
            wait_until("the program", || {
                let line = fs::read(format!("/proc/{}/cmdline", c.pid())).unwrap_or_default();
                line.starts_with(b"sleep\0")
            });
        }
    });
}

/// `start` has succeeded by then: the container's own output is where its user looks.
#[test]
fn a_program_of_no_format_is_told_on_the_containers_stderr() {
    on_the_host(|view| {
        let c = Container::new(view).args(["/bin/junk"]);
        let junk = c.rootfs().join("bin/junk");
        fs::write(&junk, "no program\n\0").expect("a file");
        fs::set_permissions(&junk, fs::Permissions::from_mode(0o755)).expect("its mode");
        c.create();
        c.start();
        c.wait_for("stopped");
        assert_eq!(told(&c), "exec /bin/junk: exec format error\n");
    });
}

/// Docker explains this errno, and not the one of move_mount(2), to its users.
#[test]
fn a_directory_on_a_file_is_not_a_directory() {
    on_the_host(|view| {
        let mount = runtime_tests::spec::bind(Path::new("/etc"), "/etc/passwd", &[]);
        let c = Container::new(view).mounting(mount);
        c.create_call(&[]).output().exits(1).says("not a directory");
        c.leaves_nothing();
    });
}
