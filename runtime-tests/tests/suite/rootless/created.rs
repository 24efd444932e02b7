//! Between create and start of an ordinary user's container: its init is accessible to its user, so
//! that `exec` can join it.

use std::fs;
use std::os::unix::fs::chown;

use runtime_tests::container::wait_until;
use runtime_tests::on_the_host;
use serde_json::{Value, json};

use super::{Bundle, SOMEBODY};
use crate::seccomp_notify::{Agent, fake};

#[test]
fn exec_joins_a_created_container() {
    on_the_host(|view| {
        for filtered in [false, true] {
            let Some(b) = Bundle::new(view) else { return };
            let b = b.edit(|spec| {
                if filtered {
                    spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
                }
            });
            b.c.write_config();
            let id = b.c.id.clone();
            b.call(["create", &id]).ok();
            b.call(["exec", &id, "sh", "-c", "id -u; echo $$"]).ok().prints("0\n2\n");
            assert_eq!(b.c.status(), "created");
            b.call(["start", &id]).ok();
            b.call(["exec", &id, "cat", "/proc/1/cmdline"]).ok().prints("sleep\x001000\x00");
            b.call(["delete", "--force", &id]).ok();
            b.c.leaves_nothing();
        }
    });
}

/// What `exec` starts in a created container may trace init, as the program itself could be: nothing of
/// the host is within reach, and init has the filter of its program.
#[test]
fn init_shows_nothing_of_the_host() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        if !b.c.runtime.only_aril("runc's init has open descriptors and variables of its own") {
            return;
        }
        let b = b.edit(|spec| {
            for set in ["bounding", "effective", "permitted"] {
                let set = spec["process"]["capabilities"][set].as_array_mut().expect("a set");
                set.push("CAP_SYS_PTRACE".into());
            }
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        });
        b.c.write_config();
        let id = b.c.id.clone();
        b.call(["create", &id]).env("CALLERS", "secret").ok();
        let look = |script: &str| b.call(["exec", &id, "sh", "-c", script]).ok().stdout;
        assert_eq!(
            look("grep -E '^(Seccomp|NoNewPrivs):' /proc/1/status"),
            "NoNewPrivs:\t1\nSeccomp:\t2\n"
        );
        let environment = look("tr '\\0' '\\n' < /proc/1/environ");
        assert!(
            !environment.contains("secret") && !environment.contains("PATH"),
            "{environment:?}"
        );
        let root = look("ls /proc/1/root/ /proc/1/cwd/");
        assert!(root.contains("proc") && !root.contains("boot"), "{root}");
        let open =
            look("for f in /proc/1/fd/*; do [ -d $f ] && echo \"directory $f\"; readlink $f; done");
        let descriptors: Vec<&str> = open.lines().collect();
        assert!(descriptors.iter().any(|path| path.ends_with("/exec.fifo")), "{open}");
        for path in descriptors {
            let given = path.starts_with("pipe:") || path.starts_with(&*b.c.dir.to_string_lossy());
            assert!(given || path.starts_with("socket:") || path == "/dev/null", "{open}");
        }
        b.call(["delete", "--force", &id]).ok();
    });
}

/// The listener is taken from a process that an ordinary user could not look into.
#[test]
fn an_agent_answers_for_the_kernel() {
    on_the_host(|view| {
        for new_privileges in [false, true] {
            let Some(b) = Bundle::new(view) else { return };
            let number = libc::SYS_getpgid.to_string();
            let socket = b.c.path("agent");
            let b = b.script(&format!("probe --call native {number} 0; exec sleep 1000")).edit(
                |spec| {
                    spec["process"]["noNewPrivileges"] = json!(!new_privileges);
                    spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "listenerPath": socket,
                    "syscalls": [{"names": ["getpgid"], "action": "SCMP_ACT_NOTIFY"}]});
                },
            );
            b.c.write_config();
            let id = b.c.id.clone();
            let agent = || {
                let _ = fs::remove_file(&socket);
                let agent = Agent::at(&socket, fake);
                chown(&socket, Some(SOMEBODY), Some(SOMEBODY)).expect("chown");
                agent
            };
            let first = agent();
            b.call(["create", &id]).ok();
            let in_created = agent();
            b.call(["exec", &id, "probe", "--call", "native", &number, "0"]).ok().prints("4242\n");
            assert_eq!(in_created.end().1, 1);
            b.call(["start", &id]).ok();
            wait_until("the program", || {
                let line = fs::read(format!("/proc/{}/cmdline", b.c.pid())).unwrap_or_default();
                line.starts_with(b"sleep\0")
            });
            let in_running = agent();
            b.call(["exec", &id, "probe", "--call", "native", &number, "0"]).ok().prints("4242\n");
            let (state, answered) = in_running.end();
            assert_eq!((&state["state"]["status"], answered), (&Value::from("running"), 1));
            b.call(["delete", "--force", &id]).ok();
            assert_eq!(first.end().1, 1);
            let of_run = agent();
            let b = b.script(&format!("probe --call native {number} 0"));
            b.run(&[]).ok().prints("4242\n");
            assert_eq!(of_run.end().1, 1);
            b.c.leaves_nothing();
        }
    });
}
