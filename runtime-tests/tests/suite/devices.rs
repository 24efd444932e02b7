//! `linux.devices`: with and without a user namespace, in which the kernel lets nobody make nodes.

use runtime_tests::{Container, on_the_host};
use serde_json::json;

const FIRST: u32 = 100_000;

#[test]
fn nodes_have_their_mode_and_owner() {
    on_the_host(|view| {
        for user in [false, true] {
            let c = Container::new(view);
            if !c.runtime.only_aril("runc binds the host's nodes in a user namespace") {
                return;
            }
            let c = if user { c.in_user_namespace(FIRST) } else { c };
            let c = c.edit(|spec| {
                spec["linux"]["resources"]["devices"] = json!([
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"}
                ]);
                spec["linux"]["devices"] = json!([
                    {"path": "/dev/of-ten", "type": "b", "major": 1, "minor": 5, "uid": 10, "gid": 11, "fileMode": 0o157},
                    {"path": "/dev/sub/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640},
                    {"path": "/dev/unmapped", "type": "c", "major": 1, "minor": 3, "uid": 70_000, "gid": 0},
                    {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o622, "uid": 3},
                    {"path": "/dev/fifo", "type": "p", "uid": 12}
                ]);
            });
            let c = c.script(
                "cd /dev; stat -c '%n %a %u:%g %t:%T %F' of-ten sub/zero unmapped null fifo
                 head -c 3 sub/zero | wc -c",
            );
            let unmapped = if user { 65534 } else { 70_000 };
            c.run().ok().prints(&format!(
                "of-ten 157 10:11 1:5 block special file\n\
                 sub/zero 640 0:0 1:5 character special file\n\
                 unmapped 666 {unmapped}:0 1:3 character special file\n\
                 null 622 3:0 1:3 character special file\n\
                 fifo 666 12:0 0:0 fifo\n3\n"
            ));
        }
    });
}

/// As with crun.
#[test]
fn bound_nodes_are_no_programs() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("runc keeps the flags of the host's /dev") {
            return;
        }
        let c = c.in_user_namespace(FIRST).edit(|spec| {
            spec["linux"]["devices"] =
                json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5}]);
        });
        let c =
            c.script("grep -E ' /dev/(null|zero|full|tty|u?random|mine) ' /proc/self/mountinfo");
        let out = c.run().ok();
        assert_eq!(out.stdout.lines().count(), 7, "{}", out.stdout);
        for line in out.stdout.lines() {
            let flags: Vec<_> = line.split(' ').nth(5).expect("flags").split(',').collect();
            assert!(flags.contains(&"nosuid") && flags.contains(&"noexec"), "{line}");
            assert!(!flags.contains(&"nodev"), "{line}");
        }
    });
}
