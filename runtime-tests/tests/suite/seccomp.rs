//! Filters: argument rules, errno values, architectures, the calls that the profile's author did
//! not know.

use std::fs;
use std::os::unix::net::UnixListener;

use runtime_tests::{Container, View, on_the_host, spec};
use serde_json::{Value, json};

fn filtered(view: View, profile: &Value) -> Container {
    Container::new(view)
        .script("probe | grep -E '^call|Seccomp'")
        .edit(|spec| spec["linux"]["seccomp"] = profile.clone())
}

#[track_caller]
fn sees(profile: &Value, lines: &[&str]) {
    on_the_host(|view| {
        let out = filtered(view, profile).run().ok();
        for line in lines {
            assert!(out.stdout.lines().any(|seen| seen == *line), "{line:?} in {out:#?}");
        }
    });
}

#[test]
fn an_allow_list() {
    sees(
        &spec::seccomp::allow_list(),
        &[
            "status Seccomp 2",
            "call mount null: refused with errno 1",
            "call clone3 null: refused with errno 38",
            "call socket vsock: refused with errno 1",
            "call personality 8: allowed",
            // Newer than anything in the profile: as if the kernel did not have it.
            "call call number 5000: refused with errno 38",
        ],
    );
}

#[test]
fn a_deny_list() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99},
            {"names": ["no_such_call"], "action": "SCMP_ACT_KILL"},
        ],
    });
    sees(
        &profile,
        &[
            "call mount null: refused with errno 1",
            "call umount2 null: refused with errno 99",
            "call unshare nothing: allowed",
            "call call number 5000: refused with errno 38",
        ],
    );
}

/// Rules on the first argument of keyctl, which the probe calls with 9999 (EOPNOTSUPP if allowed).
fn keyctl(op: &str, value: u64, more: &Value) -> Value {
    let mut rule = json!({"index": 0, "value": value, "op": op});
    rule.as_object_mut().expect("rule").extend(more.as_object().expect("more").clone());
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [rule]}],
    })
}

#[test]
fn comparisons_of_arguments() {
    let hit = ["call keyctl 9999: refused with errno 77"];
    let miss = ["call keyctl 9999: refused with errno 95"];
    let none = json!({});
    for (op, value, expected) in [
        ("SCMP_CMP_EQ", 9999, &hit),
        ("SCMP_CMP_EQ", 9998, &miss),
        ("SCMP_CMP_NE", 9998, &hit),
        ("SCMP_CMP_NE", 9999, &miss),
        ("SCMP_CMP_GT", 9998, &hit),
        ("SCMP_CMP_GT", 9999, &miss),
        ("SCMP_CMP_GE", 9999, &hit),
        ("SCMP_CMP_GE", 10_000, &miss),
        ("SCMP_CMP_LT", 10_000, &hit),
        ("SCMP_CMP_LT", 9999, &miss),
        ("SCMP_CMP_LE", 9999, &hit),
        ("SCMP_CMP_LE", 9998, &miss),
        // Compared as 64 bits: the upper half counts.
        ("SCMP_CMP_EQ", 0x1_0000_270f, &miss),
        ("SCMP_CMP_LT", 0x1_0000_0000, &hit),
        ("SCMP_CMP_GT", 0x1_0000_0000, &miss),
    ] {
        sees(&keyctl(op, value, &none), expected);
    }
    // 9999 is 0x270f.
    sees(&keyctl("SCMP_CMP_MASKED_EQ", 0xff, &json!({"valueTwo": 0x0f})), &hit);
    sees(&keyctl("SCMP_CMP_MASKED_EQ", 0xff, &json!({"valueTwo": 0x0e})), &miss);
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let rule = |values: &[u64]| {
        let args: Vec<Value> = values
            .iter()
            .map(|value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}))
            .collect();
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": args}],
        })
    };
    sees(&rule(&[1, 9999]), &["call keyctl 9999: refused with errno 77"]);
    sees(&rule(&[1, 2]), &["call keyctl 9999: refused with errno 95"]);
}

#[test]
fn conditions_on_several_arguments_must_all_hold() {
    let rule = |second: u64| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [
                {"index": 0, "value": 9999, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": second, "op": "SCMP_CMP_EQ"},
            ]}],
        })
    };
    sees(&rule(0), &["call keyctl 9999: refused with errno 77"]);
    sees(&rule(1), &["call keyctl 9999: refused with errno 95"]);
}

#[test]
fn killing_actions() {
    on_the_host(|view| {
        let profile = |action: &str| {
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                   "syscalls": [{"names": ["mkdir"], "action": action}]})
        };
        for action in
            ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]
        {
            let c = filtered(view, &profile(action)).args(["mkdir", "/tmp/x"]);
            c.run().exits(128 + 31);
        }
        let c = filtered(view, &profile("SCMP_ACT_LOG")).args(["mkdir", "/dev/shm/x"]);
        c.run().ok();
    });
}

#[test]
fn exec_is_filtered_too() {
    on_the_host(|view| {
        let c = filtered(view, &spec::seccomp::allow_list()).sleeper();
        c.run_detached();
        let out = c.exec(["probe"]).ok();
        assert!(out.stdout.contains("call mount null: refused with errno 1\n"), "{out:?}");
        assert!(out.stdout.contains("status Seccomp 2\n"), "{out:?}");
    });
}

