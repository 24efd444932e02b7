use super::*;
use crate::rootfs::child::tests::{MASKED, READ_ONLY, default_mounts, strings};

pub(super) fn request<'a>(mounts: &'a [Mount]) -> RootfsRequest<'a> {
    RootfsRequest {
        overlay: overlay::plan::tests::request(None, None),
        mounts,
        cgroup: CgroupView::Unified(Path::new("/sys/fs/cgroup/c1")),
        kcore: true,
        ..RootfsRequest::of_running(Path::new("/bundle"), Path::new("/bundle/rootfs"))
    }
}

pub(super) fn mounts(json: &str) -> Vec<Mount> {
    serde_json::from_str(json).unwrap()
}

fn devices(json: &str) -> Vec<LinuxDevice> {
    serde_json::from_str(json).unwrap()
}

pub(super) fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// Returns the error of a config with the mount `json`.
fn refusal(json: &str) -> String {
    let mounts = mounts(&format!("[{json}]"));
    plan(&request(&mounts)).unwrap_err().to_string()
}

fn first_mount(plan: &Plan) -> &crate::rootfs::NewMount {
    let mount = plan.enter.iter().find_map(|step| match step {
        Step::Mount(mount) => Some(mount),
        _ => None,
    });
    mount.unwrap()
}

#[test]
fn runcs_default_config_as_text() {
    let (mounts, masked, readonly) = (default_mounts(), strings(&MASKED), strings(&READ_ONLY));
    let mut request = request(&mounts);
    (request.masked_paths, request.readonly_paths, request.readonly) = (&masked, &readonly, true);
    let plan = plan(&request).unwrap();
    assert_eq!(
        lines(&plan.enter),
        "make / rslave
bind /bundle/rootfs on itself
mount proc on /proc
mount tmpfs on /dev (nosuid,strictatime,mode=755,size=65536k)
mount devpts on /dev/pts (nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5)
mount tmpfs on /dev/shm (nosuid,noexec,nodev,mode=1777,size=65536k)
mount mqueue on /dev/mqueue (nosuid,noexec,nodev)
mount sysfs on /sys (nosuid,noexec,nodev,ro)
mount cgroup2 on /sys/fs/cgroup (nosuid,noexec,nodev,relatime,ro)
mknod /dev/null c 1:3 0666
mknod /dev/random c 1:8 0666
mknod /dev/full c 1:7 0666
mknod /dev/tty c 5:0 0666
mknod /dev/zero c 1:5 0666
mknod /dev/urandom c 1:9 0666
symlink /dev/ptmx -> pts/ptmx
symlink /dev/fd -> /proc/self/fd
symlink /dev/stdin -> /proc/self/fd/0
symlink /dev/stdout -> /proc/self/fd/1
symlink /dev/stderr -> /proc/self/fd/2
symlink /dev/core -> /proc/kcore
"
    );
    assert_eq!(lines(&plan.pivot), "pivot_root\nreopen /dev/null\n");
    assert_eq!(
        lines(&plan.restrict),
        "read-only /proc/bus
read-only /proc/fs
read-only /proc/irq
read-only /proc/sys
read-only /proc/sysrq-trigger
mask /proc/acpi
mask /proc/asound
mask /proc/kcore
mask /proc/keys
mask /proc/latency_stats
mask /proc/timer_list
mask /proc/timer_stats
mask /proc/sched_debug
mask /sys/firmware
mask /proc/scsi
remount / read-only
"
    );
}

#[test]
fn refuses_a_false_proc() {
    assert_eq!(
        refusal(r#"{"destination":"/x/..//proc/","type":"tmpfs","source":"tmpfs"}"#),
        "mounts[0] /x/..//proc/: \"/proc\" cannot be mounted because it is not of type proc"
    );
    assert_eq!(
        refusal(
            r#"{"destination":"/proc/self/attr","type":"bind","options":["bind"],"source":"/x"}"#
        ),
        "mounts[0] /proc/self/attr: \"/proc/self/attr\" cannot be mounted because it is inside /proc"
    );
    let allowed = mounts(
        r#"[{"destination":"/proc","type":"bind","source":"/proc","options":["rbind"]},
            {"destination":"/proc/meminfo","type":"bind","options":["bind"],"source":"/lxcfs/meminfo"},
            {"destination":"/process","type":"tmpfs","source":"tmpfs"}]"#,
    );
    let plan = plan(&request(&allowed)).unwrap();
    assert!(matches!(&plan.enter[3], Step::Bind(bind) if bind.proc_only && bind.target.in_proc));
    assert!(matches!(&plan.enter[4], Step::Bind(bind) if !bind.proc_only && bind.target.in_proc));
}

