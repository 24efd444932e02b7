//! Supplementary groups of an unprivileged user's container.

use runtime_tests::on_the_host;
use serde_json::json;

use super::{Bundle, ranges};

/// With group IDs of a range, the kernel lets root of the user namespace choose groups.
#[test]
fn groups_of_a_range() {
    on_the_host(|view| {
        let Some(b) = Bundle::of_tester(view) else { return };
        let b = b.script("grep ^Groups: /proc/self/status; sleep 1000").edit(|spec| {
            spec["linux"]["uidMappings"] = ranges();
            spec["linux"]["gidMappings"] = ranges();
            spec["process"]["user"]["additionalGids"] = json!([10, 20]);
        });
        if !b.c.runtime.only_aril("crun does, runc refuses") {
            return;
        }
        b.c.write_config();
        let id = b.c.id.clone();
        b.run(&["-d"]).ok();
        let words =
            ["exec", "--additional-gids", "30", &id, "grep", "^Groups:", "/proc/self/status"];
        b.call(words).ok().prints("Groups:\t10 20 30");
        b.call(["delete", "--force", &id]).ok();
        b.c.leaves_nothing();
    });
}

/// With the user's own ID alone, the kernel lets nobody choose groups.
#[test]
fn groups_without_a_range() {
    on_the_host(|view| {
        let Some(b) = Bundle::new(view) else { return };
        let b = b.edit(|spec| spec["process"]["user"]["additionalGids"] = json!([0]));
        b.run(&[])
            .output()
            .exits(1)
            .says("cannot set any additional groups in a rootless container");
        b.c.leaves_nothing();
    });
}
