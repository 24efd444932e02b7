//! What the program is given, asserted; the whole of it is compared in `observer`.

use std::fs;

use runtime_tests::{Container, in_each_view, on_the_host, skip, spec};
use serde_json::json;

#[test]
fn no_capability_object_means_none() {
    on_the_host(|view| {
        let c = Container::new(view).script("grep ^Cap /proc/self/status").edit(|spec| {
            spec["process"].as_object_mut().expect("process").remove("capabilities");
        });
        let out = c.run().ok();
        assert_eq!(out.stdout.matches("\t0000000000000000").count(), 5, "{out:?}");
    });
}

#[test]
fn all_means_the_callers_capabilities() {
    on_the_host(|view| {
        let own = fs::read_to_string("/proc/self/status").expect("status");
        let own = own.lines().find(|line| line.starts_with("CapBnd")).expect("a set").to_owned();
        let mask = u64::from_str_radix(own.rsplit('\t').next().expect("hex"), 16).expect("hex");
        let names: Vec<&str> = spec::FOURTEEN
            .into_iter()
            .chain(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"])
            .collect();
        let c = Container::new(view).script("grep CapEff /proc/self/status").edit(|spec| {
            spec["process"]["capabilities"] =
                json!({"bounding": names, "effective": names, "permitted": names});
        });
        let bits = [0, 1, 3, 4, 5, 6, 7, 8, 10, 12, 13, 18, 19, 21, 27, 29, 31];
        let expected = bits.iter().fold(0_u64, |mask, bit| mask | 1 << bit) & mask;
        c.run().ok().prints(&format!("CapEff:\t{expected:016x}"));
    });
}

/// "Any value which cannot be granted MUST be logged as a warning" (config.md, process.capabilities).
#[test]
fn a_capability_that_the_runtime_lacks_is_a_warning() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("runc and crun fail") {
            return;
        }
        let Some(setpriv) = skip::tool("setpriv", "util-linux") else { return };
        let c = c.script("grep ^CapPrm /proc/self/status").edit(|spec| {
            let names = json!(["CAP_KILL", "CAP_SYS_TIME"]);
            spec["process"]["capabilities"] = json!({"bounding": names, "effective": names,
                "permitted": names, "ambient": ["CAP_KILL"]});
        });
        let words = c.run_call(&[]).argv().to_vec();
        let flags = ["--bounding-set=-sys_time", "--inh-caps=-sys_time"];
        let out = c.bare(&setpriv, "lacking").args(flags).args(words).output().ok();
        assert_eq!(out.stdout.trim(), "CapPrm:\t0000000000000020");
        assert!(out.stderr.contains("that the runtime itself lacks: CAP_SYS_TIME"), "{out:?}");
        assert!(out.stderr.contains("can't raise ambient capability CAP_KILL"), "{out:?}");
    });
}

/// A warning, in runc's words, which callers look for.
#[test]
fn an_unknown_capability_is_a_warning() {
    on_the_host(|view| {
        let c = Container::new(view).script("grep ^CapBnd /proc/self/status").edit(|spec| {
            spec["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_NEW", "OTHER"]});
        });
        let out = c.run().ok().prints("CapBnd:\t0000000000000020");
        assert!(out.stderr.contains("ignoring unknown or unavailable capabilities: ["), "{out:?}");
        assert!(out.stderr.contains("CAP_NEW") && out.stderr.contains("OTHER"), "{out:?}");
    });
}

#[test]
fn groups_are_the_kernels_list() {
    on_the_host(|view| {
        let c = Container::new(view).script("grep ^Groups: /proc/self/status").edit(|spec| {
            spec["process"]["user"]["additionalGids"] = json!([30, 10, 30]);
        });
        assert_eq!(c.run().ok().stdout.trim(), "Groups:\t10 30 30");
    });
}

/// The program may open its standard streams again by their paths; no other group is shut out of a file.
#[test]
fn standard_streams_are_the_users() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("runc gives no group, crun that of files, too") {
            return;
        }
        let c = c.script(
            "stat -L -c '%F %u:%g' /proc/self/fd/0 /proc/self/fd/1 | cat >&2; echo > /dev/stdout",
        );
        let c = c.edit(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1001}));
        let file = c.file("input", "text");
        let script = format!("exec \"$@\" < {} | cat", file.display());
        let out = c.run_call(&[]).in_shell(&script).ok();
        assert_eq!(out.stderr, "regular file 1000:0\nfifo 1000:1001\n");
    });
}

