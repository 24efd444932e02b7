//! Becoming somebody else than was asked for.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use runtime_tests::{Container, on_the_host, skip};
use serde_json::json;

/// CVE-2016-3697: a user of digits, looked up as a name in the container's /etc/passwd, was root.
#[test]
fn a_number_is_not_a_name() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        fs::write(c.rootfs().join("etc/passwd"), "1000:x:0:0::/:/bin/sh\n").expect("passwd");
        fs::write(c.rootfs().join("etc/group"), "1000:x:0:\n").expect("group");
        c.run_detached();
        let out = c.call(["exec", "--user", "1000:1000", &c.id, "id", "-u"]).output();
        assert_eq!(out.stdout, "1000\n", "{out:?}");
    });
}

/// CVE-2026-46680: a number too large for an ID was looked up as a name in the image's own files, which
/// made it root. `run`, `exec` and config.json read IDs alike.
#[test]
fn a_number_of_any_size_is_not_a_name_of_the_image() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("others need a bundle") {
            return;
        }
        let texts = [
            "4294967296",
            "99999999999999999999",
            "4294967295",
            "-1",
            "+5",
            " 5",
            "5 ",
            "0x5",
            "1e1",
        ];
        let entries = |fields: &str| {
            texts.iter().map(|text| format!("{text}:x:{fields}\n")).collect::<String>()
        };
        fs::write(c.rootfs().join("etc/passwd"), entries("0:0::/:/bin/sh")).expect("passwd");
        fs::write(c.rootfs().join("etc/group"), entries("0:")).expect("group");
        let rootfs = c.rootfs();
        let run = |user: &str| {
            let call = c.call(["run", "--rootfs", rootfs.to_str().expect("utf-8"), "--user"]);
            call.args([user, &c.id, "--", "id"]).output()
        };
        for user in texts.iter().flat_map(|text| [text.to_string(), format!("1000:{text}")]) {
            let out = run(&user).says("invalid value");
            assert!(out.code != Some(0) && out.stdout.is_empty(), "{user:?}: {out:?}");
        }
        assert!(run("5:6").ok().stdout.starts_with("uid=5 gid=6"));
        c.leaves_nothing();
        c.run_detached();
        for user in texts.iter().flat_map(|text| [text.to_string(), format!("1000:{text}")]) {
            let out = c.call(["exec", "--user", &user, &c.id, "id"]).output();
            assert!(out.code != Some(0) && out.stdout.is_empty(), "{user:?}: {out:?}");
        }
    });
}

/// CVE-2026-30892: what could not be read of `--user` was dropped, and root was left.
/// CVE-2024-40635: a number above 2^31 wrapped around.
#[test]
fn a_user_that_cannot_be_read_is_nobody() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("runc 1.1.5 reads some of these") {
            return;
        }
        c.run_detached();
        for user in
            ["1x", " 1", "1 ", ":1", "1:", "+1", "-1", "0x0", "4294967296", "4294967295", "1:1:1"]
        {
            let out = c.call(["exec", "--user", user, &c.id, "id"]).output();
            assert!(out.code != Some(0) && out.stdout.is_empty(), "{user:?}: {out:?}");
        }
        let out = c.call(["exec", "--user", "2147483648:2147483649", &c.id, "id"]).output();
        assert_eq!(out.stdout, "uid=2147483648 gid=2147483649\n", "{out:?}");
    });
}

/// -1 means "as it is" to setresuid(2).
#[test]
fn minus_one_is_not_an_id() {
    on_the_host(|view| {
        for (field, value) in [
            ("uid", json!(u32::MAX)),
            ("gid", json!(u32::MAX)),
            ("additionalGids", json!([u32::MAX])),
            ("uid", json!(1_u64 << 32)),
        ] {
            let c = Container::new(view).args(["id"]).edit(|spec| {
                spec["process"]["user"][field] = value.clone();
            });
            let out = c.run();
            assert!(out.code != Some(0) && out.stdout.is_empty(), "{field} {value}: {out:?}");
        }
    });
}

