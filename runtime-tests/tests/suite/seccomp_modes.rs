//! x86_64 kernels take system calls in three modes, each with numbers of its own.

use runtime_tests::{Container, View, on_the_host, skip};
use serde_json::{Value, json};

const GETPPID: [(&str, &str); 3] = [("native", "110"), ("i386", "64"), ("x32", "110")];

fn calls(view: View, arches: &[&str], rules: &Value, call: [&str; 3]) -> Container {
    let arches: Vec<_> = arches.iter().map(|arch| format!("SCMP_ARCH_{arch}")).collect();
    let [mode, number, first] = call;
    Container::new(view).args(["probe", "--call", mode, number, first]).edit(|spec| {
        spec["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": arches, "syscalls": rules});
    })
}

/// A kernel may be built or started without the entry for i386, and then has nothing to filter.
fn takes_i386(view: View) -> bool {
    if !cfg!(target_arch = "x86_64") {
        skip::inapplicable("only x86_64 has these modes");
        return false;
    }
    let takes = Container::new(view).args(["probe", "--call", "i386", "20", "0"]).run();
    if takes.code != Some(0) {
        skip::inapplicable("this kernel takes no calls of i386");
    }
    takes.code == Some(0)
}

#[test]
fn a_rule_counts_in_every_mode() {
    on_the_host(|view| {
        if !takes_i386(view) {
            return;
        }
        let rules = json!([{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]);
        for (mode, number) in GETPPID {
            let call = [mode, number, "0"];
            calls(view, &["X86_64", "X86", "X32"], &rules, call).run().ok().prints("-77\n");
        }
        // Its number on i386 is another call natively, and the other way round.
        calls(view, &["X86_64", "X86", "X32"], &rules, ["native", "64", "0"]).run().ok();
        // getpid
        calls(view, &["X86_64", "X86", "X32"], &rules, ["i386", "20", "0"])
            .run()
            .ok()
            .prints("1\n");
    });
}

#[test]
fn conditions_count_in_every_mode() {
    on_the_host(|view| {
        if !takes_i386(view) {
            return;
        }
        // getpgid, of a process that there is not: ESRCH.
        let numbers = [("native", "121"), ("i386", "132"), ("x32", "121")];
        let rules = |value: u64| {
            json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}])
        };
        let all = ["X86_64", "X86", "X32"];
        for (mode, number) in numbers {
            calls(view, &all, &rules(9999), [mode, number, "9999"]).run().ok().prints("-77\n");
            let miss = calls(view, &all, &rules(9998), [mode, number, "9999"]).run().ok();
            assert_ne!(miss.stdout, "-77\n", "{mode}");
        }
        // Natively all 64 bits are compared, else the lower half.
        let high = ["native", "121", "9999"];
        let miss = calls(view, &all, &rules(0x1_0000_270f), high).run().ok();
        assert_eq!(miss.stdout, "-3\n");
        let low = ["i386", "132", "9999"];
        calls(view, &all, &rules(0x1_0000_270f), low).run().ok().prints("-77\n");
    });
}

#[test]
fn a_socket_is_refused_through_the_multiplexer_too() {
    on_the_host(|view| {
        if !takes_i386(view) {
            return;
        }
        let rules = json!([{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]);
        for (number, first) in [("359", "1"), ("102", "1")] {
            calls(view, &["X86"], &rules, ["i386", number, first]).run().ok().prints("-77\n");
        }
        // socketcall's 2 is bind: EFAULT, for its arguments are at the address 0.
        calls(view, &["X86"], &rules, ["i386", "102", "2"]).run().ok().prints("-14\n");
    });
}

#[test]
fn a_mode_that_the_profile_does_not_name_is_killed() {
    on_the_host(|view| {
        if !takes_i386(view) {
            return;
        }
        for (mode, number) in &GETPPID[1..] {
            calls(view, &["X86_64"], &json!([]), [mode, number, "0"]).run().exits(128 + 31);
        }
        let both = ["X86_64", "X86"];
        calls(view, &both, &json!([]), ["i386", "20", "0"]).run().ok().prints("1\n");
        calls(view, &both, &json!([]), ["x32", "39", "0"]).run().exits(128 + 31);
    });
}
