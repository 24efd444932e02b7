//! Annotations of a config.json, whose authors are also those of pods and images: what the operator
//! has not allowed changes nothing, and is named in one warning; what is allowed acts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use runtime_tests::{Container, Output, View, in_each_view, on_the_host, skip};
use serde_json::{Value, json};

const IGNORED: &str = "ignored: the operator has not allowed it (--allow-annotation)";

/// A directory of the host with a secret in it, and a program that would show it.
fn secret(c: &Container) -> PathBuf {
    let host = c.directory("host");
    fs::create_dir_all(host.join("etc")).expect("a directory");
    fs::write(host.join("etc/secret"), "of the host\n").expect("a file");
    host
}

fn container(view: View) -> Option<Container> {
    let c = Container::new(view);
    if !c.runtime.only_aril("annotations of its own") {
        return None;
    }
    // Whether it sees the host's files and links, and what confines it.
    let c = c.edit(|spec| spec["root"]["readonly"] = false.into());
    Some(c.script(
        "cat /etc/secret 2>&1; ls /sys/class/net | wc -l; grep NoNewPrivs /proc/self/status; \
         cat /proc/self/uid_map; echo x > /etc/owned; cat /etc/hosts 2>&1; echo over",
    ))
}

/// Every key, with the value that its worst author would choose.
fn hostile(c: &Container, host: &Path) -> Vec<(&'static str, String)> {
    let (image, host) = (c.rootfs().display().to_string(), host.display().to_string());
    vec![
        ("io.aril.rootfs.layers", json!([image, host]).to_string()),
        ("io.aril.rootfs.upper", json!({"upper": host, "work": host + "-work"}).to_string()),
        ("io.aril.rootfs.show", "true".to_owned()),
        ("io.aril.userns", "auto".to_owned()),
        ("io.aril.network", "host".to_owned()),
        ("io.aril.network.publish", "22:22".to_owned()),
        ("io.aril.network.address", "10.0.0.1".to_owned()),
        ("io.aril.network.dns", "192.0.2.1".to_owned()),
        ("io.aril.network.dns-search", "example".to_owned()),
        ("io.aril.network.hosts", "host:192.0.2.1".to_owned()),
        ("io.aril.network.rate", "1mbit".to_owned()),
        ("io.aril.landlock", r#"{"fs":[]}"#.to_owned()),
    ]
}

fn set(c: &mut Container, annotations: &[(&str, String)]) {
    c.spec["annotations"] = json!({});
    for (key, value) in annotations {
        c.spec["annotations"][key] = value.as_str().into();
    }
}

/// The warning and nothing else is different.
#[track_caller]
fn only_warns(out: &Output, plain: &str, key: &str) {
    assert_eq!(out.stdout, plain, "{key}");
    let named = format!("annotation {key} {IGNORED}");
    assert_eq!(out.stderr.matches(&named).count(), 1, "{key}: {}", out.stderr);
    assert_eq!(out.stderr.lines().count(), 1, "{key}: {}", out.stderr);
}

#[test]
fn annotations_that_are_not_allowed_have_no_effect() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        let host = secret(&c);
        let plain = c.run().ok();
        assert!(plain.stdout.contains("No such file"), "{}", plain.stdout);
        let all = hostile(&c, &host);
        for (key, value) in &all {
            set(&mut c, &[(key, value.clone())]);
            only_warns(&c.run().ok(), &plain.stdout, key);
            // Neither a prefix of a longer key, nor one that is longer, lets it act.
            for allowed in ["io.aril.network.publish", "io.aril.network", "io.aril.rootfs.*"] {
                let prefix = allowed.strip_suffix('*');
                let allows = prefix.map_or(allowed == *key, |prefix| key.starts_with(prefix));
                if allows {
                    continue;
                }
                let out = c.call(["--allow-annotation", allowed, "run", "-b"]).arg(&c.dir);
                only_warns(&out.arg(&c.id).output().ok(), &plain.stdout, key);
            }
        }
        set(&mut c, &all);
        let out = c.run().ok();
        assert_eq!((out.stdout.as_str(), out.stderr.lines().count()), (plain.stdout.as_str(), 1));
        all.iter().for_each(|(key, _)| assert!(out.stderr.contains(key), "{key}: {}", out.stderr));
        assert!(!host.join("etc/owned").exists());
        c.leaves_nothing();
    });
}

