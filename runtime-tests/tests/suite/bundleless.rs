//! `run` and `create` without a bundle, and the options that change a bundle's config.

use std::fs;

use runtime_tests::{Container, Output, View, in_each_view, on_the_host};
use serde_json::Value;

/// A fixture whose rootfs is the image; its config is not used.
fn image(view: View) -> Option<Container> {
    let c = Container::new(view);
    c.runtime.only_aril("others need a bundle").then_some(c)
}

fn run(c: &Container, options: &[&str], command: &[&str]) -> Output {
    let rootfs = c.rootfs();
    c.call(["run", "--rootfs", rootfs.to_str().expect("utf-8")])
        .args(options)
        .arg(&c.id)
        .arg("--")
        .args(command)
        .output()
}

#[test]
fn a_folder_is_enough() {
    in_each_view(|view| {
        let Some(c) = image(view) else { return };
        let script = "echo x > /new && cat /new; hostname; id -u; test -t 0 || echo no terminal";
        run(&c, &[], &["sh", "-c", script]).ok().prints(&format!("x\n{}\n0\nno terminal\n", c.id));
        assert!(!c.rootfs().join("new").exists());
        c.leaves_nothing();
        run(&c, &[], &["sh", "-c", "exit 7"]).exits(7);
        run(&c, &[], &["no-such-program"]).exits(127).says("executable file not found in $PATH");
        c.leaves_nothing();
    });
}

#[test]
fn layers_and_a_kept_upper() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let layer = c.directory("layer");
        fs::create_dir(layer.join("etc")).expect("etc");
        fs::write(layer.join("etc/who"), "the layer\n").expect("a file");
        let kept = c.path("kept");
        let (layer, upper) = (layer.to_str().expect("utf-8"), kept.to_str().expect("utf-8"));
        let options = ["--layer", layer, "--upper", upper];
        run(&c, &options, &["sh", "-c", "cat /etc/who; echo mine > /etc/who"])
            .ok()
            .prints("the layer\n");
        run(&c, &options, &["cat", "/etc/who"]).ok().prints("mine\n");
        assert_eq!(fs::read_to_string(kept.join("upper/etc/who")).expect("kept"), "mine\n");
    });
}

#[test]
fn user_directory_and_host_name_are_set() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let script = "id -u; id -g; pwd; echo $A $B; hostname; grep CapEff /proc/self/status";
        let options = [
            "--user",
            "mail",
            "--workdir",
            "/tmp",
            "--env",
            "A=1",
            "-e",
            "B=2",
            "--hostname",
            "here",
        ];
        run(&c, &options, &["sh", "-c", script])
            .ok()
            .prints("8\n8\n/tmp\n1 2\nhere\nCapEff:\t0000000000000000\n");
        run(&c, &["--user", "7:9"], &["sh", "-c", "id -u; id -g"]).ok().prints("7\n9\n");
        run(&c, &["--user", "nobody"], &["true"])
            .exits(1)
            .says("no user \"nobody\" in /etc/passwd of the image");
        run(&c, &["--read-only"], &["touch", "/x"]).exits(1).says("Read-only file system");
        c.leaves_nothing();
    });
}

#[test]
fn capabilities_are_set() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let effective = |options: &[&str]| {
            let out = run(&c, options, &["grep", "CapEff", "/proc/self/status"]).ok();
            out.stdout.trim_start_matches("CapEff:").trim().to_owned()
        };
        // What engines give: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
        // net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
        assert_eq!(effective(&[]), "00000000a80425fb");
        assert_eq!(effective(&["--cap-drop", "ALL", "--cap-add", "kill"]), "0000000000000020");
        assert_eq!(effective(&["--cap-drop", "NET_RAW"]), "00000000a80405fb");
        let mount = ["sh", "-c", "mkdir -p /m; mount -t tmpfs tmpfs /m && echo mounted"];
        run(&c, &[], &mount).exits(1).says("permission denied");
        run(&c, &["--cap-add", "SYS_ADMIN"], &mount).ok().prints("mounted\n");
        let seccomp = run(&c, &[], &["grep", "Seccomp:", "/proc/self/status"]).ok();
        assert_eq!(seccomp.stdout, "Seccomp:\t2\n");
    });
}

