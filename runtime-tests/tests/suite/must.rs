//! What the specification says must be an error is one, and names the field. What else can be wrong
//! with a config is in `errors`; the fields themselves are in `docs/spec.md`.

use runtime_tests::{Container, Runtime, on_the_host, skip};
use serde_json::{Value, json};

/// Nothing is made of the default spec after `change`, and the error says all of `words`.
#[track_caller]
fn refused(words: &[&str], change: impl Fn(&mut Value)) {
    on_the_host(|view| {
        let c = Container::new(view).edit(&change);
        let out = c.create_call(&[]).output();
        assert_ne!(out.code, Some(0), "{out:#?}");
        if c.runtime.only_aril("its words") {
            let last = out.stderr.lines().last().unwrap_or_default();
            assert!(words.iter().all(|word| last.contains(word)), "{words:?} in {out:#?}");
        }
        c.leaves_nothing();
    });
}

macro_rules! refusals {
    ($($name:ident: $words:expr, $change:expr;)*) => {$(
        #[test]
        fn $name() {
            refused(&$words, $change);
        }
    )*};
}

fn namespace(spec: &mut Value, namespace: Value) {
    let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    list.retain(|other| other["type"] != namespace["type"]);
    list.push(namespace);
}

fn mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().expect("mounts").push(mount);
}

fn own_namespace(kind: &str) -> String {
    format!("/proc/{}/ns/{kind}", std::process::id())
}

// config.md
refusals! {
    rlimit_that_no_kernel_has: ["RLIMIT_TIME"], |spec|
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_TIME", "soft": 1, "hard": 1}]);
    rlimit_given_twice: ["rlimits", "duplicate", "RLIMIT_CORE"], |spec| {
        let core = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 1});
        spec["process"]["rlimits"] = json!([core, core]);
    };
    rlimit_with_its_bounds_crossed: ["RLIMIT_CORE", "soft limit 2"], |spec|
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]);
    oom_score_out_of_range: ["oomScoreAdj 1001"], |spec|
        spec["process"]["oomScoreAdj"] = 1001.into();
    variable_without_a_name: ["environment variable", "name cannot be empty"], |spec|
        spec["process"]["env"] = json!(["=x"]);
    idmap_without_a_mapping: ["mounts[", "id-mapped"], |spec| mount(spec,
        json!({"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["idmap"]}));
    ridmap_without_a_mapping: ["mounts[", "id-mapped"], |spec| mount(spec,
        json!({"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["ridmap"]}));
    idmap_with_one_mapping: ["mounts[", "uid and gid mappings"], |spec| mount(spec,
        json!({"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind"],
               "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]}));
    idmap_of_a_new_file_system: ["mounts[", "only supported for bind"], |spec| mount(spec,
        json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
               "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
               "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]}));
    mount_without_a_place: ["destination"], |spec| mount(spec, json!({"type": "tmpfs"}));
    bind_with_options_of_a_file_system: ["mounts[", "filesystem-specific"], |spec| mount(spec,
        json!({"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind", "size=1k"]}));
    copying_up_into_no_tmpfs: ["mounts[", "tmpcopyup"], |spec| mount(spec,
        json!({"destination": "/mnt", "type": "ramfs", "source": "x", "options": ["tmpcopyup"]}));
    text_with_a_nul: ["mount source", "null byte"], |spec| mount(spec,
        json!({"destination": "/mnt", "type": "bind", "source": "/t\u{0}mp", "options": ["bind"]}));
    domainname_of_the_host: ["domainname", "UTS"], |spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|ns| ns["type"] != "uts");
        spec.as_object_mut().expect("spec").remove("hostname");
        spec["domainname"] = "example.org".into();
    };
    scheduler_without_a_policy: ["policy"], |spec|
        spec["process"]["scheduler"] = json!({"nice": 1});
    scheduler_of_no_kernel: ["SCHED_LUCKY"], |spec|
        spec["process"]["scheduler"] = json!({"policy": "SCHED_LUCKY"});
    scheduler_nice_out_of_range: ["scheduler.nice", "20"], |spec|
        spec["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 20});
    scheduler_priority_of_another_policy: ["scheduler.priority", "SchedFIFO"], |spec|
        spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "priority": 5});
    scheduler_deadline_of_another_policy: ["scheduler", "deadline"], |spec|
        spec["process"]["scheduler"] = json!({"policy": "SCHED_RR", "priority": 1, "deadline": 5});
    io_priority_out_of_range: ["ioPriority", "8"], |spec|
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
    io_priority_of_no_class: ["IOPRIO_CLASS_NONE"], |spec|
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_NONE", "priority": 0});
    affinity_that_is_no_list: ["CPU"], |spec|
        spec["process"]["execCPUAffinity"] = json!({"initial": "a-b"});
    apparmor_where_there_is_none: ["apparmor"], |spec| {
        if !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
            spec["process"]["apparmorProfile"] = "some-profile".into();
        } else {
            spec["process"]["apparmorProfile"] = "aril-test-no-such-profile".into();
        }
    };
    selinux_where_there_is_none: ["selinux"], |spec|
        spec["process"]["selinuxLabel"] = "system_u:system_r:container_t:s0".into();
}

// Hooks: a path that is absolute, a timeout above zero.
#[test]
fn hooks_that_cannot_be_run() {
    for point in
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        refused(&[point, "not absolute"], |spec| {
            spec["hooks"] = json!({point: [{"path": "bin/true"}]});
        });
        refused(&[point, "timeout 0"], |spec| {
            spec["hooks"] = json!({point: [{"path": "/bin/true", "timeout": 0}]});
        });
    }
}

/// What an engine that is configured for cgroupfs writes.
#[test]
fn a_path_that_is_no_unit() {
    if !std::path::Path::new("/run/systemd/system").exists() {
        return skip::inapplicable("systemd does not run here: see make vm-test");
    }
    on_the_host(|view| {
        let c = Container::new(view).edit(|spec| spec["linux"]["cgroupsPath"] = "/a/b".into());
        c.write_config();
        let out = c.call(["--systemd-cgroup", "create", &c.id]).output();
        out.exits(1).says("expected cgroupsPath to be of format").says("\"/a/b\"");
        c.leaves_nothing();
    });
}

#[test]
fn seccomp_numbers_of_actions_that_have_none() {
    if Runtime::under_test().name == "runc" {
        return skip::inapplicable("runc ignores the number");
    }
    refused(&["errnoRet", "SCMP_ACT_KILL"], |spec| {
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["sync"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]});
    });
    refused(&["defaultErrnoRet", "SCMP_ACT_ALLOW"], |spec| {
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1});
    });
}