/// Those that name the host take the very key.
#[test]
fn a_prefix_allows_nothing_that_names_the_host() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        let host = secret(&c);
        let plain = c.run().ok().stdout;
        for (key, value) in hostile(&c, &host).into_iter().take(6) {
            set(&mut c, &[(key, value)]);
            c.write_config();
            let out = c.call(["--allow-annotation=io.aril.*", "run", "-b"]).arg(&c.dir);
            let out = out.arg(&c.id).output().ok();
            assert_eq!(out.stdout, plain, "{key}");
            assert!(out.stderr.contains(&format!("annotation {key} ignored: it affects the host")));
        }
        c.leaves_nothing();
    });
}

#[test]
fn allowed_annotations_have_an_effect() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        let host = secret(&c);
        c = c.script("cat /etc/secret; echo x > /etc/owned; ls /sys/class/net | wc -l");
        let of = |key| hostile(&c, &host).into_iter().find(|(k, _)| *k == key).expect("the key").1;
        let layers = of("io.aril.rootfs.layers");
        let c = c.annotated("io.aril.rootfs.layers", &layers);
        let out = c.run().ok();
        assert!(out.stdout.starts_with("of the host\n") && out.stderr.is_empty(), "{out:?}");
        // What is allowed is allowed alone.
        let mut c = c;
        c.spec["annotations"]["io.aril.network"] = "host".into();
        let out = c.run().ok();
        assert_eq!(out.stdout, "of the host\n1\n");
        out.says("annotation io.aril.network ignored");
        assert!(!host.join("etc/owned").exists());
        c.leaves_nothing();
    });
}

/// Also the verbs that do not make a container, or find one that was made.
#[test]
fn later_verbs_use_the_granted_annotations() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        let mut c = c.sleeper();
        let marker = c.path("pasta-was-run");
        let script = format!("#!/bin/sh\ntouch {}\nexit 1\n", marker.display());
        let pasta = c.directory("bin").join("pasta");
        fs::write(&pasta, script).expect("a program");
        fs::set_permissions(&pasta, fs::Permissions::from_mode(0o755)).expect("chmod");
        set(
            &mut c,
            &[
                ("io.aril.landlock", r#"{"fs":[]}"#.to_owned()),
                ("io.aril.landlock.enforced", "version 7: files".to_owned()),
                ("io.aril.network", "pasta".to_owned()),
            ],
        );
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", c.path("bin").display());
        c.write_config();
        for verb in ["plan", "explain"] {
            let out = c.call([verb, c.dir.to_str().expect("utf-8")]).output().ok();
            assert!(!out.stdout.to_lowercase().contains("landlock"), "{}", out.stdout);
            out.says("io.aril.landlock, io.aril.network ignored");
        }
        c.create_call(&[])
            .env("PATH", &path)
            .ok()
            .says("io.aril.landlock, io.aril.network ignored");
        c.start();
        // The engine's annotations are shown unchanged, except a false report under the name of one of Aril's.
        let state = c.state();
        assert_eq!(state["annotations"]["io.aril.network"], "pasta");
        assert_eq!(state["annotations"]["io.aril.landlock.enforced"], Value::Null);
        c.exec(["cat", "/etc/passwd"]).ok();
        c.exec(["grep", "-q", "NoNewPrivs:.1", "/proc/self/status"]).ok();
        c.call(["update", "--pids-limit", "50", &c.id]).ok();
        c.exec(["cat", "/etc/passwd"]).ok();
        c.call(["delete", "--force", &c.id]).env("PATH", &path).ok();
        assert!(!marker.exists(), "the program pasta was started");
        c.leaves_nothing();
    });
}