/// CVE-2026-31431: sockets of the family AF_ALG, through which a page of any readable file was written.
#[test]
fn default_profile_refuses_dangerous_calls() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let out = run(&c, &[], &["probe"]).ok();
        for line in [
            "socket alg: refused with errno 1",
            "socket vsock: refused with errno 1",
            "socket vsock beyond 32 bits: refused with errno 1",
            "syslog size: refused with errno 1",
            "personality 8: allowed",
            "mount null: refused with errno 1",
            "clone3 null: refused with errno 38",
            "call number 5000: refused with errno 38",
            "socket raw: allowed",
        ] {
            let line = format!("call {line}");
            assert!(out.stdout.lines().any(|seen| seen == line), "{line:?} in {out:#?}");
        }
        let hidden = run(&c, &[], &["wc", "-c", "/proc/interrupts"]).ok();
        assert_eq!(hidden.stdout, "0 /proc/interrupts\n");
    });
}

#[test]
fn limits_are_set() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let rootfs = c.rootfs();
        c.call(["create", "--rootfs", rootfs.to_str().expect("utf-8"), "--memory", "64m"])
            .args(["--cpus", "0.5", "--pids", "20"])
            .args([&c.id, "--", "sleep", "1000"])
            .ok();
        let config = fs::read(c.root.join(&c.id).join("config.json")).expect("the stored config");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        let resources = &config["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["cpu"]["quota"], 50_000);
        assert_eq!(resources["pids"]["limit"], 20);
        assert_eq!(c.state()["bundle"], c.root.join(&c.id).to_str().expect("utf-8"));
        c.start();
        c.exec(["echo", "inside"]).ok().prints("inside\n");
        c.delete_by_force().ok();
    });
}

#[test]
fn options_count_more_than_a_bundle() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let c = c.script("echo not this");
        let options = ["--hostname", "mine", "-e", "A=b", "--tmpfs", "/mnt:1m", "--upper", "tmpfs"];
        c.write_config();
        c.call(["run", "-b", c.dir.to_str().expect("utf-8")])
            .args(options)
            .args([
                &c.id,
                "--",
                "sh",
                "-c",
                "hostname; echo $A; echo > /mnt/x; grep -c ' /mnt ' /proc/self/mountinfo",
            ])
            .ok()
            .prints("mine\nb\n1\n");
        let config = fs::read_to_string(c.path("config.json")).expect("the bundle's config");
        assert!(config.contains("not this") && !config.contains("mine"));
    });
}

#[test]
fn invalid_options_are_refused() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        for (options, text) in [
            (&["--memory", "much"][..], "invalid value \"much\" for flag --memory"),
            (&["--cpus", "none"], "invalid value \"none\" for flag --cpus"),
            (&["--cap-add", "FLY"], "\"FLY\" is not the name of a capability"),
            (&["--volume", "x"], "the source or the destination is missing"),
            (&["--volume", "../no-such-directory:/y"], "no such file or directory"),
            (&["--volume", "-x:/y"], "invalid volume name"),
            (&["--device", "/no/such/device"], "stat /no/such/device: no such file or directory"),
            (&["--device", "/etc"], "/etc has no devices"),
            (&["--sysctl", "kernel.sysrq=1"], "is not in a separate kernel namespace"),
            (&["--group-add", "nobodys"], "no group \"nobodys\" in /etc/group of the image"),
            (&["--group-add", "4294967295"], "invalid value \"4294967295\" for flag --group-add"),
            (&["--privileged"], "ask for what is needed"),
            (&["--volume", "/tmp:/x/.."], "the destination is the root"),
            (&["--volume", "/tmp:/x", "--tmpfs", "/x/"], "--volume and --tmpfs mount at /x twice"),
            (&["--tmpfs", "relative"], "not an absolute path"),
            (&["-it"], "a container terminal in the foreground needs a terminal of the caller"),
            (&["--rm", "--keep"], "--rm cannot be used together with --keep"),
            (&["--name", "x"], "the name is a word: aril run --rootfs DIR NAME -- COMMAND"),
            (&["--layer", "/no/such/layer"], "/no/such/layer: no such file or directory"),
            (&["--bundle", "/tmp"], "--rootfs cannot be used together with --bundle or --config"),
            (&["--user", "a:b:c"], "no user \"a\""),
        ] {
            run(&c, options, &["true"]).exits(1).says(text);
            c.leaves_nothing();
        }
        let missing = c.call(["run", "--rootfs", "/no/such/folder", &c.id, "--", "true"]).output();
        missing.exits(1).says("/no/such/folder: no such file or directory");
    });
}

