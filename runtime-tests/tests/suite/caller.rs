//! What a caller may have: limits, signals, closed descriptors, a directory that is gone, an odd umask, a
//! large or an empty environment, a notify socket without a listener. A container is made all the same,
//! or the call says why not; nothing is left.

use std::fs;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use runtime_tests::container::wait_until;
use runtime_tests::{Call, Container, Output, host, in_each_view, on_the_host};

/// The call made by a shell that does `first`.
fn behind(call: Call, first: &str) -> Call {
    call.in_shell(&format!("{first}; exec \"$@\""))
}

fn hello(c: &Container, first: &str) -> Output {
    behind(c.run_call(&[]), first).output()
}

#[test]
fn limits_that_are_enough() {
    in_each_view(|view| {
        for limit in ["-Sn 16", "-n 64", "-u 1", "-c 0", "-l 0", "-q 0", "-i 0", "-Ss 100", "-e 0"]
        {
            let c = without_limits(Container::new(view).script("echo hello"));
            let out = hello(&c, &format!("ulimit {limit}")).ok();
            assert_eq!(out.stdout, "hello\n", "ulimit {limit}");
            c.leaves_nothing();
        }
    });
}

fn without_limits(c: Container) -> Container {
    c.edit(|spec| drop(spec["process"].as_object_mut().expect("process").remove("rlimits")))
}

