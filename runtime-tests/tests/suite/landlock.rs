//! The annotation `io.aril.landlock`: what its rules deny is denied, and nothing else.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use runtime_tests::{Container, View, on_the_host, skip};
use serde_json::{Value, json};

const ANNOTATION: &str = "io.aril.landlock";

/// Of the running kernel's interface.
fn version() -> i64 {
    let nothing = std::ptr::null::<u8>();
    // SAFETY: with this flag the pointer is null and not looked at.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, 1_u32) }
}

/// None, with the reason, where the kernel cannot do it or the runtime is another one.
fn confined(view: View, since: i64, rules: &Value) -> Option<Container> {
    let c = Container::new(view);
    if !c.runtime.only_aril("no other runtime has Landlock") {
        return None;
    }
    if version() < since {
        skip::inapplicable(&format!("Landlock {} here, {since} is needed", version()));
        return None;
    }
    let rules = rules.to_string();
    Some(c.annotated(ANNOTATION, &rules).edit(|spec| {
        spec["root"]["readonly"] = false.into();
        spec["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}));
    }))
}

fn files() -> Value {
    json!({"fs": [
        {"paths": ["/bin", "/proc"], "access": "read,execute"},
        {"paths": ["/etc/passwd", "/nowhere"], "access": "read"},
        {"paths": ["/tmp", "/dev"], "access": "read,write"},
        {"paths": ["/var"], "access": "write"},
    ]})
}

/// Each line says what was done, and whether that was denied.
const TRIED: &str = "try() { sh -c \"$1\" 2>&1 >/dev/null | grep -q 'ermission denied' && \
    echo \"$1: denied\" || echo \"$1: done\"; }
    try 'cat /etc/passwd'; try 'cat /etc/group'; try 'ls /etc'; try 'ls /bin';
    try 'echo x > /tmp/f; cat /tmp/f'; try 'echo x > /etc/passwd'; try 'echo x > /bin/new';
    try 'mkdir /root/d'; try 'rm /bin/wc'; try 'cat /bin/echo > /tmp/p; chmod 755 /tmp/p; /tmp/p';
    try 'echo x > /var/f'; try 'cat /var/f'";

const ANSWERS: &str = "cat /etc/passwd: done
cat /etc/group: denied
ls /etc: denied
ls /bin: done
echo x > /tmp/f; cat /tmp/f: done
echo x > /etc/passwd: denied
echo x > /bin/new: denied
mkdir /root/d: denied
rm /bin/wc: denied
cat /bin/echo > /tmp/p; chmod 755 /tmp/p; /tmp/p: denied
echo x > /var/f: done
cat /var/f: denied
";

#[test]
fn files_by_the_first_program_and_an_exec() {
    on_the_host(|view| {
        let Some(c) = confined(view, 1, &files()) else { return };
        let c = c.script(TRIED);
        assert_eq!(c.run().ok().stdout, ANSWERS);
        // By create and start, which open a fifo of the host's in between.
        let Some(c) = confined(view, 1, &files()) else { return };
        let c = c.script(&format!("{{ {TRIED}; }} > /tmp/seen; sleep 1000"));
        c.create();
        let enforced = &c.state()["annotations"]["io.aril.landlock.enforced"];
        assert_eq!(*enforced, format!("version {}: files", version()));
        c.start();
        runtime_tests::container::wait_until("its answers", || {
            c.exec(["wc", "-l", "/tmp/seen"]).stdout.starts_with("12 ")
        });
        assert_eq!(c.exec(["cat", "/tmp/seen"]).ok().stdout, ANSWERS);
        assert_eq!(c.exec(["sh", "-c", TRIED]).ok().stdout, ANSWERS);
        // no_new_privs came with the rules, though the config has none.
        let Some(c) = confined(view, 1, &files()) else { return };
        let c = c.script("grep NoNewPrivs /proc/self/status").edit(|spec| {
            spec["process"]["noNewPrivileges"] = false.into();
        });
        c.run().ok().prints("NoNewPrivs:\t1");
    });
}

#[test]
fn rules_apply_with_user_namespace_user_and_seccomp() {
    on_the_host(|view| {
        let Some(c) = confined(view, 1, &files()) else { return };
        let c = c.in_user_namespace(100_000).script("cat /etc/passwd; cat /etc/group");
        // Not even landlock_restrict_self is allowed by the profile, nor needs to be.
        let c = c.edit(|spec| {
            spec["process"]["user"] = json!({"uid": 8, "gid": 8});
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["landlock_restrict_self"], "action": "SCMP_ACT_KILL_PROCESS"}]});
        });
        let out = c.run();
        assert!(
            out.stdout.contains("root:x:0:0") && !out.stdout.contains("root:x:0:\n"),
            "{out:?}"
        );
        assert!(out.stderr.contains("/etc/group': Permission denied"), "{out:?}");
    });
}

