//! Text that is longer, or other, than whoever reads it next expects.

use runtime_tests::{Container, View, on_the_host};
use serde_json::json;

/// CVE-2021-43784: a length that did not fit its field let the rest be read as further attributes.
#[test]
fn a_path_longer_than_any_field_is_refused() {
    on_the_host(|view| {
        for length in [5_000, 70_000, 200_000] {
            let long = format!("/{}", "x/".repeat(length / 2));
            let namespace = json!({"type": "network", "path": long});
            let c = Container::new(view).namespace(namespace);
            let out = c.run();
            assert_eq!(out.code, Some(1), "{length}");
            c.leaves_nothing();
            let mount = json!({"destination": long, "type": "tmpfs", "source": "tmpfs"});
            let c = Container::new(view).mounting(mount);
            assert_eq!(c.run().code, Some(1), "{length}");
            c.leaves_nothing();
        }
    });
}

/// CVE-2021-43784: what follows a NUL.
#[test]
fn a_nul_cuts_nothing_short() {
    on_the_host(|view| {
        for pointer in [
            "/hostname",
            "/process/cwd",
            "/process/args/0",
            "/process/env/0",
            "/mounts/0/destination",
            "/linux/maskedPaths/0",
            "/linux/namespaces/1/path",
        ] {
            let edit = |spec: &mut serde_json::Value| {
                spec["linux"]["namespaces"][1]["path"] = "/proc/self/ns/net".into();
                let field = spec.pointer_mut(pointer).expect("a field");
                *field = format!("{}\0tail", field.as_str().expect("text")).into();
            };
            let c = Container::new(view).edit(edit);
            if !c.runtime.only_aril("runc drops what holds a NUL in env") {
                return;
            }
            let out = c.run();
            assert!(out.code != Some(0), "{pointer}: {out:?}");
            c.leaves_nothing();
        }
    });
}

/// CVE-2022-0811: a sysctl's value that set a second one.
#[test]
fn a_sysctl_sets_one_value() {
    on_the_host(|view| {
        for (key, value) in [
            ("net.ipv4.ip_default_ttl", "64\nkernel.core_pattern=|/tmp/x"),
            ("net.ipv4.ip_default_ttl", "64+kernel.core_pattern=|/tmp/x"),
            ("net.ipv4.ip_default_ttl+kernel.core_pattern", "64"),
            ("net/../kernel/core_pattern", "|/tmp/x"),
            ("net.../kernel.core_pattern", "|/tmp/x"),
            ("net./../kernel/core_pattern", "|/tmp/x"),
            ("kernel.core_pattern", "|/tmp/x"),
        ] {
            let before = std::fs::read("/proc/sys/kernel/core_pattern").expect("core_pattern");
            let c = Container::new(view).edit(|s| s["linux"]["sysctl"] = json!({key: value}));
            let out = c.run();
            // The kernel refuses some of the values; runc does not say so.
            assert!(out.code != Some(0) || !c.runtime.is_aril(), "{key}={value:?}: {out:?}");
            let after = std::fs::read("/proc/sys/kernel/core_pattern").expect("core_pattern");
            assert_eq!(before, after, "{key}={value:?}");
            c.leaves_nothing();
        }
    });
}

/// Ids and cgroups that climb.
#[test]
fn names_do_not_climb() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        for id in ["..", ".", "../x", "a/b", "a\nb", "", "/etc", "a\0"] {
            if id.contains('\0') {
                continue;
            }
            c.write_config();
            let bundle = c.dir.display().to_string();
            let out = c.call(["run", "-d", "-b", &bundle, id]).output();
            assert!(out.code != Some(0), "{id:?}: {out:?}");
        }
        c.run_detached();
        for cgroup in ["..", "../..", "/../x", "a/../../..", "../"] {
            let out = c.call(["exec", "--cgroup", cgroup, &c.id, "true"]).output();
            assert!(out.code != Some(0) || !c.runtime.is_aril(), "{cgroup}: {out:?}");
        }
    });
}

/// A workload that may make cgroups makes them deeper than a path can be: they are found, and removed.
#[test]
fn cgroups_without_end_go_with_their_container() {
    on_the_host(|_| {
        let depth = "cd /sys/fs/cgroup; d=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; n=0; \
                     while [ $n -lt 250 ]; do mkdir $d && cd -P $d || exit 9; n=$((n+1)); done";
        let c = Container::new(View::Unified);
        if !c.runtime.only_aril("others look for them by path") {
            return;
        }
        let c = c.script(&format!("{depth}; echo deep; sleep 1000")).edit(|spec| {
            for mount in spec["mounts"].as_array_mut().expect("mounts") {
                if mount["type"] == "cgroup" {
                    mount["options"].as_array_mut().expect("options").retain(|o| o != "ro");
                }
            }
        });
        let output = c.path("said");
        let call = c.run_call(&["-d"]).in_shell(&format!("exec \"$@\" > {}", output.display()));
        call.ok();
        let said = || std::fs::read_to_string(&output).unwrap_or_default();
        runtime_tests::container::wait_until("the depth", || said().contains("deep"));
        c.call(["ps", "--format", "json", &c.id]).ok();
        c.call(["delete", "--force", &c.id]).ok();
        c.leaves_nothing();
    });
}
