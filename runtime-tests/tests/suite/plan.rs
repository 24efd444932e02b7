//! The documents that need no container: `spec`, `features`, and aril's own `plan` and timeline.

use std::fs;

use runtime_tests::{Container, on_the_host, skip, spec};
use serde_json::{Value, json};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn the_default_spec() {
    on_the_host(|view| {
        let c = Container::new(view);
        let bundle = c.directory("bundle");
        c.call(["spec", "-b", bundle.to_str().expect("utf-8")]).output().silent();
        let text = fs::read_to_string(bundle.join("config.json")).expect("config.json");
        assert!(text.starts_with("{\n\t\"ociVersion\""), "indented with tabs: {text}");
        let mut written = json_of(&text);
        let mut expected = spec::runc(view);
        for spec in [&mut written, &mut expected] {
            spec["ociVersion"] = Value::Null;
            spec["process"]["terminal"] = Value::Null;
            spec["hostname"] = Value::Null; // the runtime's name
            // runc 1.1.5 raises the ambient set too, its successors do not.
            let sets = spec["process"]["capabilities"].as_object_mut().expect("capabilities");
            sets.remove("ambient");
            for list in ["maskedPaths", "readonlyPaths"] {
                let list = spec["linux"][list].as_array_mut().expect("a list");
                // Newer ones mask more of these.
                list.retain(|path| {
                    !["/proc/interrupts", "/sys/devices/virtual/powercap"]
                        .contains(&path.as_str().expect("a path"))
                });
                list.sort_by_key(Value::to_string);
            }
        }
        assert_eq!(written, expected);
        c.call(["spec", "-b", bundle.to_str().expect("utf-8")])
            .output()
            .exits(1)
            .says("File config.json exists. Remove it first");
    });
}

#[test]
fn the_default_spec_runs() {
    on_the_host(|view| {
        let mut c = Container::new(view);
        c.call(["spec"]).dir(&c.dir).ok();
        let text = fs::read_to_string(c.path("config.json")).expect("config.json");
        c.take_spec(json_of(&text));
        c.spec["process"]["terminal"] = false.into();
        c.args(["echo", "hello"]).run().ok().prints("hello\n");
    });
}

#[test]
fn the_rootless_spec() {
    on_the_host(|view| {
        let c = Container::new(view);
        c.call(["spec", "--rootless"]).dir(&c.dir).ok();
        let spec = json_of(&fs::read_to_string(c.path("config.json")).expect("config.json"));
        let kinds: Vec<&str> = spec["linux"]["namespaces"]
            .as_array()
            .expect("namespaces")
            .iter()
            .filter_map(|ns| ns["type"].as_str())
            .collect();
        assert!(kinds.contains(&"user") && !kinds.contains(&"network"), "{kinds:?}");
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        assert_eq!(spec["linux"]["uidMappings"], map);
        assert_eq!(spec["linux"]["gidMappings"], map);
        assert!(spec["linux"]["resources"].is_null(), "{spec}");
        let sys =
            spec["mounts"].as_array().expect("mounts").iter().find(|m| m["destination"] == "/sys");
        let options = &sys.expect("sysfs")["options"];
        assert!(options.as_array().expect("options").contains(&"rbind".into()), "{options}");
    });
}

#[test]
fn features() {
    on_the_host(|view| {
        let c = Container::new(view);
        let out = c.call(["features"]).ok();
        assert!(out.stdout.starts_with("{\n    \"ociVersionMin\""), "four blanks: {}", out.stdout);
        assert!(out.stderr.is_empty());
        let features = json_of(&out.stdout);
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert!(features["ociVersionMax"].as_str().is_some_and(|v| v.starts_with("1.")));
        for (list, members) in [
            (&features["hooks"], &["prestart", "createRuntime", "poststop"][..]),
            (
                &features["mountOptions"],
                &["bind", "rbind", "ro", "nosuid", "rprivate", "tmpcopyup"],
            ),
            (
                &features["linux"]["namespaces"],
                &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            ),
            (&features["linux"]["capabilities"], &["CAP_CHOWN", "CAP_BPF"]),
            (&features["linux"]["seccomp"]["actions"], &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]),
            (&features["linux"]["seccomp"]["archs"], &["SCMP_ARCH_X86_64"]),
        ] {
            let list = list.as_array().unwrap_or_else(|| panic!("not a list: {features}"));
            for member in members {
                assert!(list.contains(&(*member).into()), "{member} in {list:?}");
            }
        }
        let options = features["mountOptions"].as_array().expect("a list");
        assert!(options.is_sorted_by_key(|option| option.to_string()), "sorted: {options:?}");
        assert_eq!(features["linux"]["cgroup"]["v1"], true);
        assert_eq!(features["linux"]["cgroup"]["v2"], true);
        assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    });
}