#[test]
fn ports() {
    on_the_host(|view| {
        let rules = json!({"tcp": {"bind": [80], "connect": [443]}});
        let Some(c) = confined(view, 4, &rules) else { return };
        // Only the one that may listen waits for its end.
        let listen =
            |port, patience| format!("busybox timeout {patience} busybox nc -l -p {port} 2>&1");
        let connect = |port| format!("busybox nc -w 60 127.0.0.1 {port} 2>&1 </dev/null");
        let script =
            [listen(80, 1), listen(81, 60), connect(443), connect(444)].join("; echo --; ");
        let out = c.script(&script).run();
        let answers: Vec<_> = out.stdout.split("--\n").collect();
        let [bound, not_bound, refused, denied] = answers[..] else { panic!("{out:?}") };
        assert!(!bound.contains("denied"), "{out:?}");
        assert!(not_bound.contains("Permission denied"), "{out:?}");
        assert!(refused.contains("Connection refused"), "{out:?}");
        assert!(denied.contains("Permission denied"), "{out:?}");
    });
}

#[test]
fn signals_to_others() {
    on_the_host(|view| {
        for (scope, code) in [(json!(["abstract-unix-socket"]), 0), (json!(["signal"]), 1)] {
            let Some(c) = confined(view, 6, &json!({"scope": scope})) else { return };
            let c = c.sleeper();
            c.run_detached();
            // Each exec is a domain of its own.
            c.exec(["kill", "-0", "1"]).exits(code);
            c.exec(["sh", "-c", "kill -0 $$"]).ok();
        }
    });
}

#[test]
fn abstract_sockets_of_others() {
    on_the_host(|view| {
        let name = format!("aril-landlock-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let ours = UnixDatagram::bind_addr(&address).expect("a socket");
        ours.set_nonblocking(true).expect("a flag");
        for (scope, heard) in [(json!(["signal"]), true), (json!(["abstract-unix-socket"]), false)]
        {
            let Some(c) = confined(view, 6, &json!({"scope": scope})) else { return };
            let c = c.without_namespace("network").args([
                "probe",
                "--notify",
                &format!("@{name}"),
                "hello",
            ]);
            let out = c.run();
            assert_eq!(out.code == Some(0), heard, "{out:?}");
            assert_eq!(ours.recv(&mut [0; 16]).is_ok(), heard);
        }
    });
}

#[test]
fn kernel_without_landlock_is_refused() {
    on_the_host(|view| {
        let mut rules = files();
        let Some(c) = confined(view, 0, &rules) else { return };
        let c = c.logging().script("echo ran");
        let call = c.run_call(&[]).stage(["without", "landlock_create_ruleset"]);
        call.output().exits(0).prints("ran");
        let text = c.log().iter().map(Value::to_string).collect::<String>();
        assert!(text.contains("landlock is not enforced"), "{text}");

        rules["mode"] = "required".into();
        let Some(c) = confined(view, 0, &rules) else { return };
        let call = c.run_call(&[]).stage(["without", "landlock_create_ruleset"]);
        let out = call.output().exits(1);
        out.says("the config requires Landlock").says("function not implemented");
        c.leaves_nothing();
    });
}

#[test]
fn invalid_rules_are_refused() {
    on_the_host(|view| {
        // A path that is required.
        let mut rules = files();
        rules["mode"] = "required".into();
        let Some(c) = confined(view, 5, &rules) else { return };
        let out = c.run().exits(1);
        out.says("allow \"/nowhere\" in the container: no such file or directory");
        c.leaves_nothing();
        // A program that may not be executed.
        let rules = json!({"fs": [{"paths": ["/etc"], "access": "read"}]});
        let Some(c) = confined(view, 1, &rules) else { return };
        let out = c.run();
        assert!(out.code != Some(0), "{out:?}");
        // The hint, which rules are missing, is for a terminal.
        out.says("permission denied");
        c.leaves_nothing();
        let Some(c) = confined(view, 1, &json!({"fs": 3})) else { return };
        c.run().exits(1).says("io.aril.landlock: fs: 3: expected a list");
        c.leaves_nothing();
    });
}

/// A path leads where it leads inside the container, whatever the image made of it.
#[test]
fn a_path_is_the_containers() {
    on_the_host(|view| {
        let rules = json!({"fs": [{"paths": ["/bin"], "access": "read,execute"},
            {"paths": ["/mnt/link"], "access": "read"}]});
        let Some(c) = confined(view, 1, &rules) else { return };
        std::os::unix::fs::symlink("../../../etc", c.rootfs().join("mnt/link")).expect("a link");
        let c = c.script("cat /etc/group");
        c.run().ok().prints("mail:x:8:");
    });
}

#[test]
fn rules_are_an_option_of_run() {
    on_the_host(|view| {
        let c = Container::new(view).script("cat /etc/group");
        if !c.runtime.only_aril("its option") {
            return;
        }
        let rules = files().to_string();
        let file = c.file("rules.json", &rules);
        for given in [rules.as_str(), file.to_str().expect("utf-8")] {
            let out = c.run_call(&["--landlock", given]).output();
            assert!(out.stderr.contains("/etc/group': Permission denied"), "{out:?}");
        }
        let out = c.run_call(&["--landlock", "/no/such/file"]).output().exits(1);
        out.says("load the rules of --landlock: read /no/such/file: no such file or directory");
        assert!(fs::read_dir(&c.root).is_ok_and(|mut left| left.next().is_none()));
    });
}

/// Aril's own binary, which no path of the container leads to, may be executed once.
#[test]
fn rules_apply_with_an_init_process() {
    on_the_host(|view| {
        let Some(c) = confined(view, 1, &files()) else { return };
        let c = c.script("cat /proc/1/comm; exit 5");
        assert_eq!(c.run_call(&["--init"]).output().exits(5).stdout, "aril-init\n");
        c.leaves_nothing();
    });
}
