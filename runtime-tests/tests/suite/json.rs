//! config.json as encoders and people write it: names in another case, nulls, zeros that are given and fields that
//! are left out. Engines test their configs with a decoder of Go's, which reads all of it.

use runtime_tests::{Container, on_the_host};
use serde_json::{Value, json};

fn read_as_go_does(script: &str, expected: &str, change: impl Fn(&mut Value)) {
    on_the_host(|view| {
        let c = Container::new(view).script(script).edit(&change);
        c.run().ok().prints(expected);
    });
}

#[track_caller]
fn is_refused(text: &str, change: impl Fn(&mut Value)) {
    on_the_host(|view| {
        let c = Container::new(view).edit(&change);
        let out = c.create_call(&[]).output().exits(1);
        if c.runtime.only_aril("its words") {
            out.says(text);
        }
        c.leaves_nothing();
    });
}

fn rename(object: &mut Value, from: &str, to: &str) {
    let fields = object.as_object_mut().expect("an object");
    let value = fields.remove(from).expect("the field");
    fields.insert(to.to_owned(), value);
}

#[test]
fn names_in_another_case() {
    read_as_go_does("touch /x 2>&1; umask", "Read-only file system\n0027\n", |spec| {
        spec["process"]["user"]["Umask"] = 0o27.into();
        spec["root"] = json!({"Path": spec["root"]["path"], "readOnly": true});
        rename(spec, "process", "PROCESS");
    });
}

#[test]
fn two_names_of_one_object() {
    read_as_go_does("umask; id -u; cat /proc/self/oom_score_adj", "0027\n3\n77\n", |spec| {
        spec["process"]["user"]["uid"] = 3.into();
        spec["Process"] = json!({"User": {"umask": 0o27}, "OOMScoreAdj": 77});
    });
}

#[test]
fn nulls_in_lists_and_numbers() {
    read_as_go_does("id -u; id -G; ulimit -c", "0\n0\n0\n", |spec| {
        spec["process"]["user"] = json!({"uid": null, "gid": null, "additionalGids": [null]});
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": null}]);
        spec["process"]["capabilities"]["bounding"] = json!([null]);
        spec["linux"]["maskedPaths"] = json!([null, ""]);
        spec["linux"]["readonlyPaths"] = json!([null]);
        spec["hooks"] =
            json!({"prestart": [{"path": "/bin/true", "args": ["true", null], "env": [null]}]});
    });
}

#[test]
fn empty_fields_have_no_effect() {
    read_as_go_does("echo started", "started\n", |spec| {
        spec["process"]["execCPUAffinity"] = json!({"initial": "", "final": ""});
        spec["linux"]["mountLabel"] = "".into();
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 0,
            "syscalls": [{"action": "SCMP_ACT_ERRNO"},
                {"names": ["sync"], "action": "SCMP_ACT_KILL", "errnoRet": 0}]});
    });
}

#[test]
fn the_mode_of_a_device_has_all_its_bits() {
    read_as_go_does("stat -c %a /dev/n", "1640\n", |spec| {
        spec["linux"]["devices"] =
            json!([{"path": "/dev/n", "type": "c", "major": 1, "minor": 3, "fileMode": 0o1640}]);
    });
}

#[test]
fn an_array_is_no_object() {
    for place in ["/process/user", "/process/capabilities", "/linux/resources", "/linux"] {
        is_refused("invalid type: sequence, expected struct", |spec| {
            *spec.pointer_mut(place).expect(place) = json!([]);
        });
    }
    is_refused("invalid type: sequence, expected struct", |spec| spec["hooks"] = json!([]));
    is_refused("invalid type: sequence, expected struct", |spec| {
        spec["linux"]["seccomp"] = json!([]);
    });
}

#[test]
fn numbers_out_of_range() {
    is_refused("timeout 9223372036854775807 is greater", |spec| {
        spec["hooks"] = json!({"poststop": [{"path": "/bin/true", "timeout": i64::MAX}]});
    });
    is_refused("invalid blkio weight: 1001", |spec| {
        spec["linux"]["resources"]["blockIO"] = json!({"weight": 1001});
    });
    is_refused("invalid ioPriority.Class", |spec| {
        spec["process"]["ioPriority"] = json!({"priority": 3});
    });
}