#[test]
fn a_strict_operator_refuses() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        set(&mut c, &[("io.aril.network", "none".to_owned()), ("other", "x".to_owned())]);
        c.write_config();
        let run =
            |globals: &[&str]| c.call(globals).args(["run", "-b"]).arg(&c.dir).arg(&c.id).output();
        let out = run(&["--strict-annotations"]).exits(1);
        assert!(out.stderr.lines().any(|line| line.contains("annotation io.aril.network ignored")));
        c.leaves_nothing();
        run(&["--strict-annotations", "--allow-annotation", "io.aril.*"]).ok();
        run(&["--deny-annotation", "io.aril.network", "--allow-annotation", "io.aril.*"])
            .ok()
            .says("annotation io.aril.network ignored");
        for wrong in ["io.aril.netwrok", "*", "com.example.*"] {
            run(&["--allow-annotation", wrong]).exits(1).says(&format!("{wrong:?}"));
        }
    });
}

/// CVE-2024-3154: CRI-O passed on a pod's annotations for systemd, one of which powers the host off. Those
/// that CRI-O itself sets reach no further than the container's unit.
#[test]
fn a_property_that_reaches_the_host_takes_the_operator() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        let own = [
            ("org.systemd.property.After", "['crio.service']".to_owned()),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'".to_owned()),
            ("org.systemd.property.DefaultDependencies", "true".to_owned()),
            ("org.systemd.property.TimeoutStopUSec", "uint64 1000000".to_owned()),
        ];
        // Whether systemd is there or not: the answer comes before it is asked.
        let run = |c: &Container, globals: &[&str]| {
            c.write_config();
            let strict = ["--systemd-cgroup", "--strict-annotations", "--rootless=false"];
            c.call([&strict, globals].concat()).args(["plan"]).arg(&c.dir).output().stderr
        };
        set(&mut c, &own);
        assert!(!run(&c, &[]).contains("annotation"), "{}", run(&c, &[]));
        for name in ["SuccessAction", "OnFailure", "Slice", "CPUWeight", "timeoutstopusec"] {
            let key = format!("org.systemd.property.{name}");
            let worst = [&own[..], &[(key.as_str(), "'reboot'".to_owned())]].concat();
            set(&mut c, &worst);
            let named = format!("annotation {key} ignored: the operator has not allowed it");
            assert!(run(&c, &[]).contains(&named), "{name}: {}", run(&c, &[]));
            let prefix = run(&c, &["--allow-annotation=org.systemd.property.*"]);
            assert!(
                prefix.contains(&format!("annotation {key} ignored: it affects the host")),
                "{prefix}"
            );
            let allowed = run(&c, &[&format!("--allow-annotation={key}")]);
            assert!(!allowed.contains("ignored"), "{name}: {allowed}");
        }
    });
}

/// A pod's config.json by the rules of CRI-O: its own annotations, then every one of the pod's but a list.
#[test]
fn a_pod_as_cri_o_writes_it() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        let host = secret(&c);
        let plain = c.run().ok().stdout;
        let own = ["ContainerType", "SandboxID", "Labels", "Annotations", "ImageName", "Name"];
        let pod = hostile(&c, &host);
        let own: Vec<_> = own.iter().map(|key| format!("io.kubernetes.cri-o.{key}")).collect();
        let own = own.iter().map(|key| (key.as_str(), r#"{"io.aril.network":"host"}"#.to_owned()));
        let foreign = [("app", "web".to_owned()), ("io.aril", "x".to_owned())];
        let all: Vec<_> = own.chain(pod).chain(foreign).collect();
        set(&mut c, &all);
        c.create();
        let state = c.state();
        let shown = state["annotations"].as_object().expect("annotations");
        assert_eq!(shown.len(), all.len(), "{state}");
        c.delete_by_force().ok();
        let out = c.run().ok();
        assert_eq!((out.stdout.as_str(), out.stderr.lines().count()), (plain.as_str(), 1));
        assert!(!out.stderr.contains("cri-o") && !host.join("etc/owned").exists());
        c.leaves_nothing();
    });
}

