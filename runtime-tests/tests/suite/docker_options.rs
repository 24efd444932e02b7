//! Options of `docker run` that name one thing each: devices, groups, limits, sysctls, shared memory, an
//! init process, relative volumes.

use std::fs;

use nix::sys::signal::Signal;
use runtime_tests::container::wait_until;
use runtime_tests::{Call, Container, View, host, in_each_view, on_the_host};

fn image(view: View) -> Option<Container> {
    let c = Container::new(view);
    c.runtime.only_aril("options of its own").then_some(c)
}

fn call(c: &Container, options: &[&str], script: &str) -> Call {
    let rootfs = c.rootfs();
    c.call(["run", "--rootfs", rootfs.to_str().expect("utf-8")]).args(options).args([
        c.id.as_str(),
        "--",
        "sh",
        "-c",
        script,
    ])
}

#[track_caller]
fn prints(c: &Container, options: &[&str], script: &str, text: &str) {
    let out = call(c, options, script).ok();
    assert_eq!(out.stdout, text, "{options:?}: {out:#?}");
    c.leaves_nothing();
}

const SHM: &str = "grep ' /dev/shm ' /proc/mounts | grep -o 'size=[0-9]*k'";

#[test]
fn devices() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        // /dev/kmsg, as every host has one, and no container.
        let look = "stat -c %t:%T:%a /dev/log 2>/dev/null || echo none";
        prints(&c, &[], look, "none\n");
        prints(&c, &["--device", "/dev/kmsg:/dev/log:w"], look, "1:b:644\n");
        let write = "echo > /dev/log && echo written; head -c 0 /dev/log && echo read";
        if view.controls("devices") || view.is_v2() {
            let out = call(&c, &["--device", "/dev/kmsg:/dev/log:w"], write).output().exits(1);
            assert_eq!(out.stdout, "written\n", "{out:#?}");
        }
        let both = ["--device", "/dev/kmsg", "--device", "/dev/tty"];
        prints(&c, &both, "stat -c %t:%T /dev/kmsg /dev/tty", "1:b\n5:0\n");
        // A directory of them.
        let dir = c.directory("devices");
        let node = |name: &str, minor| {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            let path = dir.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            let mode = Mode::from_bits_truncate(0o640);
            mknod(&path, SFlag::S_IFCHR, mode, makedev(1, minor)).expect("mknod");
        };
        node("a", 3);
        node("deep/b", 5);
        let option = format!("{}:/dev/own", dir.display());
        prints(&c, &["--device", &option], "stat -c %t:%T:%a /dev/own/a /dev/own/deep/b", {
            "1:3:640\n1:5:640\n"
        });
    });
}

/// A user namespace cannot make nodes: what the host has is bound.
#[test]
fn a_device_in_a_user_namespace() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let c = c.script("stat -c %t:%T /dev/nil && head -c 2 /dev/nil | wc -c");
        let c = c.in_user_namespace(100_000);
        let out = c.run_call(&["--device", "/dev/zero:/dev/nil"]).ok();
        assert_eq!(out.stdout, "1:5\n2\n");
        c.leaves_nothing();
    });
}

#[test]
fn groups_limits_sysctls_and_shared_memory() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let groups = "grep ^Groups: /proc/self/status | tail -c +9";
        prints(&c, &["--group-add", "7", "--group-add", "mail"], groups, "7 8 \n");
        let user = ["--user", "7:9", "--group-add", "12"];
        prints(&c, &user, groups, "12 \n");
        let limits = "grep -E '^Max (open files|core)' /proc/self/limits | while read -r a b c d e f; \
                      do echo $a $b $c $d $e $f; done";
        let options = ["--ulimit", "nofile=30:40", "--ulimit", "core=0"];
        let out = call(&c, &options, limits).ok().stdout;
        assert!(
            out.contains("Max core file size 0 0") && out.contains("Max open files 30 40"),
            "{out}"
        );
        let options = ["--sysctl", "net.ipv4.ip_default_ttl=17", "--sysctl", "kernel.msgmax=9000"];
        let look = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax";
        prints(&c, &options, look, "17\n9000\n");
        prints(&c, &["--shm-size", "1m"], SHM, "size=1024k\n");
    });
}

