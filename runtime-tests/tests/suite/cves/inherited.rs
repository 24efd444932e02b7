//! What of the runtime's own is left within reach: its descriptors, its memory, its files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use runtime_tests::{Container, in_each_view, on_the_host, skip};
use serde_json::json;

/// Descriptors of the host's, some of them open in the caller.
const OPEN: &str = "exec 5</etc/passwd 7</ 8</proc 9</sys; exec \"$@\"";

/// CVE-2024-21626, GHSA-xr7r-f8xq-vfvv: `/proc/self/fd/N` as the working directory.
#[test]
fn a_descriptor_is_no_working_directory() {
    on_the_host(|view| {
        let host_root = fs::read_dir("/").expect("/").count();
        for number in 3..20 {
            let cwd = format!("/proc/self/fd/{number}");
            let c = Container::new(view).args(["ls", "-a", "."]);
            let c = c.edit(|spec| spec["process"]["cwd"] = cwd.clone().into());
            let out = c.run_call(&[]).in_shell(OPEN).output();
            let seen = out.stdout.lines().count();
            assert!(out.code != Some(0) || seen < host_root, "{cwd}: {out:?}");
            assert!(out.code != Some(0) || !c.runtime.is_aril(), "{cwd}: {out:?}");
        }
        let c = Container::new(view).sleeper();
        c.run_detached();
        for number in 3..20 {
            let cwd = format!("/proc/self/fd/{number}");
            let call = c.call(["exec", "--cwd", &cwd, &c.id, "ls", "../../../../.."]);
            let out = call.in_shell(OPEN).output();
            assert!(!out.stdout.contains("boot"), "{cwd}: {out:?}");
            assert!(out.code != Some(0) || !c.runtime.is_aril(), "{cwd}: {out:?}");
        }
    });
}

/// CVE-2024-21626: the same as the program.
#[test]
fn a_descriptor_is_no_program() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let open = "exec 5</bin/true 6</bin/busybox; exec \"$@\"";
        for number in 3..12 {
            let program = format!("/proc/self/fd/{number}");
            let run = Container::new(view).args([&program]);
            let out = run.run_call(&[]).in_shell(open).output();
            assert!(out.code != Some(0), "{program}: {out:?}");
            let out = c.call(["exec", &c.id, &program]).in_shell(open).output();
            assert!(out.code != Some(0), "exec {program}: {out:?}");
        }
    });
}

/// What the first program and one of `exec` find open: standard input, output and error; 3 is `ls`'s
/// own of the directory it lists.
#[test]
fn three_descriptors_and_no_more() {
    in_each_view(|view| {
        let script = "ls /proc/self/fd | tr '\\n' ' '";
        let c = Container::new(view).script(script);
        let out = c.run_call(&[]).in_shell(OPEN).ok();
        assert_eq!(out.stdout, "0 1 2 3 ");
        let c = Container::new(view).sleeper();
        c.run_call(&["-d"]).in_shell(OPEN).ok();
        let out = c.call(["exec", &c.id, "sh", "-c", script]).in_shell(OPEN).ok();
        assert_eq!(out.stdout, "0 1 2 3 ");
    });
}

/// CVE-2016-9962: the process of an `exec`, between its joining and its execve, is seen by the
/// container's others. None of what it holds may be.
#[test]
fn a_process_on_its_way_in_cannot_be_looked_into() {
    on_the_host(|view| {
        let watch = "while :; do for p in /proc/[0-9]*; do \
                     [ $p = /proc/$$ ] || [ $p = /proc/1 ] || { \
                     echo \"comm $(cat $p/comm)\"; echo \"line $(cat $p/cmdline)\"; \
                     for f in $p/exe $p/cwd $p/root $p/fd/*; do readlink $f; done; }; \
                     done; done 2>/dev/null";
        let c = writable_tmp(view).script(&format!("{watch} > /tmp/seen; sleep 1000"));
        c.run_detached();
        // Each is held up when it has no more capabilities than those who watch.
        let Some(strace) = skip::tool("strace", "strace") else { return };
        for _ in 0..4 {
            let held = format!(
                "exec {} -f -qq -o /dev/null -e trace=capset \
                 -e inject=capset:delay_exit=400000 \"$@\"",
                strace.display()
            );
            c.call(["exec", "--env", "A=secret", &c.id, "true"]).in_shell(&held).ok();
        }
        let seen = fs::read_to_string(c.path("tmp/seen")).expect("what was seen");
        assert!(!seen.contains("secret"), "{seen}");
        // Under its own name, a thread's, or that of the descriptor it was executed by.
        let there =
            |line: &str| line.strip_prefix("comm ").is_some_and(|n| n != "sh" && n != "cat");
        assert!(seen.lines().any(there), "the processes were not seen at all: {seen}");
        // Its standard output and error are given to the program, so that they may be seen.
        let ours = ["/rootfs", "/state", "exec.fifo", "socket:", "anon_inode:"];
        let own = |line: &str| line.ends_with("/aril") || ours.iter().any(|o| line.contains(o));
        let told = |line: &str| line.starts_with("comm ") || line == "line aril init";
        let reached = |line: &&str| !told(line) && own(line);
        let reached: Vec<&str> = seen.lines().filter(reached).collect();
        assert!(reached.is_empty(), "{reached:?}");
    });
}