/// Tools of the node find the bundle by a label in the record, among which the annotations are.
#[test]
fn the_bundle_is_where_the_runtime_says() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        set(&mut c, &[("bundle", "/evil".to_owned()), ("bundle=/evil", "x".to_owned())]);
        c.create();
        let record = fs::read(c.root.join(&c.id).join("state.json")).expect("the record");
        let record: Value = serde_json::from_slice(&record).expect("json");
        let labels = record["config"]["labels"].as_array().expect("labels");
        assert_eq!(labels, &[Value::from(format!("bundle={}", c.dir.display()))]);
        c.delete_by_force().ok();
    });
}

/// Engines read the file of `--log`.
#[test]
fn the_log_has_the_warning() {
    on_the_host(|view| {
        let Some(c) = container(view) else { return };
        let mut c = c.logging();
        let long = format!("io.aril.{}\n\"", "x".repeat(300));
        set(&mut c, &[("io.aril.network", "host".to_owned()), (&long, "x".to_owned())]);
        c.run().ok();
        let log = c.log();
        let warnings: Vec<_> = log.iter().filter(|record| record["level"] == "warning").collect();
        assert_eq!(warnings.len(), 2, "{log:?}");
        assert_eq!(warnings[0]["msg"], format!("annotation io.aril.network {IGNORED}"));
        let unknown = warnings[1]["msg"].as_str().expect("text");
        assert!(unknown.contains("Aril has no annotation of this name") && unknown.len() < 250);
    });
}

/// Every user that may write to the file acts as the operator.
#[test]
fn a_configuration_file_counts_if_root_alone_can_write_it() {
    on_the_host(|view| {
        let Some(mut c) = container(view) else { return };
        let Some(unshare) = skip::tool("unshare", "util-linux") else { return };
        set(&mut c, &[("io.aril.network.dns", "x".to_owned())]);
        let c = c.args(["true"]);
        c.write_config();
        // An /etc of its own, in a mount namespace.
        let run = |prepare: &str| {
            let script = format!(
                "mount -t tmpfs -o mode=755 etc /etc; mkdir /etc/aril; cd /etc/aril
                 echo 'allow-annotation io.aril.network.*' > aril.conf
                 umask 022; {prepare}
                 exec \"$RUNTIME\" --root \"$ROOT\" run -b \"$BUNDLE\" \"$ID\""
            );
            c.bare(&unshare, "unshare")
                .args(["-m", "--propagation", "private", "sh", "-ec", &script])
                .env("RUNTIME", &c.runtime.path)
                .env("ROOT", &c.root)
                .env("BUNDLE", &c.dir)
                .env("ID", &c.id)
                .env("XDG_CONFIG_HOME", "/etc/of-a-user")
                .output()
        };
        // The annotation acts: it is wrong, and refused.
        run("").exits(1).says("io.aril.network.dns needs a network with name resolution");
        for (prepare, why) in [
            ("chmod 664 aril.conf", "other users can write /etc/aril/aril.conf (mode 0664)"),
            ("chmod 602 aril.conf", "other users can write /etc/aril/aril.conf (mode 0602)"),
            ("chown 7 aril.conf", "/etc/aril/aril.conf belongs to user 7"),
            ("chown 7 .", "/etc/aril belongs to user 7"),
            ("chmod 777 .", "other users can write /etc/aril (mode 0777)"),
            ("chmod 1777 .", "other users can write /etc/aril (mode 1777)"),
            ("mv aril.conf real; ln -s real aril.conf", "/etc/aril/aril.conf is a symbolic link"),
            ("cd ..; mv aril real; ln -s real aril", "/etc/aril is a symbolic link"),
            ("rm aril.conf; mkdir aril.conf", "/etc/aril/aril.conf is not a regular file"),
            ("rm aril.conf; mkfifo aril.conf", "/etc/aril/aril.conf is not a regular file"),
            ("echo allow-annotations x >> aril.conf", "line 2: invalid directive"),
        ] {
            let out = run(prepare).exits(1);
            assert!(out.stderr.contains(why), "{prepare}: {}", out.stderr);
        }
        run("rm aril.conf").ok().says("annotation io.aril.network.dns ignored");
        run("echo strict-annotations > aril.conf").exits(1).says("--strict-annotations");
        // Root's environment names no file.
        run("rm aril.conf; mkdir -p ../of-a-user/aril; \
             echo 'allow-annotation io.aril.*' > ../of-a-user/aril/aril.conf")
        .ok()
        .says("annotation io.aril.network.dns ignored");
        c.leaves_nothing();
    });
}

