//! One field of the default spec changed at a time.

use std::fs;

use runtime_tests::spec::bind;
use runtime_tests::{Container, spec};
use serde_json::json;

use super::{Way, same};

/// A variation of the default spec.
macro_rules! variations {
    ($($name:ident: $make:expr;)*) => {$(
        #[test]
        fn $name() {
            same(Way::CreateStart, $make);
        }
    )*};
}

fn process(field: &'static str, value: serde_json::Value) -> impl Fn(Container) -> Container {
    move |c| c.edit(|spec| spec["process"][field] = value.clone())
}

fn linux(field: &'static str, value: serde_json::Value) -> impl Fn(Container) -> Container {
    move |c| c.edit(|spec| spec["linux"][field] = value.clone())
}

fn mount(value: serde_json::Value) -> impl Fn(Container) -> Container {
    move |c| c.mounting(value.clone()).edit(writable)
}

fn tmpfs(destination: &str, options: &[&str]) -> serde_json::Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

fn writable(spec: &mut serde_json::Value) {
    spec["root"]["readonly"] = false.into();
}

/// A bind of a directory that holds a file, or of the file.
fn binding(to: &'static str, options: &'static [&'static str]) -> impl Fn(Container) -> Container {
    move |c| {
        let source = c.directory("source");
        fs::write(source.join("file"), "text").expect("a file");
        let source = if to.ends_with("file") { source.join("file") } else { source };
        c.mounting(bind(&source, to, options)).edit(writable)
    }
}

// Namespaces.
variations! {
    no_pid_namespace: |c| c.without_namespace("pid");
    no_network_namespace: |c| c.without_namespace("network");
    no_ipc_namespace: |c| c.without_namespace("ipc")
        .edit(|spec| spec["mounts"].as_array_mut().expect("mounts")
            .retain(|m| m["destination"] != "/dev/mqueue"));
    no_uts_namespace: |c| c.without_namespace("uts")
        .edit(|spec| { spec.as_object_mut().expect("spec").remove("hostname"); });
    no_cgroup_namespace: |c| c.without_namespace("cgroup");
    cgroup_namespace: |c| c.namespace(json!({"type": "cgroup"}));
    user_namespace_with_two_ranges: |c| c.in_user_namespace(200_000).edit(|spec| {
        let map = json!([{"containerID": 0, "hostID": 200_000, "size": 10},
                         {"containerID": 10, "hostID": 300_010, "size": 100}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    });
    user_namespace_and_writable_root: |c| c.in_user_namespace(100_000).edit(writable);
    user_namespace_and_cgroup_namespace:
        |c| c.in_user_namespace(100_000).namespace(json!({"type": "cgroup"}));
    joined_network_namespace: |c| {
        let path = format!("/proc/{}/ns/net", std::process::id());
        c.namespace(json!({"type": "network", "path": path}))
    };
    joined_ipc_and_uts: |c| {
        let own = |kind| format!("/proc/{}/ns/{kind}", std::process::id());
        c.namespace(json!({"type": "ipc", "path": own("ipc")}))
            .namespace(json!({"type": "uts", "path": own("uts")}))
            .edit(|spec| { spec.as_object_mut().expect("spec").remove("hostname"); })
    };
}

// The process.
variations! {
    a_user_with_groups: |c| c.edit(|spec| {
        spec["process"]["user"] = json!({"uid": 8, "gid": 8, "additionalGids": [20, 10, 8, 10]});
    });
    a_user_without_an_entry: process("user", json!({"uid": 4242, "gid": 4343}));
    a_user_with_capabilities: |c| c.edit(|spec| {
        spec["process"]["user"] = json!({"uid": 8, "gid": 8});
        let list = json!(["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]);
        spec["process"]["capabilities"] = json!({"bounding": list, "effective": list,
            "permitted": list, "inheritable": list, "ambient": ["CAP_NET_BIND_SERVICE"]});
    });
    umask: process("user", json!({"uid": 0, "gid": 0, "umask": 63}));
    all_capability_sets: |c| c.edit(|spec| {
        let list = json!(spec::FOURTEEN);
        spec["process"]["capabilities"] = json!({"bounding": list, "effective": ["CAP_CHOWN"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "ambient": ["CAP_CHOWN"]});
    });
    empty_capabilities: process("capabilities", json!({}));
    no_capabilities: |c| c.edit(|spec| {
        spec["process"].as_object_mut().expect("process").remove("capabilities");
    });
    no_new_privileges_off: process("noNewPrivileges", json!(false));
    rlimits: process("rlimits", json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608},
        {"type": "RLIMIT_NPROC", "soft": 300, "hard": 400},
        {"type": "RLIMIT_CPU", "soft": 50, "hard": 60},
    ]));
    no_rlimits: process("rlimits", json!([]));
    environment: process("env", json!(["A=1", "PATH=/bin", "B=", "C=x=y z"]));
    environment_with_home: process("env", json!(["PATH=/bin", "HOME=/elsewhere"]));
    environment_with_empty_home: process("env", json!(["PATH=/bin", "HOME="]));
    working_directory_is_made: |c| c.edit(writable)
        .edit(|spec| spec["process"]["cwd"] = "/new/directory".into());
    working_directory_through_a_link: |c| {
        std::os::unix::fs::symlink("/tmp", c.rootfs().join("link")).expect("a link");
        c.edit(|spec| spec["process"]["cwd"] = "/link".into())
    };
    oom_score: process("oomScoreAdj", json!(500));
    oom_score_zero: process("oomScoreAdj", json!(0));
}

// Names and sysctls.
variations! {
    host_and_domain_name: |c| c.edit(|spec| spec["hostname"] = "somewhere.example".into());
    sysctls: linux("sysctl", json!({
        "net.ipv4.ip_forward": "1",
        "net/ipv4/ip_unprivileged_port_start": "80",
        "kernel.shmmax": "123456",
        "kernel.msgmax": "4096",
        "fs.mqueue.msg_max": "20",
    }));
}

// The root file system.
variations! {
    writable_root: |c| c.edit(writable);
    no_masked_or_readonly_paths: |c| c.edit(|spec| {
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    masked_and_readonly_paths_of_the_root: |c| {
        for name in ["masked-file", "readonly-file"] {
            fs::write(c.rootfs().join(name), "text").expect("a file");
        }
        for name in ["masked-directory", "readonly-directory"] {
            fs::create_dir(c.rootfs().join(name)).expect("a directory");
            fs::write(c.rootfs().join(name).join("file"), "text").expect("a file");
        }
        c.edit(writable).edit(|spec| {
            spec["linux"]["maskedPaths"] =
                json!(["/masked-file", "/masked-directory", "/absent", "/proc/kcore"]);
            spec["linux"]["readonlyPaths"] =
                json!(["/readonly-file", "/readonly-directory", "/absent", "/proc/sys"]);
        })
    };
    propagation_shared: linux("rootfsPropagation", json!("shared"));
    propagation_slave: linux("rootfsPropagation", json!("slave"));
    propagation_private: linux("rootfsPropagation", json!("private"));
    propagation_rprivate: linux("rootfsPropagation", json!("rprivate"));
    tmpfs_with_options: mount(tmpfs("/mnt", &["nosuid", "nodev", "noexec", "size=64k", "mode=1700",
                                              "uid=5", "gid=6"]));
    tmpfs_takes_the_mode_of_its_target: |c| {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::Permissions::from_mode(0o1707);
        fs::set_permissions(c.rootfs().join("mnt"), mode).expect("chmod");
        mount(tmpfs("/mnt", &[]))(c)
    };
    tmpfs_read_only: mount(tmpfs("/mnt", &["ro"]));
    tmpfs_on_a_new_directory: mount(tmpfs("/new/place", &["mode=700"]));
    tmpfs_atimes: mount(tmpfs("/mnt", &["noatime", "nodiratime", "sync", "dirsync"]));
    tmpfs_that_copies_up: |c| {
        fs::write(c.rootfs().join("mnt/kept"), "text").expect("a file");
        mount(tmpfs("/mnt", &["tmpcopyup"]))(c)
    };
    tmpfs_behind_a_link: |c| {
        std::os::unix::fs::symlink("/mnt", c.rootfs().join("link")).expect("a link");
        mount(tmpfs("/link", &[]))(c)
    };
    tmpfs_behind_a_link_out_of_the_root: |c| {
        std::os::unix::fs::symlink("../../../../outside", c.rootfs().join("link")).expect("a link");
        mount(tmpfs("/link", &[]))(c)
    };
    two_mounts_on_one_target: |c| mount(tmpfs("/mnt", &["size=8k"]))(mount(tmpfs("/mnt", &[]))(c));
    bind_of_a_directory: binding("/mnt", &[]);
    bind_read_only: binding("/mnt", &["ro"]);
    bind_with_flags: binding("/mnt", &["ro", "nosuid", "nodev", "noexec", "noatime"]);
    bind_of_a_file: binding("/tmp/file", &["ro"]);
    bind_on_a_new_path: binding("/new/place/file", &[]);
    bind_on_a_new_directory: binding("/new/place", &["rprivate"]);
    bind_shared: binding("/mnt", &["rshared"]);
    bind_slave: binding("/mnt", &["rslave"]);
    bind_slave_and_shared: binding("/mnt", &["rslave", "rshared"]);
    bind_unbindable: binding("/mnt", &["unbindable"]);
    bind_recursively_read_only: binding("/mnt", &["rro"]);
    bind_of_the_hosts_proc_file: |c| c.mounting(
        bind(std::path::Path::new("/proc/uptime"), "/proc/uptime", &["ro"]));
    second_proc: mount(json!({"destination": "/mnt", "type": "proc", "source": "proc",
                              "options": ["nosuid", "ro"]}));
    writable_cgroups: |c| c.edit(|spec| {
        for mount in spec["mounts"].as_array_mut().expect("mounts") {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
            }
        }
    });
    writable_sysfs: |c| c.edit(|spec| {
        for mount in spec["mounts"].as_array_mut().expect("mounts") {
            if mount["destination"] == "/sys" {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
    });
    relative_destination: mount(tmpfs("mnt", &[]));
}

/// A bind whose source is itself a tree, with the host's pseudo-terminals below: what is there shows
/// how far an option reaches.
fn binding_tree(options: &'static [&'static str]) -> impl Fn(Container) -> Container {
    move |c| {
        let options = [&["rbind", "rprivate"], options].concat();
        c.mounting(json!({"destination": "/mnt", "type": "bind", "source": "/dev",
                          "options": options}))
    }
}

// Options of binds, one by one: what is set, what is cleared, what reaches below.
variations! {
    bind_nosuid: binding("/mnt", &["nosuid"]);
    bind_nodev_and_noexec: binding("/mnt", &["nodev", "noexec"]);
    bind_with_all_cleared: binding("/mnt", &["rw", "suid", "dev", "exec"]);
    bind_nodiratime: binding("/mnt", &["nodiratime"]);
    bind_noatime_and_diratime: binding("/mnt", &["noatime", "diratime"]);
    bind_strictatime: binding("/mnt", &["strictatime"]);
    bind_relatime: binding("/mnt", &["relatime"]);
    bind_ro_then_rw: binding("/mnt", &["ro", "rw"]);
    bind_with_defaults: binding("/mnt", &["defaults", "nosuid"]);
    bind_private: binding("/mnt", &["private"]);
    bind_rslave_and_read_only: binding("/mnt", &["rslave", "ro"]);
    bind_runbindable: binding("/mnt", &["runbindable"]);
    bind_recursively_nosuid_nodev_noexec: binding_tree(&["rnosuid", "rnodev", "rnoexec"]);
    bind_of_a_tree: binding_tree(&["ro"]);
    bind_recursively_read_only_of_a_tree: binding_tree(&["rro"]);
    bind_recursively_writable_and_read_only: binding_tree(&["rrw", "rro"]);
    bind_recursively_noatime: binding_tree(&["rnoatime", "rnodiratime"]);
    bind_recursively_strictatime: binding_tree(&["rstrictatime"]);
    bind_recursively_relatime: binding_tree(&["rrelatime", "rro"]);
    bind_of_a_relative_source: |c| {
        c.directory("source");
        c.mounting(bind(std::path::Path::new("source"), "/mnt", &["ro"])).edit(writable)
    };
    bind_of_type_none: |c| {
        let source = c.directory("source");
        mount(json!({"destination": "/mnt", "type": "none", "source": source,
                     "options": ["rbind", "ro"]}))(c)
    };
    bind_of_a_device: |c| c.mounting(bind(std::path::Path::new("/dev/full"), "/tmp/full", &[]))
        .edit(writable);
    bind_on_a_file_that_is_there: |c| {
        let file = c.file("passwd", "root:x:0:0::/bound:/bin/sh\n");
        c.mounting(bind(&file, "/etc/passwd", &["ro"]))
    };
    bind_on_a_link_to_a_file: |c| {
        std::os::unix::fs::symlink("/etc/group", c.rootfs().join("link")).expect("a link");
        let file = c.file("group", "root:x:0:\n");
        c.mounting(bind(&file, "/link", &["ro"]))
    };
}

// Other file systems.
variations! {
    ramfs: mount(json!({"destination": "/mnt", "type": "ramfs", "source": "ramfs",
                        "options": ["nosuid", "nodev"]}));
    second_devpts: mount(json!({"destination": "/mnt", "type": "devpts", "source": "devpts",
                                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0600",
                                            "mode=0600"]}));
    second_mqueue: mount(json!({"destination": "/mnt", "type": "mqueue", "source": "mqueue",
                                "options": ["nosuid", "noexec", "nodev"]}));
    second_sysfs: mount(json!({"destination": "/mnt", "type": "sysfs", "source": "sysfs",
                               "options": ["nosuid", "noexec", "nodev", "ro"]}));
    overlay_as_a_plain_mount: |c| {
        for name in ["lower", "upper", "work"] {
            fs::write(c.directory(name).join(name), "text").expect("a file");
        }
        fs::remove_file(c.path("work/work")).expect("an empty directory");
        let dir = |name: &str| format!("{name}dir={}", c.path(name).display());
        let options = [dir("lower"), dir("upper"), dir("work"), "nosuid".to_owned()];
        mount(json!({"destination": "/mnt", "type": "overlay", "source": "overlay",
                     "options": options}))(c)
    };
    tmpfs_with_inodes_and_a_share_of_memory: mount(tmpfs("/mnt", &["nr_inodes=100", "size=1%"]));
    tmpfs_strictatime_and_exec: mount(tmpfs("/mnt", &["strictatime", "exec", "suid", "dev"]));
    tmpfs_shared: mount(tmpfs("/mnt", &["shared"]));
    tmpfs_over_a_bind: |c| mount(tmpfs("/mnt", &["ro"]))(binding("/mnt", &[])(c));
}

// More of the process.
variations! {
    umask_of_nothing: process("user", json!({"uid": 0, "gid": 0, "umask": 0}));
    no_environment: process("env", json!(["PATH=/bin"]));
    limits_without_bounds: process("rlimits", json!([
        {"type": "RLIMIT_FSIZE", "soft": u64::MAX, "hard": u64::MAX},
        {"type": "RLIMIT_SIGPENDING", "soft": 10, "hard": 20},
        {"type": "RLIMIT_RTPRIO", "soft": 0, "hard": 0},
        {"type": "RLIMIT_LOCKS", "soft": 7, "hard": 9},
    ]));
    oom_score_of_its_own: process("oomScoreAdj", json!(1000));
    annotations_change_nothing: |c| c.edit(|spec| {
        spec["annotations"] = json!({"com.example.key": "value=with=signs", "other": ""});
    });
}

// Devices.
variations! {
    more_devices: linux("devices", json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 3, "gid": 4},
        {"path": "/dev/deep/in/block", "type": "b", "major": 7, "minor": 0},
        {"path": "/dev/queue", "type": "p", "fileMode": 0o622},
    ]));
    a_default_device_redefined: |c| {
        let c = c.edit(|spec| {
            let rules = spec["linux"]["resources"]["devices"].as_array_mut().expect("rules");
            // Who redefines a default device no longer gets the default rule for it.
            rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}));
        });
        linux("devices", json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o644, "uid": 8},
        ]))(c)
    };
    no_dev_mount: |c| c.edit(writable).edit(|spec| {
        spec["mounts"].as_array_mut().expect("mounts").retain(|m| {
            !m["destination"].as_str().expect("a path").starts_with("/dev")
        });
    });
    read_only_dev: |c| c.edit(|spec| {
        for mount in spec["mounts"].as_array_mut().expect("mounts") {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().expect("options").push("ro".into());
            }
        }
    });
    device_rules: |c| c.edit(|spec| {
        let list = json!(spec::FOURTEEN);
        spec["process"]["capabilities"] =
            json!({"bounding": list, "effective": list, "permitted": list});
        writable(spec);
        spec["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 254, "access": "m"},
            {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"},
        ]);
    });
    all_devices_allowed: |c| c.edit(|spec| {
        let list = json!(spec::FOURTEEN);
        spec["process"]["capabilities"] =
            json!({"bounding": list, "effective": list, "permitted": list});
        writable(spec);
        spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    });
}