#[test]
fn last_value_of_a_variable_counts() {
    on_the_host(|view| {
        let c = Container::new(view).script("env").edit(|spec| {
            spec["process"]["env"] = json!(["A=1", "PATH=/bin", "A=2", "B=3"]);
        });
        let out = c.run().ok();
        assert!(out.stdout.contains("A=2\n") && !out.stdout.contains("A=1"), "{out:?}");
    });
}

#[test]
fn home_is_looked_up_in_the_container() {
    on_the_host(|view| {
        for (user, home) in [(0, "/root"), (8, "/var/mail"), (4242, "/")] {
            let c = Container::new(view).script("echo \"$HOME\"").edit(|spec| {
                spec["process"]["user"] = json!({"uid": user, "gid": 0});
            });
            assert_eq!(c.run().ok().stdout.trim(), home);
        }
    });
}

#[test]
fn a_passwd_that_is_not_a_file() {
    on_the_host(|view| {
        // Read after entering, bounded: a fifo must not hang the start, a device not fill memory.
        let c = Container::new(view).script("echo started");
        if !c.runtime.only_aril("runc 1.1.5 opens what it finds") {
            return;
        }
        fs::remove_file(c.rootfs().join("etc/passwd")).expect("rm");
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
        nix::unistd::mkfifo(&c.rootfs().join("etc/passwd"), mode).expect("mkfifo");
        c.run().ok().prints("started");
    });
}

#[test]
fn working_directory_is_made_with_its_parents() {
    on_the_host(|view| {
        for readonly in [false, true] {
            let c = Container::new(view).script("pwd; stat -c %a .").edit(|spec| {
                spec["root"]["readonly"] = readonly.into();
                spec["process"]["cwd"] = "/a/b/c".into();
            });
            assert_eq!(c.run().ok().stdout, "/a/b/c\n755\n");
        }
        // Below what the config makes read-only, too.
        let tmpfs = json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
            "options": ["ro"]});
        for cwd in ["/mnt/new", "/proc/../home/new"] {
            let c = Container::new(view).mounting(tmpfs.clone()).script("pwd").edit(|spec| {
                spec["linux"]["readonlyPaths"] = json!(["/home"]);
                spec["process"]["cwd"] = cwd.into();
            });
            fs::create_dir_all(c.rootfs().join("home")).expect("a directory");
            c.run().ok().prints(cwd.trim_start_matches("/proc/.."));
        }
    });
}

#[test]
fn a_working_directory_that_cannot_be_made() {
    on_the_host(|view| {
        let c = Container::new(view).edit(|spec| spec["process"]["cwd"] = "/proc/new".into());
        c.run().exits(1).says("mkdir").says("no such file or directory");
        c.leaves_nothing();
    });
}

/// As the kernel reads them.
#[test]
fn a_umask_of_too_many_bits() {
    on_the_host(|view| {
        let c = Container::new(view).script("umask");
        let c = c.edit(|spec| spec["process"]["user"]["umask"] = 0o7027.into());
        c.run().ok().prints("0027\n");
    });
}