/// The runtime raises its own soft limits where it needs more; the container's are the caller's.
#[test]
fn a_container_has_the_limits_of_its_caller_or_of_its_config() {
    const LOOK: &str = "grep -E '^Max (open files|stack size)' /proc/self/limits";
    in_each_view(|view| {
        let number = |text: &str| -> Vec<String> {
            let soft = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
            text.lines().filter_map(soft).collect()
        };
        let c = without_limits(Container::new(view).script(LOOK));
        let few = "ulimit -Sn 40; ulimit -Ss 200";
        let out = hello(&c, few).ok();
        assert_eq!(number(&out.stdout), ["204800", "40"], "{}", out.stdout);
        let out = behind(c.create_call(&[]), few).output();
        out.silent();
        c.delete().silent();
        let c = c.edit(|spec| {
            let limit = serde_json::json!({"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60});
            spec["process"]["rlimits"] = serde_json::json!([limit]);
        });
        let out = hello(&c, few).ok();
        assert_eq!(number(&out.stdout), ["204800", "50"], "{}", out.stdout);
        let c = c.sleeper();
        c.run_detached();
        let exec = c.call(["exec", &c.id, "sh", "-c", LOOK]);
        let out = behind(exec, few).ok();
        assert_eq!(number(&out.stdout), ["204800", "50"], "{}", out.stdout);
    });
}

#[test]
fn limits_that_are_too_low_are_an_error_and_no_signal() {
    on_the_host(|view| {
        // A call's stderr is a file, which the second limit has room for.
        for (limit, text) in [("-f 0", ""), ("-f 1", "file too large")] {
            for verb in ["run", "create"] {
                let c = Container::new(view).script("echo hello");
                let call = if verb == "run" { c.run_call(&[]) } else { c.create_call(&[]) };
                let out = behind(call, &format!("ulimit {limit}")).output().exits(1);
                if c.runtime.is_aril() {
                    out.says(text);
                }
                c.leaves_nothing();
            }
        }
        let c = Container::new(view).script("echo hello");
        if c.runtime.only_aril("runc has words of its own") {
            hello(&c, "ulimit -n 6").exits(1).says("too many open files").says("hint: ");
            c.leaves_nothing();
        }
    });
}

#[test]
fn ignored_and_blocked_signals() {
    in_each_view(|view| {
        const ALL: &str = "trap '' HUP INT QUIT ILL ABRT BUS FPE USR1 SEGV USR2 PIPE ALRM TERM CHLD CONT \
             TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS";
        let c = Container::new(view).script("echo hello; exit 3");
        let out = hello(&c, ALL).exits(3);
        assert_eq!(out.stdout, "hello\n");
        c.leaves_nothing();
        let c = c.sleeper();
        behind(c.run_call(&["-d"]), ALL).ok();
        let ps = behind(c.call(["ps", &c.id]), "trap '' CHLD").ok();
        assert!(ps.stdout.contains("sleep"), "{ps:#?}");
        behind(c.call(["exec", &c.id, "sh", "-c", "exit 4"]), ALL).output().exits(4);
        behind(c.call(["delete", "-f", &c.id]), ALL).ok();
        c.leaves_nothing();
    });
}

/// What the runtime opens must not come to be the container's standard input, output or error.
#[test]
fn closed_standard_descriptors() {
    on_the_host(|view| {
        let c = Container::new(view).script(
            "for i in 0 1 2; do readlink /proc/self/fd/$i; done >/tmp/seen; ls -l /proc/self/fd",
        );
        let c = c.edit(|spec| spec["root"]["readonly"] = false.into());
        if !c.runtime.only_aril("Go's runtime opens them too, with other files") {
            return;
        }
        for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"] {
            hello(&c, &format!("exec {closed}")).ok();
            let seen = fs::read_to_string(c.rootfs().join("tmp/seen")).expect("what was seen");
            let seen: Vec<_> = seen.lines().collect();
            assert_eq!(seen.len(), 3, "{closed}: {seen:?}");
            for (number, file) in seen.iter().enumerate() {
                if closed.contains(&format!("{number}<&-"))
                    || closed.contains(&format!("{number}>&-"))
                {
                    // 1 is the shell's own file there.
                    assert!(number == 1 || *file == "/dev/null", "{closed}: {seen:?}");
                }
            }
            c.leaves_nothing();
        }
    });
}

#[test]
fn a_directory_that_is_gone() {
    on_the_host(|view| {
        let c = Container::new(view).script("echo hello");
        let gone = c.path("gone");
        let first = format!("mkdir {0}; cd {0}; rmdir {0}", gone.display());
        assert_eq!(hello(&c, &first).ok().stdout, "hello\n");
        behind(c.call(["list"]), &first).ok();
        behind(c.call(["features"]), &first).ok();
        if c.runtime.is_aril() {
            let out = behind(c.call(["run", &c.id]), &first).output();
            out.exits(1).says("getcwd: no such file or directory").says("--bundle");
        }
        c.leaves_nothing();
    });
}

#[test]
fn umasks() {
    in_each_view(|view| {
        for umask in ["000", "077", "277", "777"] {
            let c = Container::new(view).script("umask; echo hello");
            let out = hello(&c, &format!("umask {umask}")).ok();
            assert_eq!(out.stdout, "0022\nhello\n", "umask {umask}");
            c.leaves_nothing();
        }
    });
}

#[test]
fn environments() {
    on_the_host(|view| {
        let c = Container::new(view).script("echo hello");
        let run = |first: &str| {
            let call = c.run_call(&[]).in_shell(&format!("{first} \"$@\""));
            assert_eq!(call.ok().stdout, "hello\n", "{first}");
        };
        run("exec env -i");
        run("exec env -i PATH=/nonexistent");
        run("exec env -u HOME -u PATH");
        run("exec env USER= HOME= XDG_RUNTIME_DIR=relative LISTEN_FDS=-1 LISTEN_PID=x");
        // Sixteen strings of the greatest length that the kernel takes.
        let large = "x=$(head -c 130000 /dev/zero | tr '\\0' x); for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 \
             15; do export BIG$i=$x; done; exec";
        run(large);
        c.leaves_nothing();
    });
}

/// A notify socket without a listener does not make the container fail.
#[test]
fn a_notify_socket_without_a_listener() {
    on_the_host(|view| {
        let c = Container::new(view)
            .script("probe --notify \"$NOTIFY_SOCKET\" 'READY=1'; echo said; exit 5");
        if !c.runtime.only_aril("runc 1.1.5 fails on some of these") {
            return;
        }
        let long = format!("/{}", "x".repeat(300));
        for address in ["/no/such/socket", "/dev/null", "@nobody", "vsock:2:9999", "x", &long] {
            let out = c.run_call(&[]).env("NOTIFY_SOCKET", address).output().exits(5);
            assert!(out.stdout.contains("said"), "{out:#?}");
            out.says("NOTIFY_SOCKET: the container is ready, but");
            c.run_call(&["-d"]).env("NOTIFY_SOCKET", address).ok();
            c.wait_for("stopped");
            c.delete().silent();
            c.create();
            c.delete().silent();
        }
        c.leaves_nothing();
    });
}

/// A signal to a runtime that waits for readiness acts as at any other time.
#[test]
fn signals_before_readiness() {
    on_the_host(|view| {
        let c = Container::new(view)
            .script("trap 'exit 7' TERM; echo waiting; while :; do sleep 0.02; done");
        if !c.runtime.only_aril("runc does not pass them on") {
            return;
        }
        let listener = UnixDatagram::bind(c.path("notify")).expect("bind");
        for flags in [&[][..], &["-d"]] {
            let run = c.run_call(flags).env("NOTIFY_SOCKET", c.path("notify")).spawn();
            wait_until("the trap", || run.stdout().contains("waiting"));
            run.signal(Signal::SIGTERM);
            run.wait().exits(if flags.is_empty() { 7 } else { 0 });
            if !flags.is_empty() {
                c.wait_for("stopped");
                c.delete().silent();
            }
            c.leaves_nothing();
        }
        drop(listener);
    });
}

/// Docker's client does not wait any longer then, either.
#[test]
fn the_third_interrupt() {
    on_the_host(|view| {
        let c = Container::new(view)
            .script("trap 'echo no' INT; echo ready; while :; do sleep 0.02; done");
        if !c.runtime.only_aril("runc waits on") {
            return;
        }
        let run = c.run_call(&[]).spawn();
        wait_until("the trap", || run.stdout().contains("ready"));
        for n in 1..=2 {
            run.signal(Signal::SIGINT);
            wait_until("the signal", || run.stdout().matches("no").count() == n);
        }
        assert_eq!(c.status(), "running");
        let pid = c.pid();
        run.signal(Signal::SIGINT);
        let out = run.wait().exits(130);
        out.says("interrupted 3 times").says(&format!("`aril delete --force {}`", c.id));
        assert!(!host::is_gone(pid), "it is left running");
        c.delete_by_force().silent();
        c.leaves_nothing();
    });
}
