//! Limits as the kernel has them afterwards, in both layouts.

use std::fs;

use runtime_tests::{Container, View, in_each_view};
use serde_json::{Value, json};

fn limited(view: View, resources: Value) -> Container {
    let c = Container::new(view).sleeper().edit(|spec| {
        let all = spec["linux"]["resources"].as_object_mut().expect("resources");
        all.extend(resources.as_object().expect("resources").clone());
    });
    c.run_detached();
    c
}

/// The value of a file of the container's cgroup.
#[track_caller]
fn value(c: &Container, controller: &str, file: &str) -> String {
    let path = c.cgroup(controller).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().to_owned()
}

/// Asserts files of v1 or of v2, whichever the view has for the controller.
fn check(controller: &str, resources: Value, v1: &[(&str, &str)], v2: &[(&str, &str)]) {
    in_each_view(|view| {
        if !view.controls(controller) {
            return;
        }
        let c = limited(view, resources.clone());
        for (file, expected) in if view.is_v2() { v2 } else { v1 } {
            // Of older runcs, which counted a weight another way, what they wrote is good enough.
            let (current, older) = expected.split_once('|').unwrap_or((expected, expected));
            let found = value(&c, controller, file);
            if c.runtime.is_aril() || found != older {
                assert_eq!(found, current, "{file}");
            }
        }
    });
}

#[test]
fn processes_begin_in_the_cgroup() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.create();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).expect("cgroups");
        let inside = format!(":{}", c.cgroups_path());
        let (own, other): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.ends_with(&inside));
        match view.is_v2() {
            true => assert!(own.iter().any(|line| line.starts_with("0::")), "{text}"),
            false => assert!(other.is_empty(), "{text}"),
        }
    });
}

#[test]
fn memory() {
    check(
        "memory",
        json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432}}),
        &[("memory.limit_in_bytes", "67108864"), ("memory.soft_limit_in_bytes", "33554432")],
        &[("memory.max", "67108864"), ("memory.low", "33554432")],
    );
}

#[test]
fn a_process_that_takes_too_much_is_killed() {
    in_each_view(|view| {
        if !view.controls("memory") {
            return;
        }
        let c =
            Container::new(view).args(["sh", "-c", "tail /dev/zero; echo survived"]).edit(|spec| {
                spec["linux"]["resources"]["memory"] = json!({"limit": 16_777_216});
            });
        // The host may have swap for it.
        let out = c.run_call(&[]).output();
        assert!(out.stderr.contains("Killed") || out.code == Some(137), "{out:?}");
    });
}

#[test]
fn processor_time() {
    check(
        "cpu",
        json!({"cpu": {"shares": 512, "quota": 50_000, "period": 200_000}}),
        &[("cpu.shares", "512"), ("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "200000")],
        &[("cpu.max", "50000 200000"), ("cpu.weight", "59|20")],
    );
}

#[test]
fn processors() {
    check(
        "cpuset",
        json!({"cpu": {"cpus": "0", "mems": "0"}}),
        &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
        &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
    );
}

#[test]
fn processes() {
    check("pids", json!({"pids": {"limit": 17}}), &[("pids.max", "17")], &[("pids.max", "17")]);
    check("pids", json!({"pids": {"limit": -1}}), &[("pids.max", "max")], &[("pids.max", "max")]);
}

#[test]
fn a_fork_bomb_is_held() {
    in_each_view(|view| {
        if !view.controls("pids") {
            return;
        }
        let c = Container::new(view)
            .script("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; echo forked")
            .edit(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 5}));
        let out = c.run();
        assert!(out.stderr.contains("fork"), "{out:?}");
    });
}

#[test]
fn huge_pages() {
    check(
        "hugetlb",
        json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
        &[("hugetlb.2MB.limit_in_bytes", "4194304")],
        &[("hugetlb.2MB.max", "4194304")],
    );
}

