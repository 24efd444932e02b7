use serde_json::{Value, json};

use super::*;
use crate::spec::{Extensions, annotation};

const CONFINED: Facts =
    Facts { rootless: false, apparmor: true, selinux: false, landlock: Some(6) };

/// Docker's default config, as far as it matters here.
fn usual() -> Value {
    let capabilities: Vec<_> =
        crate::spec::defaults::CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    let kinds = ["mount", "pid", "network", "ipc", "uts", "cgroup"];
    let namespaces: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "apparmorProfile": "docker-default",
            "capabilities": {"bounding": capabilities, "effective": capabilities}},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/sys", "type": "sysfs", "options": ["ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]},
            {"destination": "/etc/hosts", "source": "/var/lib/x/hosts", "options": ["rbind"]}],
        "linux": {
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]},
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["read", "write", "ptrace"], "action": "SCMP_ACT_ALLOW"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi",
                "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"]}
    })
}

fn of(spec: &Value) -> Explanation {
    granted(spec, &OperatorGrant::default())
}

fn granted(spec: &Value, grant: &OperatorGrant) -> Explanation {
    let spec = serde_json::from_value(spec.clone()).unwrap();
    explain(&spec, grant, &CONFINED).unwrap()
}

/// Checks that a change to the default config adds one finding.
#[track_caller]
fn changed(change: impl FnOnce(&mut Value), grade: Grade, said: &str) {
    let mut spec = usual();
    change(&mut spec);
    let explanation = of(&spec);
    let told = explanation.findings.iter().any(|f| f.grade == grade && f.text.contains(said));
    assert!(told, "{explanation:#?}");
    assert_eq!(explanation.grade, grade.max(Grade::Usual), "{explanation:#?}");
}

fn push(spec: &mut Value, list: &str, value: Value) {
    spec.pointer_mut(list).unwrap().as_array_mut().unwrap().push(value);
}

#[test]
fn the_default_config_is_usual() {
    let explanation = of(&usual());
    assert_eq!(explanation.grade, Grade::Usual, "{explanation:#?}");
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["grade"], "usual");
    assert_eq!(json["findings"][0]["topic"], "user");
}

#[test]
fn ways_to_root_on_the_host_are_open() {
    let capability = |name: &'static str| {
        move |spec: &mut Value| {
            push(spec, "/process/capabilities/bounding", name.into());
        }
    };
    changed(capability("CAP_SYS_ADMIN"), Grade::Open, "CAP_SYS_ADMIN: may mount");
    changed(capability("CAP_SYS_MODULE"), Grade::Open, "load modules");
    changed(capability("CAP_NET_ADMIN"), Grade::Loose, "firewalls of its network");
    changed(
        |spec| push(spec, "/linux/resources/devices", json!({"allow": true, "access": "rwm"})),
        Grade::Open,
        "every device",
    );
    let disk = json!({"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"});
    changed(|spec| push(spec, "/linux/resources/devices", disk), Grade::Open, "block device 8:0");
    let bind = |source: &str, how: &str| json!({"destination": "/mnt", "source": source, "type": "bind", "options": ["rbind", how]});
    for (source, how, grade, said) in [
        ("/", "rw", Grade::Open, "/mnt: host path / is writable"),
        ("/etc/cron.d", "rw", Grade::Open, "is writable"),
        ("/", "ro", Grade::Loose, "is readable"),
        ("/srv/data", "rw", Grade::Loose, "host path /srv/data is writable"),
        ("/srv/data", "ro", Grade::Usual, "host path /srv/data is readable"),
        ("/run/docker.sock", "ro", Grade::Open, "gains root privileges"),
        ("/srv/data", "rshared", Grade::Loose, "mounts there propagate to the host"),
    ] {
        changed(|spec| push(spec, "/mounts", bind(source, how)), grade, said);
    }
    let without =
        |path: &'static str| move |spec: &mut Value| *spec.pointer_mut(path).unwrap() = json!([]);
    changed(without("/linux/readonlyPaths"), Grade::Open, "writable: /proc/bus");
    changed(without("/linux/maskedPaths"), Grade::Loose, "not masked: /proc/kcore");
    changed(|spec| spec["mounts"][1]["options"] = json!([]), Grade::Open, "kernel's settings");
    changed(|spec| spec["linux"]["rootfsPropagation"] = "shared".into(), Grade::Open, "its mounts");
}