// config-linux.md
refusals! {
    namespace_file_of_another_kind: ["network", "/ns/uts"], |spec|
        namespace(spec, json!({"type": "network", "path": own_namespace("uts")}));
    namespace_path_that_is_relative: ["linux.namespaces", "not absolute"], |spec|
        namespace(spec, json!({"type": "network", "path": "ns/net"}));
    offset_of_no_time_namespace: ["time namespace"], |spec|
        spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}});
    offset_of_a_joined_time_namespace: ["time namespace", "path"], |spec| {
        namespace(spec, json!({"type": "time", "path": own_namespace("time")}));
        spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}});
    };
    offset_of_no_clock: ["timeOffsets", "realtime"], |spec| {
        namespace(spec, json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    };
    device_in_the_place_of_another_file: ["/etc/passwd", "another file"], |spec| {
        spec["root"]["readonly"] = false.into();
        spec["linux"]["devices"] =
            json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]);
    };
    memory_policy_of_no_kernel: ["MPOL_NEAR"], |spec|
        spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_NEAR"});
    memory_policy_without_its_nodes: ["memory policy", "MPOL_BIND"], |spec|
        spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND"});
    memory_policy_with_nodes_too_many: ["memory policy", "MPOL_LOCAL"], |spec|
        spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_LOCAL", "nodes": "0"});
    personality_of_no_kernel: ["PDP11"], |spec|
        spec["linux"]["personality"] = json!({"domain": "PDP11"});
    hidden_paths_of_the_host: ["MNT namespace"], |spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|ns| ns["type"] != "mount");
        spec["mounts"] = json!([]);
        spec["root"]["readonly"] = false.into();
    };
    cache_groups_where_there_are_none: ["intelRdt", "not enabled"], |spec| {
        // On a processor that has them: a group that nobody made.
        let words = if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
            json!({"closID": "not enabled"})
        } else {
            json!({})
        };
        spec["linux"]["intelRdt"] = words;
    };
    network_device_that_is_not_there: ["netDevices", "aril-none", "no such device"], |spec|
        spec["linux"]["netDevices"] = json!({"aril-none": {}});
    network_device_of_a_bad_name: ["netDevices", "a/b"], |spec|
        spec["linux"]["netDevices"] = json!({"lo": {"name": "a/b"}});
    network_device_for_the_hosts_network: ["netDevices", "NET namespace"], |spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|ns| ns["type"] != "network");
        spec["linux"]["netDevices"] = json!({"eth0": {}});
    };
    seccomp_metadata_for_nobody: ["listenerMetadata", "listenerPath"], |spec|
        spec["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"});
    seccomp_rule_of_an_agent_without_one: ["listenerPath"], |spec|
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}]});
    sysctl_of_the_hostname: ["kernel.hostname"], |spec|
        spec["linux"]["sysctl"] = json!({"kernel.hostname": "x"});
    sysctl_of_no_namespace: ["kernel.core_pattern"], |spec|
        spec["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/bin/sh"});
    sysctl_of_a_user_namespace_that_is_not_there: ["user.max_user_namespaces"], |spec|
        spec["linux"]["sysctl"] = json!({"user.max_user_namespaces": "1"});
}

#[test]
fn schemas_of_a_host_without_them() {
    on_the_host(|view| {
        if std::path::Path::new("/sys/fs/resctrl/info").exists() {
            return skip::inapplicable("this host has resctrl");
        }
        let c = Container::new(view).sleeper();
        c.run_detached();
        for (flag, what) in [
            ("--l3-cache-schema=L3:0=f", "Intel RDT/CAT: l3 cache schema is not enabled"),
            ("--mem-bw-schema=MB:0=10", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
        ] {
            c.call(["update", flag, &c.id]).output().exits(1).says(what);
        }
        assert_eq!(c.status(), "running");
    });
}