// Limits and filters.
variations! {
    limits_of_memory_cpu_and_pids: |c| {
        let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
        if c.view.controls("memory") {
            resources["memory"] = json!({"limit": 67_108_864, "reservation": 33_554_432});
        }
        if c.view.controls("cpu") {
            resources["cpu"] = json!({"shares": 512, "quota": 50_000, "period": 100_000});
        }
        if c.view.controls("cpuset") {
            resources["cpu"]["cpus"] = "0".into();
            resources["cpu"]["mems"] = "0".into();
        }
        if c.view.controls("pids") {
            resources["pids"] = json!({"limit": 77});
        }
        linux("resources", resources)(c)
    };
    a_seccomp_filter: linux("seccomp", spec::seccomp::allow_list());
    a_seccomp_filter_without_no_new_privileges: |c| {
        let c = linux("seccomp", spec::seccomp::allow_list())(c);
        process("noNewPrivileges", json!(false))(c)
    };
    a_seccomp_deny_list: linux("seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mount", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
             "args": [{"index": 0, "value": 9999, "op": "SCMP_CMP_EQ"}]},
        ],
    }));
}

#[test]
fn no_new_keyring() {
    // Only the flag differs from the default.
    super::same_with(&["--no-new-keyring"], |c| c);
}

#[test]
fn no_pivot() {
    super::same_with(&["--no-pivot"], |c| c);
}