#[test]
fn an_empty_profile_is_none() {
    sees(&Value::Null, &["status Seccomp 0"]);
    sees(&json!({"defaultAction": ""}), &["status Seccomp 0"]);
}

/// The filter of a process with no_new_privs comes after everything that the runtime itself does.
#[test]
fn the_runtimes_last_steps_are_not_filtered() {
    on_the_host(|view| {
        let names = ["read", "write", "openat", "openat2", "close", "fcntl", "mmap", "munmap"];
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": names, "action": "SCMP_ACT_KILL_PROCESS"}]});
        let c = filtered(view, &profile).args(["true"]);
        if !c.runtime.only_aril("runc's own last steps are under the filter") {
            return;
        }
        assert_eq!(c.spec["process"]["noNewPrivileges"], true);
        c.run().silent();
        c.run_detached();
        c.wait_for("stopped");
        c.delete().silent();
        c.create();
        c.start();
        c.wait_for("stopped");
        c.delete().silent();

        let c = filtered(view, &profile).sleeper();
        c.run_detached();
        c.exec(["true"]).silent();
        // And it does count.
        c.exec(["cat", "/etc/passwd"]).exits(128 + 31);
    });
}

/// Every system call that a start makes, each denied alone, for a process that may gain privileges: its
/// filter is loaded with CAP_SYS_ADMIN, and only capset(2) and execve(2) come after it. A filter with a
/// listener is loaded sooner: write(2) tells the parent, and read(2) waits for it.
#[test]
fn a_profile_may_deny_what_the_runtime_calls() {
    const CALLS: &str = "access arch_prctl bpf brk capget chdir chown clone clone3 close close_range \
        connect dup dup2 dup3 epoll_create1 exit fchdir fchmod fchown fcntl fork fstat fstatfs futex \
        getcwd getdents64 getegid geteuid getgid getpid getppid getrandom getsockopt gettid getuid \
        ioctl keyctl kill lseek lstat madvise mount mount_setattr move_mount mremap munmap nanosleep \
        newfstatat open openat openat2 open_tree pipe2 pivot_root poll ppoll prctl pread64 prlimit64 \
        read readlink readlinkat recvmsg recvfrom rt_sigaction rt_sigprocmask seccomp sendmsg sendto \
        set_robust_list setgid setgroups setresgid setresuid setsid setuid sigaltstack socket stat \
        statx umask umount2 unshare wait4 waitid write writev";
    // What busybox itself needs, as statically linked by Debian.
    const BY_PROGRAM: [&str; 1] = ["arch_prctl"];
    on_the_host(|view| {
        let mut c = filtered(view, &json!({})).args(["true"]);
        if !c.runtime.only_aril("runc makes a dozen calls under the filter") {
            return;
        }
        c.spec["process"]["noNewPrivileges"] = false.into();
        let agent = c.path("agent");
        let names = || CALLS.split_whitespace().filter(|name| !BY_PROGRAM.contains(name));
        for (name, listener) in names().flat_map(|name| [(name, false), (name, true)]) {
            let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO"}]});
            if listener {
                if ["read", "write"].contains(&name) {
                    continue;
                }
                profile["listenerPath"] = json!(agent);
                let asked = json!({"names": ["getpgid"], "action": "SCMP_ACT_NOTIFY"});
                profile["syscalls"].as_array_mut().expect("rules").push(asked);
            }
            c.spec["linux"]["seccomp"] = profile;
            let _idle = listener.then(|| UnixListener::bind(&agent).expect("bind"));
            let out = c.run();
            let _ = fs::remove_file(&agent);
            let what = format!("{name} denied, listener {listener}: {out:?}");
            assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""), "{what}");
        }
        c.spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ERRNO"}]});
        c.create();
        c.start();
        c.wait_for("stopped");
        c.delete().silent();
    });
}

/// The capability that loading the filter takes is gone when the program runs.
#[test]
fn a_filter_leaves_no_capability_behind() {
    on_the_host(|view| {
        for no_new_privileges in [false, true] {
            for uid in [0, 1000] {
                let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []});
                let mut c = filtered(view, &profile).script("grep ^Cap /proc/self/status");
                c.spec["process"]["noNewPrivileges"] = no_new_privileges.into();
                c.spec["process"]["user"]["uid"] = uid.into();
                c.spec["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"],
                    "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
                let out = c.run().ok();
                let administration = 1 << 21;
                for line in out.stdout.lines() {
                    let set = line.split_whitespace().nth(1).expect("a set");
                    let set = u64::from_str_radix(set, 16).expect("hexadecimal");
                    assert_eq!(set & administration, 0, "{no_new_privileges} {uid}: {out:?}");
                }
            }
        }
    });
}

/// Encoders leave out numbers that are zero.
#[test]
fn an_argument_without_index_or_value() {
    for mut argument in [json!({"value": 999}), json!({"index": 0}), json!({})] {
        argument["op"] = "SCMP_CMP_GE".into();
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [argument]}]});
        sees(&profile, &["call keyctl 9999: refused with errno 77"]);
    }
}