#[test]
fn unified_resources() {
    in_each_view(|view| {
        if !(view.is_v2() && view.controls("hugetlb")) {
            return;
        }
        let c = limited(view, json!({"unified": {"hugetlb.2MB.max": "6291456"}}));
        assert_eq!(value(&c, "hugetlb", "hugetlb.2MB.max"), "6291456");
        let c = Container::new(view).edit(|spec| {
            spec["linux"]["resources"]["unified"] = json!({"../escape": "1"});
        });
        c.run().exits(1);
        c.leaves_nothing();
    });
}

const DEVICES: &str = "mknod /tmp/a c 1 7 && echo made full; mknod /tmp/b c 1 1 && echo made mem; \
    mknod /tmp/d b 254 0 && echo made disk; cat /tmp/d >/dev/null && echo read disk; \
    echo x > /dev/null && echo wrote null; head -c 1 /dev/zero > /dev/null && echo read zero";

/// mknod and the means to use it.
fn with_devices(view: View, rules: &Value) -> Container {
    let list = json!(runtime_tests::spec::FOURTEEN);
    Container::new(view).script(DEVICES).edit(|spec| {
        spec["root"]["readonly"] = false.into();
        spec["process"]["capabilities"] =
            json!({"bounding": list, "effective": list, "permitted": list});
        spec["linux"]["resources"]["devices"] = rules.clone();
    })
}

#[test]
fn device_rules() {
    in_each_view(|view| {
        let deny = json!({"allow": false, "access": "rwm"});
        let out = with_devices(view, &json!([deny])).run();
        // mknod is allowed by the default rules, opening is not.
        for text in ["made full", "made mem", "made disk", "wrote null", "read zero"] {
            assert!(out.stdout.contains(text), "{text}: {out:?}");
        }
        assert!(!out.stdout.contains("read disk"), "{out:?}");
        assert!(out.stderr.contains("can't open '/tmp/d': Operation not permitted"), "{out:?}");
    });
}

#[test]
fn device_rules_that_allow_reading() {
    in_each_view(|view| {
        let rules = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 7, "minor": 0, "access": "r"},
        ]);
        let c = with_devices(view, &rules).script(
            "mknod /tmp/d b 7 0; head -c 0 /tmp/d && echo read; exec 2>&1; echo x > /tmp/d",
        );
        let out = c.run();
        // Where there is no such device, its absence is seen, not the filter.
        let read = out.stdout.contains("read\n") || out.stderr.contains("No such device");
        assert!(read, "{out:?}");
        assert!(out.stdout.contains("/tmp/d: Operation not permitted"), "{out:?}");
    });
}

#[test]
fn parents_are_made_and_stay() {
    in_each_view(|view| {
        let c = Container::new(view).edit(|spec| {
            let path = spec["linux"]["cgroupsPath"].as_str().expect("a path");
            spec["linux"]["cgroupsPath"] = format!("{path}/deeper/still").into();
        });
        c.run().ok();
        let deep = c.cgroup("memory").join("deeper");
        assert!(deep.is_dir() && !deep.join("still").exists());
        runtime_tests::host::scrub(&c.mark);
    });
}

/// Of cgroup2 the kernel must know them, and the host's stay.
#[test]
fn options_of_the_mount_are_checked() {
    in_each_view(|view| {
        for kind in ["cgroup", "cgroup2"] {
            let c = |option: &str| {
                let options = json!(["ro", "nosuid", "noexec", "nodev", option]);
                Container::new(view).args(["true"]).edit(|spec| {
                    let all = spec["mounts"].as_array_mut().expect("mounts");
                    all.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
                    all.push(json!({"destination": "/sys/fs/cgroup", "type": kind, "source": "cgroup", "options": options}));
                })
            };
            let known = c("memory_recursiveprot");
            if !known.runtime.only_aril("runc sets them for the host") {
                return;
            }
            if view == View::Unified {
                known.run().ok();
                let unknown = c("bogus");
                let out = unknown.run().exits(1).says("error mounting \"cgroup\" to rootfs at");
                out.says("bogus").says("invalid argument");
                unknown.leaves_nothing();
            }
        }
    });
}