#[test]
fn a_plan_says_what_would_happen_and_does_nothing() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("plan is a command of its own") {
            return;
        }
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        let first = c.call(["plan", bundle]).ok();
        assert!(first.stderr.is_empty(), "{first:?}");
        for text in ["/proc", "/dev/null", "pivot_root", "CAP_KILL", "execute", &c.cgroups_path()] {
            assert!(first.stdout.contains(text), "{text:?} in {}", first.stdout);
        }
        let again = c.call(["plan", bundle]).ok();
        assert_eq!(first.stdout, again.stdout, "stable");
        c.leaves_nothing();
    });
}

#[test]
fn a_plan_needs_no_root() {
    on_the_host(|view| {
        let c = Container::new(view);
        let Some(setpriv) = skip::tool("setpriv", "util-linux") else { return };
        if !c.runtime.only_aril("plan is a command of its own") {
            return;
        }
        c.write_config();
        let bundle = c.dir.to_str().expect("utf-8");
        // The build may lie where only its owner can go.
        let binary = c.path("aril");
        fs::copy(&c.runtime.path, &binary).expect("a copy");
        c.bare(&setpriv, "plan")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
            .arg(&binary)
            .args(["plan", bundle])
            .ok()
            .prints("pivot_root");
    });
}

#[test]
fn a_plan_refuses_what_create_refuses() {
    on_the_host(|view| {
        let c = Container::new(view).edit(|spec| spec["process"]["cwd"] = "relative".into());
        if !c.runtime.only_aril("plan is a command of its own") {
            return;
        }
        c.write_config();
        let out = c.call(["plan", c.dir.to_str().expect("utf-8")]).output();
        out.exits(1).says("Cwd must be an absolute path");
    });
}

#[test]
fn a_plan_lists_the_effects_on_the_host_in_their_order() {
    on_the_host(|view| {
        let c = Container::new(view)
            .annotated("io.aril.network", "bridge:web")
            .annotated("io.aril.network.publish", "8080:80");
        if !c.runtime.only_aril("plan is a command of its own") {
            return;
        }
        c.write_config();
        let plan = c.call(["plan", c.dir.to_str().expect("utf-8")]).ok().stdout;
        let lines = [
            "  state directory ",
            "  lease on network web\n",
            "  write /etc/hosts",
            "  cgroup: make ",
            "  clone with new namespaces: ",
            "  a link to network web, publish 8080:80",
            "container process:",
        ];
        let places =
            lines.map(|line| plan.find(line).unwrap_or_else(|| panic!("{line:?} in {plan}")));
        assert!(places.is_sorted(), "{places:?} in {plan}");
        c.leaves_nothing();
    });
}

#[test]
fn the_stored_config_is_the_one_that_was_planned() {
    on_the_host(|view| {
        let mut c = Container::new(view).without_namespace("network").sleeper();
        if !c.runtime.only_aril("annotations of its own") {
            return;
        }
        c.annotate("io.aril.network", "none");
        c.create();
        let stored = fs::read_to_string(c.root.join(&c.id).join("config.json"));
        let stored = json_of(&stored.expect("the stored config"));
        let namespaces = stored["linux"]["namespaces"].as_array().expect("a list");
        assert!(namespaces.contains(&json!({"type": "network"})), "{namespaces:?}");
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

#[test]
fn a_timeline_says_where_the_time_went() {
    on_the_host(|view| {
        let c = Container::new(view).args(["echo", "hello"]);
        if !c.runtime.only_aril("--timeline is a flag of its own") {
            return;
        }
        let out = c.run_call(&["--timeline"]).ok();
        assert_eq!(out.stdout, "hello\n", "the container's output stays its own");
        assert!(out.stderr.lines().count() > 5, "{out:?}");
        assert!(out.stderr.contains("pivot_root"), "{out:?}");
    });
}