/// CVE-2022-29162, CVE-2022-24769, CVE-2022-27650, CVE-2025-27612: a capability that is inheritable
/// comes back through any file that has it.
#[test]
fn nothing_is_inheritable_that_was_not_asked_for() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let script = "grep -E 'Cap(Inh|Eff|Amb)' /proc/self/status";
        for flags in [&[][..], &["--cap", "CAP_NET_ADMIN"], &["--user", "0:0"]] {
            let args = [&["exec"], flags, &[&c.id, "sh", "-c", script]].concat();
            let out = c.call(args).ok();
            assert!(out.stdout.contains("CapInh:\t0000000000000000"), "{flags:?}: {out:?}");
            assert!(out.stdout.contains("CapAmb:\t0000000000000000"), "{flags:?}: {out:?}");
            let net_admin = !flags.contains(&"CAP_NET_ADMIN") || out.stdout.contains("20001420");
            assert!(net_admin, "the capability itself: {out:?}");
        }
        c.plain(["spec", "--bundle"]).arg(c.directory("fresh")).ok();
        let text = fs::read_to_string(c.path("fresh/config.json")).expect("config.json");
        let spec: serde_json::Value = serde_json::from_str(&text).expect("json");
        for set in ["inheritable", "ambient"] {
            let list = spec["process"]["capabilities"][set].as_array();
            let none = list.is_none_or(Vec::is_empty);
            assert!(none || !c.runtime.is_aril(), "{set}: {list:?}");
        }
    });
}

/// CVE-2023-25173, CVE-2022-2989, CVE-2022-2990: the groups of whoever called.
#[test]
fn groups_of_the_caller_stay_outside() {
    on_the_host(|view| {
        let c = Container::new(view).script("id -G; exec sleep 1000");
        let joined = "exec setpriv --groups 4,27,1234 \"$@\"";
        c.run_call(&["-d"]).in_shell(joined).ok();
        for user in ["0", "1000:1000"] {
            let call = c.call(["exec", "--user", user, &c.id, "id", "-G"]);
            let out = call.in_shell(joined).ok();
            assert_eq!(out.stdout.split_whitespace().count(), 1, "{user}: {out:?}");
        }
        let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
        let groups = status.lines().find_map(|l| l.strip_prefix("Groups:")).expect("groups");
        assert_eq!(groups.trim(), "");
    });
}

/// GO-2026-5475: an /etc/passwd without an end, or that is no file, on the way to HOME.
#[test]
fn an_endless_passwd_ends_nothing() {
    on_the_host(|view| {
        let endless = |path: &Path| {
            let file = fs::File::create(path).expect("a file");
            file.set_len(1 << 40).expect("a length");
        };
        let fifo = |path: &Path| mkfifo(path, Mode::from_bits_truncate(0o600)).expect("fifo");
        let directory = |path: &Path| fs::create_dir(path).expect("a directory");
        let make = |kind: &str, path: &Path| match kind {
            "endless" => endless(path),
            "fifo" => fifo(path),
            _ => directory(path),
        };
        for kind in ["endless", "fifo", "directory"] {
            let c = Container::new(view).script("echo HOME=$HOME");
            if kind != "directory" && !c.runtime.only_aril("others read to the end") {
                continue;
            }
            let path = c.rootfs().join("etc/passwd");
            fs::remove_file(&path).expect("removed");
            make(kind, &path);
            let out = c.run();
            assert!(out.code.is_some(), "{kind}: {out:?}");
            if c.runtime.is_aril() {
                assert_eq!(out.stdout, "HOME=/\n", "{kind}: {out:?}");
            }
        }
    });
}

/// A device in the place of a file: to open one may be to start it, as a watchdog that ends the host. A fifo
/// stands for it.
#[test]
fn what_is_no_file_is_not_opened() {
    on_the_host(|view| {
        let Some(strace) = skip::tool("strace", "strace") else { return };
        let c = Container::new(view).args(["true"]);
        if !c.runtime.only_aril("others open it, most of them without waiting") {
            return;
        }
        for name in ["etc/passwd", "etc/group"] {
            let path = c.rootfs().join(name);
            fs::remove_file(&path).expect("removed");
            mkfifo(&path, Mode::from_bits_truncate(0o600)).expect("fifo");
        }
        let trace = c.path("trace");
        let traced = format!(
            "exec {} -f -qq -e trace=open,openat,openat2 -o {} \"$@\"",
            strace.display(),
            trace.display()
        );
        let rootfs = c.rootfs().display().to_string();
        let named = ["run", "--rootfs", &rootfs, "--user", "mail", &c.id, "true"];
        for call in [c.run_call(&[]), c.call(named)] {
            let out = call.in_shell(&traced).output();
            let text = fs::read_to_string(&trace).expect("a trace");
            let opens: Vec<_> = text
                .lines()
                .filter(|line| line.contains("\"/etc/passwd\"") && line.contains("openat2"))
                .collect();
            assert!(!opens.is_empty(), "{out:?}");
            assert!(opens.iter().all(|line| line.contains("O_PATH")), "{opens:#?}");
        }
        let out = c.call(named).output().exits(1);
        out.says("no user \"mail\" in /etc/passwd of the image");
    });
}