#[test]
fn the_callers_groups_stay_where_they_are_asked_for() {
    in_each_view(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("crun's annotation") {
            return;
        }
        let Some(setpriv) = skip::tool("setpriv", "util-linux") else { return };
        let mut c = c.script("grep ^Groups: /proc/self/status");
        let setpriv = setpriv.to_str().expect("utf-8").to_owned();
        let stage = [setpriv.as_str(), "--groups", "61235,61236"];
        let run = |c: &Container, flags: &[&str]| {
            let words = c.run_call(flags).argv().to_vec();
            c.bare(Path::new(stage[0]), "groups").args(&stage[1..]).args(words).output()
        };
        assert_eq!(run(&c, &[]).ok().stdout.trim(), "Groups:");
        for (value, kept) in [("1", true), ("0", false)] {
            c.spec["annotations"]["run.oci.keep_original_groups"] = value.into();
            let seen = run(&c, &[]).ok().stdout;
            assert_eq!(seen.contains("61235 61236"), kept, "{value}: {seen}");
        }
    });
}

/// crun's, which can do nothing but refuse.
#[test]
fn unknown_system_calls_are_refused_where_that_is_asked_for() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("crun's annotation") {
            return;
        }
        let mut c = c.args(["true"]).edit(|spec| {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]});
        });
        c.run().ok().says("unknown seccomp syscalls ignored: no_such_call");
        for (value, refused) in [("1", true), ("0", false)] {
            c.spec["annotations"]["run.oci.seccomp_fail_unknown_syscall"] = value.into();
            let out = c.run();
            match refused {
                true => out.exits(1).says("seccomp: unknown syscalls: no_such_call"),
                false => out.ok(),
            };
            c.leaves_nothing();
        }
    });
}

/// A file that a user wrote counts for that user's containers.
#[test]
fn a_user_allows_what_their_own_containers_may() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("a configuration file of its own") || !skip::is_root() {
            return;
        }
        let Some(setpriv) = skip::tool("setpriv", "util-linux") else { return };
        const USER: u32 = 47111;
        let home = c.directory("home/.config/aril");
        let config = home.join("aril.conf");
        let bundle = c.directory("bundle");
        fs::write(
            bundle.join("config.json"),
            r#"{"ociVersion":"1.2.0","annotations":{"io.aril.landlock":"x"}}"#,
        )
        .expect("a config");
        fs::write(&config, "allow-annotation io.aril.landlock\n").expect("a file");
        let give = |path: &Path, to: u32| {
            std::os::unix::fs::chown(path, Some(to), Some(to)).expect("chown");
        };
        let own = [c.path("home"), c.path("home/.config"), home.clone(), config.clone()];
        own.iter().for_each(|path| give(path, USER));
        let explain = || {
            let id = USER.to_string();
            c.bare(&setpriv, "user")
                .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
                .arg(&c.runtime.path)
                .args(["explain", bundle.to_str().expect("utf-8")])
                .env("HOME", c.path("home"))
                .output()
        };
        explain().exits(1).says("io.aril.landlock: invalid JSON");
        give(&config, USER + 1);
        explain().exits(1).says(&format!("belongs to user {}", USER + 1));
        give(&config, USER);
        fs::set_permissions(&config, fs::Permissions::from_mode(0o620)).expect("chmod");
        explain().exits(1).says("other users can write");
        fs::rename(&config, home.join("real")).expect("rename");
        symlink("real", &config).expect("symlink");
        explain().exits(1).says("is a symbolic link");
        fs::remove_file(&config).expect("remove");
        explain().ok().says("annotation io.aril.landlock ignored");
    });
}