#[test]
fn the_freezer_is_seen() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let (file, freeze, thaw) = match view.is_v2() {
            true => (c.cgroup("").join("cgroup.freeze"), "1", "0"),
            false => (c.cgroup("freezer").join("freezer.state"), "FROZEN", "THAWED"),
        };
        fs::write(&file, freeze).expect("freeze");
        c.wait_for("paused");
        c.delete().exits(1).says("that is not stopped: paused");
        fs::write(&file, thaw).expect("thaw");
        c.wait_for("running");
        fs::write(&file, freeze).expect("freeze");
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

/// A create would wait in it until it is thawed.
#[test]
fn a_frozen_ancestor_is_refused() {
    in_each_view(|view| {
        let c = Container::new(view).edit(|spec| {
            let path = spec["linux"]["cgroupsPath"].as_str().expect("a path");
            spec["linux"]["cgroupsPath"] = format!("{path}/frozen/below/it").into();
        });
        if !c.runtime.only_aril("runc waits") {
            return;
        }
        let (controller, file, freeze, thaw) = match view.is_v2() {
            true => ("", "cgroup.freeze", "1", "0"),
            false => ("freezer", "freezer.state", "FROZEN", "THAWED"),
        };
        let frozen = c.cgroup(controller).join("frozen");
        fs::create_dir_all(&frozen).expect("mkdir");
        fs::write(frozen.join(file), freeze).expect("freeze");
        let out = c.create_call(&[]).output();
        fs::write(frozen.join(file), thaw).expect("thaw");
        let out = out.exits(1).says("container's cgroup unexpectedly frozen: ");
        assert!(out.stderr.contains("/frozen is frozen"), "{out:?}");
        assert!(!frozen.join("below").exists());
        c.run().ok();
        runtime_tests::host::scrub(&c.mark);
    });
}

/// The kernel refuses the weight of a cgroup that is idle.
#[test]
fn an_idle_cgroup_is_made_busy_again() {
    in_each_view(|view| {
        if !view.controls("cpu") {
            return;
        }
        let c = limited(view, json!({"cpu": {"shares": 512}}));
        if !c.runtime.only_aril("runc writes the weight first") {
            return;
        }
        let weight = if view.is_v2() { "cpu.weight" } else { "cpu.shares" };
        let values = || (value(&c, "cpu", "cpu.idle"), value(&c, "cpu", weight));
        let update = |resources: Value| {
            let file = c.file("resources.json", &resources.to_string());
            c.call(["update", "--resources", file.to_str().expect("utf-8"), &c.id]).output().ok()
        };
        update(json!({"cpu": {"idle": 1}}));
        assert_eq!(values().0, "1");
        // What says nothing of the weight leaves it alone.
        update(json!({"cpu": {"quota": 50_000}}));
        assert_eq!(values().0, "1");
        update(json!({"cpu": {"idle": 0, "shares": 1024}}));
        assert_eq!(values(), ("0".into(), if view.is_v2() { "100" } else { "1024" }.into()));
        let out = update(json!({"cpu": {"idle": 1, "shares": 1024}}));
        assert_eq!(values().0, "1");
        if view.is_v2() {
            assert!(out.stderr.contains("unable to apply both"), "{out:?}");
            let both = json!({"unified": {"cpu.idle": "1", "cpu.weight": "8"}});
            let out = update(both);
            assert!(out.stderr.contains("unable to apply both"), "{out:?}");
            assert_eq!(values().0, "1");
        }
    });
}

/// The kernel reads the largest number as "any".
#[test]
fn a_device_number_that_no_device_has() {
    in_each_view(|view| {
        let rules = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 4_294_967_295_u32, "minor": 11, "access": "rwm"},
        ]);
        let c = with_devices(view, &rules);
        if c.runtime.only_aril("runc refuses it on v1") {
            let out = c.script("mknod /tmp/k c 1 11; cat /tmp/k").run();
            assert!(out.stderr.contains("/tmp/k': Operation not permitted"), "{out:?}");
        }
    });
}