#[test]
fn additions_to_the_default_config_are_loose() {
    changed(|spec| spec["linux"]["seccomp"] = Value::Null, Grade::Loose, "no profile");
    changed(
        |spec| push(spec, "/linux/seccomp/syscalls/0/names", "bpf".into()),
        Grade::Loose,
        "escapes have used: bpf, ptrace",
    );
    changed(|spec| spec["process"]["apparmorProfile"] = Value::Null, Grade::Loose, "AppArmor");
    changed(|spec| spec["process"]["oomScoreAdj"] = json!(-5), Grade::Loose, "kills it later");
    for (index, said) in [(1, "pid: shared"), (2, "abstract sockets"), (3, "shared memory")] {
        let remove = |spec: &mut Value| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().remove(index);
        };
        changed(remove, Grade::Loose, said);
    }
    let control = |spec: &mut Value| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().remove(2);
        push(spec, "/process/capabilities/bounding", "CAP_NET_ADMIN".into());
    };
    changed(control, Grade::Open, "network: shared");
    let hosts = |spec: &mut Value| spec["linux"]["namespaces"][2]["path"] = "/proc/1/ns/net".into();
    changed(hosts, Grade::Open, "joins the host's namespace /proc/1/ns/net");
}

#[test]
fn restrictions_of_the_default_config_are_tight() {
    changed(|spec| spec["process"]["noNewPrivileges"] = true.into(), Grade::Tight, "no program");
    changed(|spec| spec["process"]["user"]["uid"] = 7.into(), Grade::Tight, "runs as user 7");
    changed(
        |spec| spec["root"]["readonly"] = true.into(),
        Grade::Tight,
        "root file system is read-only",
    );
    let limits = |spec: &mut Value| spec["linux"]["resources"]["memory"] = json!({"limit": 4096});
    changed(limits, Grade::Tight, "memory: 4096 bytes");
    let rules = || (annotation::LANDLOCK, r#"{"tcp":{"bind":[]}}"#);
    let confined = granted(&usual(), &OperatorGrant::of(Extensions::of(&[rules()])));
    assert!(confined.findings.iter().any(|f| f.text == "restricts tcp bind"), "{confined:#?}");
}

/// An annotation without a grant changes nothing.
#[test]
fn annotations_count_only_with_a_grant() {
    let network = |value| granted(&usual(), &OperatorGrant::of(Extensions::of(&[value])));
    assert_eq!(network((annotation::NETWORK, "host")).grade, Grade::Loose);
    assert_eq!(network((annotation::NETWORK, "none")), of(&usual()));
    let mut annotated = usual();
    annotated["annotations"] = json!({"io.aril.network": "host", "io.aril.userns": "auto"});
    assert_eq!(of(&annotated), of(&usual()));
}

/// IDs without privileges on the host: a finding that only root could exploit is not `Open`.
#[test]
fn a_user_namespace_lowers_open_findings() {
    let mapped = |host: u32| {
        let mut spec = usual();
        push(&mut spec, "/linux/namespaces", json!({"type": "user"}));
        spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": host, "size": 65536}]);
        push(&mut spec, "/process/capabilities/bounding", "CAP_SYS_ADMIN".into());
        of(&spec)
    };
    let explanation = mapped(100_000);
    assert_eq!(explanation.grade, Grade::Loose);
    assert!(explanation.findings[0].text.ends_with("uid 100000 on the host"));
    assert_eq!(mapped(0).grade, Grade::Open);
    let rootless = Facts { rootless: true, ..CONFINED };
    let spec = serde_json::from_value(usual()).unwrap();
    assert_eq!(
        explain(&spec, &OperatorGrant::default(), &rootless).unwrap().findings[0].grade,
        Grade::Tight
    );
}
