//! The runtime's own binary, which a container can hold open: CVE-2019-5736.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use runtime_tests::container::wait_until;
use runtime_tests::{Container, View, on_the_host};
use serde_json::json;

/// A copy of the runtime's binary where root may write, and its bytes.
struct Copy {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Copy {
    fn of(c: &Container) -> Self {
        let path = c.path("runtime");
        fs::copy(&c.runtime.path, &path).expect("a copy");
        Self { bytes: fs::read(&path).expect("read"), path }
    }
}

/// Every capability, or the default ones.
fn thief(view: View, capabilities: bool) -> Container {
    let c = Container::new(view).args(["probe", "--steal"]);
    c.edit(|spec| {
        if capabilities {
            let all = json!(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = all.clone();
            }
        }
        spec["process"]["noNewPrivileges"] = json!(false);
        spec["root"]["readonly"] = json!(false);
    })
}

/// Runs the thief in a container, then `victim` until the thief has caught it.
fn is_not_written(victim: impl Fn(&Container, &Copy)) {
    on_the_host(|view| {
        for capabilities in [false, true] {
            let c = thief(view, capabilities);
            if !c.runtime.only_aril("others are linked dynamically and do not run inside") {
                return;
            }
            let copy = Copy::of(&c);
            c.write_config();
            let loot = c.path("loot");
            let call = c.bare(&copy.path, "thief").arg("--root").arg(&c.root);
            let call = call.args(["run", "-d", "-b", c.dir.to_str().expect("utf-8")]).arg(&c.id);
            call.in_shell(&format!("exec \"$@\" > {}", loot.display())).ok();
            let said = || fs::read_to_string(&loot).unwrap_or_default();
            wait_until("the thief", || said().contains("waiting"));
            wait_until("a theft", || {
                victim(&c, &copy);
                said().contains("write: ")
            });
            wait_until("the end of the thief", || said().contains("tried"));
            let said = said();
            eprintln!("with CAP_SYS_ADMIN {capabilities}: {said}");
            assert!(!said.contains("opened for writing"), "{said}");
            assert!(fs::read(&copy.path).expect("read") == copy.bytes, "changed: {said}");
            // EROFS: it was caught on the read-only clone, not anything else.
            assert!(said.contains("write: refused with errno 30"), "{said}");
        }
    });
}

/// Whatever comes of it: the runtime may refuse its own binary as a program, or run it.
fn exec(c: &Container, copy: &Copy, args: &[&str]) {
    let call = c.bare(&copy.path, "victim").arg("--root").arg(&c.root).args(["exec", &c.id]);
    call.args(args).output();
}

#[test]
fn not_by_an_exec_of_the_runtime_itself() {
    is_not_written(|c, copy| exec(c, copy, &["/proc/self/exe", "--version"]));
}

#[test]
fn not_by_a_script_whose_interpreter_it_is() {
    is_not_written(|c, copy| {
        let script = c.rootfs().join("bin/script");
        fs::write(&script, "#!/proc/self/exe\n").expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
        exec(c, copy, &["/bin/script"]);
    });
}

#[test]
fn not_by_an_entrypoint_that_it_is() {
    is_not_written(|c, copy| {
        let pid = c.pid();
        let namespace = json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")});
        let other = Container::new(c.view).args(["/proc/self/exe", "--version"]);
        let other = other.namespace(namespace);
        other.write_config();
        let call = other.bare(&copy.path, "victim").arg("--root").arg(&other.root);
        call.args(["run", "-b", other.dir.to_str().expect("utf-8")]).arg(&other.id).output();
    });
}