#[test]
fn a_working_directory_on_the_host_is_refused() {
    on_the_host(|view| {
        // CVE-2024-21626: a descriptor of the host's as the working directory.
        for number in 3..12 {
            let c = Container::new(view).args(["ls", "../../../../../.."]).edit(|spec| {
                spec["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
            });
            let out = c.run_call(&[]).in_shell("exec 9</; exec \"$@\"").output();
            let outside = out.stdout.contains("lost+found") || out.stdout.contains("boot");
            assert!(!outside, "{number}: {out:?}");
            assert!(out.code != Some(0) || !c.runtime.is_aril(), "{number}: {out:?}");
        }
    });
}

#[test]
fn no_descriptor_leaks() {
    in_each_view(|view| {
        let c = Container::new(view).script("ls /proc/self/fd | tr '\\n' ' '; ls -l /proc/1/fd");
        let open = "exec 5</etc/passwd 8</ 9</dev/null; exec \"$@\"";
        let out = c.run_call(&[]).in_shell(open).output();
        assert!(out.stdout.starts_with("0 1 2 3 "), "{out:?}");
        assert!(!out.stdout.contains("/etc/passwd"), "{out:?}");
    });
}

#[test]
fn signals_that_the_runtime_blocks_are_not_blocked_inside() {
    on_the_host(|view| {
        let c = Container::new(view).script("grep SigBlk /proc/self/status");
        // In the foreground it waits for signals by blocking them.
        c.run().ok().prints("SigBlk:\t0000000000000000\n");
    });
}

#[test]
fn scheduling_of_the_spec() {
    on_the_host(|view| {
        let c = Container::new(view).script("probe | grep ^schedule");
        if !c.runtime.only_aril("scheduler and ioPriority came with runc 1.2") {
            return;
        }
        let c = c.edit(|spec| {
            spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
            spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        });
        let out = c.run().ok();
        for line in
            ["schedule policy 3", "schedule nice 5", &format!("schedule io {}", (2 << 13) | 6)]
        {
            assert!(out.stdout.contains(line), "{line}: {out:?}");
        }
    });
}

#[test]
fn scheduler_policies_are_set() {
    on_the_host(|view| {
        if !Container::new(view).runtime.only_aril("scheduler came with runc 1.2") {
            return;
        }
        let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000,
            "deadline": 10_000_000, "period": 10_000_000, "flags": ["SCHED_FLAG_DL_OVERRUN"]});
        let mut taken = Vec::new();
        for (number, scheduler) in [
            (0, json!({"policy": "SCHED_OTHER", "nice": 7})),
            (1, json!({"policy": "SCHED_FIFO", "priority": 3})),
            (2, json!({"policy": "SCHED_RR", "priority": 9, "flags": ["SCHED_RESET_ON_FORK"]})),
            (3, json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
            (3, json!({"policy": "SCHED_BATCH", "nice": -1})),
            (4, json!({"policy": "SCHED_ISO"})),
            (5, json!({"policy": "SCHED_IDLE"})),
            (6, deadline),
        ] {
            let c = Container::new(view).args(["probe"]).edit(|spec| {
                spec["process"]["scheduler"] = scheduler.clone();
            });
            let out = c.run();
            if out.code == Some(0) {
                // What a reset on fork is set with shows in the number that the kernel tells.
                let flag = scheduler["flags"][0].as_str().unwrap_or_default();
                let reset = 0x4000_0000 * u32::from(flag.ends_with("_RESET_ON_FORK"));
                let line = format!("schedule policy {}\n", number + reset);
                assert!(out.stdout.contains(&line), "{scheduler}: {out:#?}");
                taken.push(number);
            } else {
                out.exits(1).says("error setting scheduler: sched_setattr");
                c.leaves_nothing();
            }
        }
        // The fourth never was in Linux; those of real time need time in the cgroup of the host.
        assert!([0, 3, 5].iter().all(|policy| taken.contains(policy)), "{taken:?}");
        assert!(!taken.contains(&4));
    });
}

#[test]
fn personality_of_the_spec() {
    on_the_host(|view| {
        let c = Container::new(view).script("uname -m; cat /proc/self/personality");
        if !c.runtime.only_aril("personality came with runc 1.2") {
            return;
        }
        let c = c.edit(|spec| spec["linux"]["personality"] = json!({"domain": "LINUX32"}));
        let out = c.run().ok();
        assert!(out.stdout.ends_with("\n00000008\n"), "{out:?}");
        #[cfg(target_arch = "x86_64")]
        assert!(out.stdout.starts_with("i686\n"), "{out:?}");
    });
}

#[test]
fn memory_policy_of_the_spec() {
    on_the_host(|view| {
        let c = Container::new(view).script("head -1 /proc/self/numa_maps");
        if !c.runtime.only_aril("memoryPolicy came with runc 1.4") {
            return;
        }
        if !std::path::Path::new("/proc/self/numa_maps").exists() {
            return skip::inapplicable("this kernel has no NUMA");
        }
        let c = c.edit(|spec| {
            spec["linux"]["memoryPolicy"] =
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        });
        c.run().ok().prints(" bind=static:0 ");
        let c = c.sleeper();
        c.run_detached();
        c.exec(["head", "-1", "/proc/self/numa_maps"]).ok().prints(" bind=static:0 ");
    });
}

#[test]
fn the_runtimes_binary_is_out_of_reach() {
    on_the_host(|view| {
        // CVE-2019-5736: the program is /proc/self/exe, and the exec of it the runtime itself.
        let before = fs::metadata(&Container::new(view).runtime.path).expect("metadata").modified();
        let c = Container::new(view).sleeper();
        c.run_detached();
        let script = "for p in /proc/[0-9]*; do echo x 2>/dev/null > $p/exe; done; true";
        let exec = c.call(["exec", &c.id, "sh", "-c", script]).spawn();
        // What it executes is a copy, if anything.
        c.call(["exec", &c.id, "/proc/self/exe"]).output();
        exec.wait();
        let after = fs::metadata(&c.runtime.path).expect("metadata").modified();
        assert_eq!(before.expect("time"), after.expect("time"));
    });
}