#[test]
fn refuses_what_a_mount_cannot_be() {
    for (json, text) in [
        (
            r#"{"destination":"/","type":"tmpfs","source":"tmpfs"}"#,
            "mountpoint \"/bundle/rootfs\" is on the top of rootfs \"/bundle/rootfs\"",
        ),
        (
            r#"{"destination":"/a","type":"bind","source":"/x","options":["bind","ro","mode=755"]}"#,
            "bind mounts cannot have any filesystem-specific options applied",
        ),
        (r#"{"destination":"/a","type":"bind","options":["bind"]}"#, "a bind mount needs a source"),
        (
            r#"{"destination":"/a","type":"bind","source":"/x","options":["ro"]}"#,
            "a mount of type bind needs the option bind or rbind: no such device",
        ),
        (r#"{"destination":"/a","source":"/x"}"#, "a mount that is not a bind needs a type"),
        (
            r#"{"destination":"/a","type":"ext4","source":"/x","options":["tmpcopyup"]}"#,
            "tmpcopyup is only supported on tmpfs mounts",
        ),
        (
            r#"{"destination":"/a","type":"tmpfs","source":"x","options":["idmap"]}"#,
            "id-mapped mounts must have both uid and gid mappings specified",
        ),
        (
            r#"{"destination":"/a\u0000b","type":"tmpfs","source":"x"}"#,
            "mount destination \"/a\\0b\" cannot contain null byte (\\x00)",
        ),
        (
            r#"{"destination":"/a","type":"bind","options":["bind"],"source":"/x\u0000"}"#,
            "mount source \"/x\\0\" cannot contain null byte (\\x00)",
        ),
    ] {
        let error = refusal(json);
        assert!(error.starts_with("mounts[0] /") && error.ends_with(text), "{error}");
    }
}

#[test]
fn id_maps_are_for_binds_of_the_privileged() {
    let map = r#""uidMappings":[{"containerID":0,"hostID":1000,"size":1}],
                 "gidMappings":[{"containerID":0,"hostID":1000,"size":1}]"#;
    let error = refusal(&format!(r#"{{"destination":"/a","type":"tmpfs",{map}}}"#));
    assert!(error.ends_with("id-mapped mounts are only supported for bind-mounts"), "{error}");
    let bind = mounts(&format!(
        r#"[{{"destination":"/a","type":"bind","source":"/x","options":["bind","ridmap"],{map}}}]"#
    ));
    let mut request = request(&bind);
    let planned = plan(&request).unwrap();
    let Step::Bind(step) = &planned.enter[3] else { panic!("{:?}", planned.enter[3]) };
    let map = step.source.id_map.as_ref().unwrap();
    assert_eq!(map.uids, [[0, 1000, 1]]);
    assert_eq!(map.extent, Extent::Tree);
    request.rootless = true;
    let error = plan(&request).unwrap_err().to_string();
    assert!(error.ends_with("id-mapped mounts are not supported for rootless containers"));
}

#[test]
fn id_maps_in_words() {
    let options = |words: &str| {
        mounts(&format!(
            r#"[{{"destination":"/a","type":"bind","source":"/x","options":["bind","{words}"]}}]"#
        ))
    };
    let container: Vec<LinuxIdMapping> =
        serde_json::from_str(r#"[{"containerID":0,"hostID":100000,"size":10}]"#).unwrap();
    let planned = |words: &str| {
        let mounts = options(words);
        let (uid_mappings, gid_mappings) = (&container[..], &container[..]);
        plan(&RootfsRequest { uid_mappings, gid_mappings, ..request(&mounts) }).map(|planned| {
            let Step::Bind(step) = &planned.enter[3] else { panic!("{:?}", planned.enter[3]) };
            step.source.id_map.clone().unwrap()
        })
    };
    let map = planned("idmap=uids=0-1000-1#1-2000-5;gids=@3-4-2").unwrap();
    assert_eq!((map.uids, map.gids), (vec![[0, 1000, 1], [1, 2000, 5]], vec![[3, 100_004, 2]]));
    assert_eq!(planned("ridmap").unwrap().gids, [[0, 100_000, 10]]);
    for (words, text) in [
        ("idmap=uids=0-1-1", "must have both uid and gid mappings specified"),
        (
            "idmap=uids=0-1;gids=0-1-1",
            "invalid range \"0-1\": expected DISK-HOST-COUNT, three numbers",
        ),
        ("idmap=uids=@0-9-2;gids=0-1-1", "contains the 2 IDs from 9"),
        ("idmap=x=0-1-1", "\"x\" is neither uids nor gids"),
    ] {
        let error = planned(words).unwrap_err().to_string();
        assert!(
            error.starts_with("mounts[0] /a: mount option idmap=") && error.contains(text),
            "{error}"
        );
    }
}

#[test]
fn without_a_mount_namespace() {
    let (none, masked) = (Vec::new(), strings(&["/proc/kcore"]));
    let mut request = request(&none);
    request.mount_namespace = false;
    let planned = plan(&request).unwrap();
    assert_eq!(lines(&planned.enter[..1]), "open /bundle/rootfs\n");
    assert_eq!(lines(&planned.pivot), "chroot\n");
    request.masked_paths = &masked;
    assert_eq!(
        plan(&request).unwrap_err().to_string(),
        "unable to restrict sys entries without a private MNT namespace"
    );
    request.masked_paths = &[];
    let mounts = default_mounts();
    const REFUSED: &str = "unable to mount without a private MNT namespace: ";
    let private = CallersNamespace { of_the_host: false, shared: false };
    for (readonly, mounts) in [(true, &none), (false, &mounts)] {
        (request.readonly, request.mounts) = (readonly, mounts);
        for (callers, why) in [
            (None, "the caller is in the host's mount"),
            (Some(CallersNamespace { of_the_host: true, ..private }), "the caller is in the host"),
            (Some(CallersNamespace { shared: true, ..private }), "the mount that holds the rootfs"),
        ] {
            request.callers = callers;
            let error = plan(&request).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{REFUSED}{why}")), "{error}");
        }
        request.callers = Some(private);
        let planned = plan(&request).unwrap();
        let attach = "bind /bundle/rootfs on itself, in the caller's mount namespace\n";
        assert_eq!(lines(&planned.enter[..1]), attach);
        assert_eq!(lines(&planned.pivot), "chroot\n");
        request.own_user_namespace = true;
        assert!(plan(&request).unwrap_err().to_string().contains("container's user namespace"));
        request.own_user_namespace = false;
    }
    (request.callers, request.host_mounts) = (None, true);
    request.propagation = Some("rshared");
    assert_eq!(lines(&plan(&request).unwrap().pivot), "chroot\nmake / rshared\n");
}

#[test]
fn propagation_of_the_root() {
    let mut request = request(&[]);
    request.propagation = Some("rshared");
    let shared = plan(&request).unwrap();
    assert_eq!(
        lines(&shared.enter[..3]),
        "make / rshared\nmake the mount of /bundle/rootfs private\nbind /bundle/rootfs on itself\n"
    );
    assert_eq!(lines(&shared.pivot), "pivot_root\nmake / rshared\nreopen /dev/null\n");
    request.propagation = Some("unbindable");
    let unbindable = plan(&request).unwrap();
    assert_eq!(lines(&unbindable.enter[..1]), "make / rslave\n");
    assert_eq!(lines(&unbindable.pivot[1..2]), "make / unbindable\n");
    request.propagation = Some("ro");
    let error = plan(&request).unwrap_err().to_string();
    assert_eq!(error, "rootfsPropagation=ro is not supported");
    (request.propagation, request.no_pivot) = (Some("rprivate"), true);
    let error = plan(&request).unwrap_err().to_string();
    assert_eq!(error, "rootfsPropagation of [r]private is not safe without pivot_root");
    request.propagation = Some("");
    assert_eq!(lines(&plan(&request).unwrap().pivot[..1]), "move /bundle/rootfs to /\n");
}

#[test]
fn a_bound_dev_is_left_alone() {
    let bound =
        mounts(r#"[{"destination":"/dev/","type":"none","source":"/dev","options":["rbind"]}]"#);
    let plan = plan(&request(&bound)).unwrap();
    assert_eq!(plan.enter.len(), 4);
    assert_eq!(lines(&plan.pivot), "pivot_root\n");
}

#[test]
fn devices_of_the_config() {
    let listed = devices(
        r#"[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384,"uid":7,"gid":8},
            {"path":"/dev/ptmx","type":"c","major":5,"minor":2},
            {"path":"/dev/disk","type":"b","major":8,"minor":0,"fileMode":25008},
            {"path":"/dev/fifo","type":"p"}]"#,
    );
    let mut request = request(&[]);
    request.devices = &listed;
    let text = lines(&plan(&request).unwrap().enter);
    assert!(text.contains("mknod /dev/null c 1:3 0600\nmknod /dev/disk b 8:0 0660\n"), "{text}");
    assert!(text.contains("mknod /dev/fifo p 0:0 0666\nmknod /dev/random"), "{text}");
    assert!(text.contains("symlink /dev/ptmx -> pts/ptmx\n") && !text.contains("c 5:2"), "{text}");
    assert_eq!(text.matches("/dev/null").count(), 1);
    (request.user_namespace, request.overlay.privileged) = (true, false);
    let text = lines(&plan(&request).unwrap().enter);
    assert!(text.contains("bind /dev/null on /dev/null\n") && text.contains("mknod /dev/fifo p"));
    // With privileges the parent creates the nodes as the config requires.
    let map: Vec<LinuxIdMapping> =
        serde_json::from_str(r#"[{"containerID":7,"hostID":1007,"size":1}]"#).unwrap();
    request.uid_mappings = &map;
    request.gid_mappings = &map;
    request.overlay.privileged = true;
    let text = lines(&plan(&request).unwrap().enter);
    assert!(
        text.contains("mknod /dev/null c 1:3 0600 1007:0 on the host, and bind-mount it\n"),
        "{text}"
    );
    assert!(text.contains("mknod /dev/fifo p 0:0 0666\n"), "{text}");
    assert!(text.contains("bind /dev/zero on /dev/zero\n"), "{text}");
    let wrong = devices(r#"[{"path":"/dev/x","type":"a","major":1,"minor":2}]"#);
    request.devices = &wrong;
    let error = plan(&request).unwrap_err().to_string();
    assert_eq!(error, "device /dev/x: a is not a type of device node");
    let wrong = devices(r#"[{"path":"/dev/x","type":"c","major":-1,"minor":2}]"#);
    request.devices = &wrong;
    let error = plan(&request).unwrap_err().to_string();
    assert_eq!(error, "device /dev/x: invalid major number -1");
}

#[test]
fn read_only_comes_last_where_something_is_put_in_first() {
    let all = mounts(
        r#"[{"destination":"/tmp","type":"tmpfs","source":"tmpfs","options":["ro","tmpcopyup"]},
            {"destination":"/data","type":"ext4","source":"/dev/vdb","options":["ro","sync"]}]"#,
    );
    let plan = plan(&request(&all)).unwrap();
    assert_eq!(lines(&plan.restrict), "remount /tmp read-only\n");
    let tmp = first_mount(&plan);
    assert_eq!((tmp.attributes, tmp.inherit_mode, tmp.copy_up), (0, true, true));
    let Step::Mount(ext4) = &plan.enter[3] else { panic!("{:?}", plan.enter[3]) };
    let keys: Vec<_> = ext4.data.iter().map(|d| d.key.to_str().unwrap()).collect();
    assert_eq!((keys.as_slice(), ext4.attributes), (["sync", "ro"].as_slice(), 1));
}

#[test]
fn the_file_systems_own_options() {
    let long = "x".repeat(300);
    let all = mounts(&format!(
        r#"[{{"destination":"/a","type":"overlay","source":"overlay",
             "options":["lowerdir=/a\\,b:/c,upperdir=/u","userxattr","context=\"a:s0:c1,c2\"",
                        "nosuid"]}},
            {{"destination":"/b","type":"overlay","source":"overlay",
             "options":["lowerdir={long}","ro"]}}]"#
    ));
    let plan = plan(&request(&all)).unwrap();
    let data: Vec<_> = first_mount(&plan)
        .data
        .iter()
        .map(|d| (d.key.to_str().unwrap(), d.value.as_ref().map_or("", |v| v.to_str().unwrap())))
        .collect();
    assert_eq!(
        data,
        [
            ("lowerdir", "/a\\,b:/c"),
            ("upperdir", "/u"),
            ("userxattr", ""),
            ("context", "a:s0:c1,c2")
        ]
    );
    let Step::Mount(b) = &plan.enter[3] else { panic!("{:?}", plan.enter[3]) };
    let by_path = b.by_path.as_ref().unwrap();
    assert_eq!(by_path.flags, libc::MS_RDONLY);
    assert_eq!(by_path.data.to_str().unwrap(), format!("lowerdir={long}"));
}

#[test]
fn labels_go_where_they_are_taken() {
    let defaults = default_mounts();
    let mut request = request(&defaults);
    request.mount_label = Some("system_u:object_r:container_file_t:s0:c1,c2");
    for step in plan(&request).unwrap().enter {
        let Step::Mount(mount) = step else { continue };
        let kind = mount.kind.to_str().unwrap();
        let context = mount.data.iter().any(|d| d.key.as_c_str() == c"context");
        assert_eq!(context, kind == "tmpfs" || kind == "devpts", "{kind}");
        assert_eq!(mount.label.is_some(), kind == "mqueue", "{kind}");
    }
}

#[test]
fn paths_are_cleaned_and_doubles_dropped() {
    let readonly = strings(&["/proc/sys", "/proc/sys", "proc/../sys//fs/./"]);
    let mut request = request(&[]);
    request.readonly_paths = &readonly;
    let text = lines(&plan(&request).unwrap().restrict);
    assert_eq!(text, "read-only /proc/sys\nread-only /sys/fs\n");
    let relative = mounts(r#"[{"destination":"tmp","type":"tmpfs","source":"tmpfs"}]"#);
    request.mounts = &relative;
    let plan = plan(&request).unwrap();
    assert_eq!(plan.warnings, ["mount destination tmp is not absolute: using \"/tmp\""]);
}

#[test]
fn relative_sources_are_the_bundles() {
    let all = mounts(r#"[{"destination":"/a","type":"bind","options":["bind"],"source":"data"}]"#);
    let text = lines(&plan(&request(&all)).unwrap().enter[3..4]);
    assert_eq!(text, "bind /bundle/data on /a (bind)\n");
}

#[test]
fn a_sysfs_of_the_hosts_network_is_bound() {
    let text = |options: &str, foreign: bool| {
        let sysfs = format!(
            r#"[{{"destination":"/sys","type":"sysfs","source":"sysfs","options":[{options}]}}]"#
        );
        let mounts = mounts(&sysfs);
        let mut request = request(&mounts);
        (request.user_namespace, request.foreign_network) = (true, foreign);
        lines(&plan(&request).unwrap().enter)
    };
    let bound = "bind /sys on /sys (nosuid,ro,rbind,rro)\n";
    assert!(text(r#""nosuid","ro""#, true).contains(bound));
    assert!(!text(r#""nosuid","ro""#, false).contains(bound));
    assert!(text(r#""nosuid""#, true).contains("mount sysfs on /sys (nosuid)"));
}

#[test]
fn the_mount_of_the_rootfs_is_private_unless_it_is_to_be_a_slave() {
    let isolated = |options: &str, propagation: Option<&str>| {
        let bind = format!(
            r#"[{{"destination":"/a","type":"bind","source":"/x","options":[{options}]}}]"#
        );
        let all = mounts(&bind);
        let mut request = request(&all);
        request.propagation = propagation;
        let steps = plan(&request).unwrap().enter;
        let isolated = steps.iter().find_map(|step| match step {
            Step::Isolate { slave, .. } => Some(*slave),
            _ => None,
        });
        let cloned = steps.iter().find_map(|step| match step {
            Step::CloneRoot { slave, .. } => Some(*slave),
            _ => None,
        });
        (isolated, cloned.unwrap())
    };
    assert_eq!(isolated(r#""rbind""#, None), (Some(false), false));
    assert_eq!(isolated(r#""rbind","rprivate""#, None), (None, false));
    assert_eq!(isolated(r#""rbind""#, Some("rslave")), (None, true));
    assert_eq!(isolated(r#""rbind""#, Some("slave")), (Some(true), true));
    assert_eq!(isolated(r#""rbind""#, Some("rprivate")), (None, false));
    assert_eq!(isolated(r#""rbind","rprivate""#, Some("shared")), (Some(false), false));
    assert_eq!(isolated(r#""rbind""#, Some("unbindable")), (Some(false), false));
}

#[test]
fn hierarchies_of_version_one() {
    let defaults = default_mounts();
    let views = [HierarchyView {
        own: "/sys/fs/cgroup/cpu,cpuacct/c1".into(),
        name: "cpu,cpuacct".into(),
        aliases: vec!["cpu".into(), "cpuacct".into()],
    }];
    let mut request = request(&defaults);
    request.cgroup = CgroupView::Legacy(&views);
    let plan = plan(&request).unwrap();
    let Step::CgroupLegacy(mount) = &plan.enter[8] else { panic!("{:?}", plan.enter[8]) };
    assert_eq!(mount.hierarchies[0].source.as_c_str(), c"/sys/fs/cgroup/cpu,cpuacct/c1");
    assert_eq!(mount.hierarchies[0].aliases, [c"cpu", c"cpuacct"].map(CString::from));
    let name = lines(&plan.enter[8..9]);
    assert_eq!(name, "mount cgroup on /sys/fs/cgroup (nosuid,noexec,nodev,relatime,ro)\n");
}