/// A bundle's options are changed, too.
#[test]
fn docker_options_edit_a_bundle() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let c = c.script(&format!("stat -c %t:%T /dev/nil; {SHM}"));
        let out = c.run_call(&["--device", "/dev/zero:/dev/nil", "--shm-size=2m"]).ok();
        assert_eq!(out.stdout, "1:5\nsize=2048k\n");
        let c = c.edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != "/dev/shm");
        });
        c.run_call(&["--shm-size=2m"]).output().exits(1).says("no tmpfs at /dev/shm");
        c.leaves_nothing();
    });
}

#[test]
fn volumes_by_relative_paths() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let dir = c.directory("here/deep");
        fs::write(dir.join("file"), "found\n").expect("a file");
        for (from, source) in
            [("", "./here/deep"), ("", "here/deep"), ("here", "deep/."), ("here/deep", ".")]
        {
            let option = format!("{source}:/mnt:ro");
            let out = call(&c, &["-v", &option], "cat /mnt/file").dir(&c.path(from)).ok();
            assert_eq!(out.stdout, "found\n", "{source} from {from:?}");
        }
        let out = call(&c, &["-v", "../deep:/mnt"], "cat /mnt/file").dir(&dir).ok();
        assert_eq!(out.stdout, "found\n");
        c.leaves_nothing();
    });
}

/// The program is a child of an init process, which reaps orphans and passes signals on.
#[test]
fn an_init_process() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let look = "cat /proc/1/comm; echo $$ $PPID; cat /proc/1/cmdline | head -c 9; exit 7";
        let out = call(&c, &["--init"], look).output().exits(7);
        assert_eq!(out.stdout, "aril-init\n2 1\naril-init");
        c.leaves_nothing();
        let binary = fs::metadata(&c.runtime.path).expect("the binary");
        // What it is, and that it cannot be written.
        let out = call(&c, &["--init"], "wc -c < /proc/1/exe; true >> /proc/1/exe").output();
        assert_ne!(out.code, Some(0), "{out:#?}");
        assert_eq!(out.stdout, format!("{}\n", binary.len()), "{out:#?}");
        // An orphan is reaped while the program lives.
        let orphan = "(sleep 0.05 & echo $! > /pid) & wait; pid=$(cat /pid); n=0; \
                      while [ -d /proc/$pid ] && [ $n -lt 200 ]; do n=$((n + 1)); sleep 0.05; done; \
                      [ -d /proc/$pid ] || echo reaped";
        prints(&c, &["--init"], orphan, "reaped\n");
        // Without, the program itself has to.
        call(&c, &["--init"], "kill -9 $$").output().exits(137);
        call(&c, &["--init"], "exec /no/such/program").output().exits(127);
        c.leaves_nothing();
        // As the first of its pid namespace a shell would not get this one.
        let running = call(&c, &["--init"], "echo up; exec sleep 1000").spawn();
        wait_until("the program", || running.stdout().contains("up"));
        running.signal(Signal::SIGTERM);
        running.wait().exits(143);
        c.leaves_nothing();
    });
}

#[test]
fn an_init_process_of_any_user_and_confined() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let look = "id -u; cat /proc/1/comm; grep CapEff /proc/self/status";
        let none = "7\naril-init\nCapEff:\t0000000000000000\n";
        prints(&c, &["--init", "--user", "7:7"], look, none);
        prints(&c, &["--init", "--read-only"], "cat /proc/1/comm", "aril-init\n");
        let refused = c
            .call(["run", "--init", "--rootfs", c.rootfs().to_str().expect("utf-8"), &c.id, "--"])
            .arg("no-such-program")
            .output();
        refused.exits(127).says("executable file not found in $PATH");
        c.leaves_nothing();
        let c = c.script("cat /proc/1/comm").in_user_namespace(100_000);
        let out = c.run_call(&["--init"]).ok();
        assert_eq!(out.stdout, "aril-init\n");
        // Created and started later.
        c.create_call(&["--init"]).ok();
        c.start();
        c.wait_for("stopped");
        c.delete().silent();
        c.leaves_nothing();
        assert!(host::processes(&c.mark).is_empty());
    });
}