/// Those who share its pid namespace and are root, where it is made in a user namespace, or in which it is,
/// may trace it by right: unless it is hidden from the first moment they find the host's files under its root.
#[test]
fn a_process_on_its_way_to_a_user_namespace_cannot_be_looked_into() {
    on_the_host(|view| {
        let Some(strace) = skip::tool("strace", "strace") else { return };
        for joined in [false, true] {
            let attacker = writable_tmp(view);
            let canary = attacker.file("canary", "of the host's");
            let look = format!(
                "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || {{ echo \"$(cat $p/comm)\"; \
                 cat $p/root{}; }}; done; done > /tmp/seen 2>/dev/null",
                canary.display()
            );
            let attacker = attacker.script(&look).edit(|spec| {
                for set in ["bounding", "effective", "permitted"] {
                    let list = spec["process"]["capabilities"][set].as_array_mut().expect("a set");
                    list.extend(joined.then(|| "CAP_SYS_PTRACE".into()));
                }
            });
            let attacker = if joined { attacker.in_user_namespace(100_000) } else { attacker };
            fs::set_permissions(attacker.path("tmp"), fs::Permissions::from_mode(0o777))
                .expect("chmod");
            attacker.run_detached();
            let of_attacker = |kind: &str| {
                let path = format!("/proc/{}/ns/{kind}", attacker.pid());
                json!({"type": kind, "path": path})
            };
            let victim = Container::new(view).args(["true"]).namespace(of_attacker("pid"));
            let victim = match joined {
                true => victim.in_user_namespace(100_000).namespace(of_attacker("user")),
                false => victim.in_user_namespace(200_000),
            }
            // Of the other's pid namespace it may mount none.
            .edit(|spec| {
                spec["mounts"].as_array_mut().expect("mounts").retain(|m| m["type"] != "proc")
            });
            // Held up at the first thing that it does.
            let held = format!(
                "exec {} -f -qq -o /dev/null -e trace=prctl -e inject=prctl:delay_enter=300000 \"$@\"",
                strace.display()
            );
            for _ in 0..2 {
                victim.run_call(&[]).in_shell(&held).ok();
            }
            let seen = fs::read_to_string(attacker.path("tmp/seen")).expect("what was seen");
            let there = |line: &str| !["sh", "cat", ""].contains(&line);
            assert!(seen.lines().any(there), "the processes were not seen at all: {seen}");
            assert!(!seen.contains("of the host's"), "joined {joined}: {seen}");
        }
    });
}

fn writable_tmp(view: runtime_tests::View) -> Container {
    let c = Container::new(view);
    let tmp = c.directory("tmp");
    c.mounting(runtime_tests::spec::bind(&tmp, "/tmp", &["rw"]))
}

/// CVE-2021-41103, CVE-2024-25621: directories of the runtime that anybody on the host may enter, and
/// with them set-user-id programs of an image. Whatever the caller's umask.
#[test]
fn the_state_is_closed_to_others() {
    on_the_host(|view| {
        for umask in ["000", "022"] {
            let c = Container::new(view).sleeper();
            if !c.runtime.only_aril("runc leaves 0711") {
                return;
            }
            c.run_call(&["-d"]).in_shell(&format!("umask {umask}; exec \"$@\"")).ok();
            let mut pending = vec![c.root.join(&c.id)];
            while let Some(path) = pending.pop() {
                let metadata = fs::symlink_metadata(&path).expect("metadata");
                let mode = metadata.permissions().mode() & 0o7777;
                let closed = if metadata.is_dir() { mode & 0o066 == 0 } else { mode & 0o022 == 0 };
                assert!(closed, "{}: {mode:o}", path.display());
                if metadata.is_dir() {
                    let entries = fs::read_dir(&path).expect("a directory").flatten();
                    pending.extend(entries.map(|entry| entry.path()));
                }
            }
            let root = fs::metadata(&c.root).expect("metadata").permissions().mode() & 0o7777;
            assert_eq!(root & 0o066, 0, "{root:o}");
        }
    });
}