/// `x=$(aril run -d ...)` is the id, at once: a container keeps no pipe or terminal of its caller's open,
/// but files and sockets, and with a bundle all that runc's callers count on.
#[test]
fn detached_it_prints_its_id_and_lets_go_of_pipes() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let rootfs = c.rootfs();
        let rootfs = rootfs.to_str().expect("utf-8");
        let seen =
            "for i in 0 1 2; do readlink /proc/self/fd/$i; done >/seen; echo out; sleep 1000";
        let words =
            ["run", "-d", "--rootfs", rootfs, "--upper", "tmpfs", &c.id, "--", "sh", "-c", seen];
        let shell = "x=$(\"$@\" 2>&1 </dev/null); echo \"<$x>\"";
        let out = c.call(words).in_shell(shell).ok().stdout;
        assert_eq!(out, format!("<{}>\n", c.id));
        assert_eq!(c.status(), "running");
        let look = || c.exec(["cat", "/seen"]).ok().stdout;
        assert_eq!(look().lines().nth(2), Some("/dev/null"));
        c.delete_by_force().silent();
        // A file stays.
        let file = c.path("output");
        let shell = format!("\"$@\" >{}", file.display());
        c.call(words).in_shell(&shell).ok();
        runtime_tests::container::wait_until("the output", || {
            fs::read_to_string(&file).is_ok_and(|text| text.contains("out\n"))
        });
        let text = fs::read_to_string(&file).expect("the output");
        assert!(text.contains(&format!("{}\n", c.id)), "{text}");
        c.delete_by_force().silent();
        c.leaves_nothing();
    });
    in_each_view(|view| {
        let c = Container::new(view).script("echo from the bundle");
        let shell = "x=$(\"$@\" </dev/null); echo \"<$x>\"";
        let out = c.run_call(&["-d"]).in_shell(shell).ok().stdout;
        assert_eq!(out, "<from the bundle>\n");
        c.wait_for("stopped");
        c.delete().silent();
    });
}

/// What people take for a root file system.
#[test]
fn images_and_bundles_are_told_from_root_file_systems() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let make = |name: &str, files: &[&str]| {
            let dir = c.directory(name);
            for file in files {
                match file.strip_suffix('/') {
                    Some(directory) => fs::create_dir(dir.join(directory)).expect("a directory"),
                    None => fs::write(dir.join(file), "{}").expect("a file"),
                }
            }
            dir
        };
        let file = c.file("image.tar", "");
        for (path, what, advice) in [
            (
                make("layout", &["oci-layout", "index.json", "blobs/"]),
                "an OCI image layout",
                "umoci",
            ),
            (make("saved", &["manifest.json", "repositories"]), "a saved image", "skopeo copy"),
            (make("bundle", &["config.json", "rootfs/"]), "a bundle", "--bundle"),
            (file, "a file", "tar -C"),
        ] {
            let path = path.to_str().expect("utf-8");
            let out = c.call(["run", "--rootfs", path, &c.id, "--", "sh"]).output();
            let text = format!("{path} is {what}, not a root file system");
            out.exits(1).says(&text).says("hint: ").says(advice);
            c.leaves_nothing();
        }
        // It has all that, and is one.
        for (name, text) in [("oci-layout", "{}"), ("manifest.json", "[]")] {
            fs::write(c.rootfs().join(name), text).expect("a file");
        }
        run(&c, &[], &["true"]).ok();
    });
}

#[test]
fn limits_by_dockers_names_and_by_runcs() {
    on_the_host(|view| {
        let Some(c) = image(view) else { return };
        let limit = |options: &[&str]| {
            let rootfs = c.rootfs();
            let rootfs = rootfs.to_str().expect("utf-8");
            let words = [&["create", "--rootfs", rootfs][..], options, &[&c.id, "--", "true"]];
            c.call(words.concat()).ok();
            let config = fs::read(c.root.join(&c.id).join("config.json")).expect("a config");
            let config: Value = serde_json::from_slice(&config).expect("json");
            c.delete().silent();
            config["linux"]["resources"].clone()
        };
        for name in ["--pids-limit", "--pids"] {
            assert_eq!(limit(&[name, "33"])["pids"]["limit"], 33);
        }
        for name in ["--cpu-shares", "--cpu-share"] {
            assert_eq!(limit(&[name, "512"])["cpu"]["shares"], 512);
        }
        let cpu = limit(&["--cpus", "1.5"])["cpu"].clone();
        assert_eq!((&cpu["quota"], &cpu["period"]), (&150_000.into(), &100_000.into()));
        c.leaves_nothing();
    });
}
