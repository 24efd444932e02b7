//! Podman through conmon, cgroups by file.

use runtime_tests::container::wait_until;
use runtime_tests::terminal;

use crate::pages;
use crate::private::{Client, Driver, Place, compared, privately};

pub const TOOLS: &[(&str, &str)] = &[("podman", "podman"), ("conmon", "conmon")];

/// Limits that a root without CAP_SYS_RESOURCE can set as well.
const LIMITS: &str =
    "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n";

fn with_podman(name: &str, test: impl FnOnce(&Client, &[&str])) {
    privately(name, TOOLS, |place| in_podman(place, "", test));
}

/// Configured as `docs/podman.md` says, and with `more`; `test` gets what each `run` needs here besides.
pub fn in_podman(place: &Place, more: &str, test: impl FnOnce(&Client, &[&str])) {
    let config = pages::block("podman.md", "toml").replace("/usr/local/bin/aril", &place.runtime());
    let config = match place.driver {
        Driver::Tested => config,
        Driver::Own => config.replace("\"aril\"", "\"runc\"").replace("aril = ", "runc = "),
    };
    let config = place.file("containers.conf", &format!("{LIMITS}{config}{more}"));
    let config = format!("CONTAINERS_CONF={config}");
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    let policy = place.file("policy.json", policy);
    let (root, run, tmp) = (place.path("root"), place.path("run"), place.path("tmp"));
    let dirs = ["--root", &root, "--runroot", &run, "--tmpdir", &tmp];
    let drivers = ["--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs"];
    let podman = place.client("env", &[&[&config, "podman"][..], &dirs, &drivers].concat());
    podman.run(&["import", "--signature-policy", &policy, &place.archive(), "box"]).ok();
    // Podman's own parent would stay behind.
    test(&podman, &["--network=none", "--cgroup-parent", &place.cgroup()]);
    podman.run(&["rm", "-f", "-t", "0", "-a"]).ok();
    place.remove_cgroup("conmon");
}

/// Major version of Podman.
pub fn major_version(podman: &Client) -> u32 {
    let version = podman.ask(&["version", "-f", "{{.Client.Version}}"]);
    version.split('.').next().and_then(|major| major.parse().ok()).expect("a version")
}

/// What a person does in a day.
#[test]
fn session() {
    compared("podman::session", TOOLS, |place| {
        in_podman(place, "", |podman, common| {
            options(podman, common);
            terminals(podman, common);
            health(podman, common);
            let id = pod(podman, common);
            // With every runtime, Podman 4.3 does not wait for conmon to leave the pod's cgroup, fails, and
            // removes the pod when it is asked again.
            wait_until("the pod is removed", || {
                podman.run(&["pod", "rm", "-f", "-t", "0", "p"]).code == Some(0)
                    || podman.run(&["pod", "exists", "p"]).code == Some(1)
            });
            // Podman 4.3 leaves that of a pod, with every runtime.
            place.remove_cgroup(&id);
        });
    });
}

fn options(podman: &Client, common: &[&str]) {
    let run = |flags: &[&str], args: &[&str]| {
        let own: Vec<&str> = ["run", "--rm"].into_iter().chain(flags.iter().copied()).collect();
        podman.see_also(&own, common, &[&["box"], args].concat())
    };
    let status = "/proc/self/status";
    run(&["-v", "/etc:/there:ro"], &["sh", "-c", "cat /there/hostname; touch /there/x"]).exits(1);
    run(&["--tmpfs", "/x:size=1m"], &["grep", " /x ", "/proc/mounts"]).ok().prints("size=1024k");
    run(&["--cap-drop", "all", "--cap-add", "net_raw"], &["grep", "Cap", status]).ok();
    run(&["--security-opt", "no-new-privileges"], &["grep", "NoNew", status]).ok().prints("1");
    run(&["--security-opt", "seccomp=unconfined"], &["grep", "Seccomp:", status]).ok().prints("0");
    run(&["--user", "8:9"], &["id"]).ok();
    run(&["--read-only"], &["touch", "/x"]).exits(1);
    run(&["--hostname", "h"], &["hostname"]).ok().prints("h");
    run(&["--env", "A=b", "-w", "/tmp"], &["sh", "-c", "echo $A; pwd"]).ok().prints("b\n/tmp");
    run(&["--sysctl", "net.ipv4.ip_forward=1"], &["cat", "/proc/sys/net/ipv4/ip_forward"]).ok();
    run(&["--pids-limit", "20", "-m", "64m", "--cpus", "0.5"], &["true"]).ok();
    run(&[], &["missing"]).exits(127);
}

fn terminals(podman: &Client, common: &[&str]) {
    let on = |args: &[&str]| {
        let (master, slave) = terminal::open(33, 91);
        let call = podman.call(args).on_terminal(&slave).spawn();
        drop(slave);
        terminal::read_until(&master, "# ");
        terminal::type_in(&master, "stty size\n");
        terminal::read_until(&master, "33 91");
        terminal::type_in(&master, "exit 6\n");
        call.wait().exits(6);
    };
    on(&[&["run", "-it", "--name", "tty"], common, &["box", "sh"]].concat());
    podman.see(&["inspect", "-f", "{{.State.ExitCode}}", "tty"]).ok().prints("6");
    podman.run(&["start", "tty"]).ok();
    on(&["exec", "-it", "tty", "sh"]);
    podman.run(&["rm", "-f", "-t", "0", "tty"]).ok();
}

fn health(podman: &Client, common: &[&str]) {
    let check = ["--health-cmd", "test -e /well", "--health-interval", "disable"];
    let run = [&["run", "-d", "--name", "h"], common, &check, &["box", "sleep", "1000"]];
    podman.run(&run.concat()).ok();
    podman.see(&["healthcheck", "run", "h"]).exits(1);
    podman.see(&["exec", "h", "touch", "/well"]).ok();
    podman.see(&["healthcheck", "run", "h"]).ok();
    podman.run(&["stop", "-t", "1", "h"]).ok();
    let state = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "h"];
    podman.see(&state).ok().prints("exited 137");
}

/// Two containers that share what is the pod's; its id.
fn pod(podman: &Client, common: &[&str]) -> String {
    let infra = ["--infra-image", "box", "--infra-command", "sleep 1000", "--share", "net,ipc,uts"];
    podman.run(&[&["pod", "create", "--name", "p"], common, &infra].concat()).ok();
    let server = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    podman.run(&[&["run", "-d", "--pod", "p", "box"][..], &server].concat()).ok();
    podman.run(&["run", "-d", "--name", "other", "--pod", "p", "box", "sleep", "1000"]).ok();
    let page = ["exec", "other", "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/passwd"];
    wait_until("the page", || podman.run(&page).code == Some(0));
    podman.see(&page).ok().prints("root:");
    let status = ["pod", "ps", "--format", "{{.Name}} {{.Status}} {{.NumberOfContainers}}"];
    podman.see(&status).ok().prints("p Running 3");
    // With every runtime, Podman 5.4 on cgroup v1 does not wait for conmon to leave the pod's cgroup and fails, with the
    // pod stopped.
    podman.run(&["pod", "stop", "-t", "1", "p"]);
    podman.see(&status).ok().prints("p Exited 3");
    podman.ask(&["pod", "inspect", "-f", "{{.ID}}", "p"])
}

#[test]
fn page() {
    with_podman("podman::page", |podman, common| {
        podman.run(&["tag", "box", "busybox"]).ok();
        for (line, printed) in pages::commands("podman.md", "podman run ") {
            let words: Vec<&str> = line.split(' ').collect();
            let out = podman.run(&[&["run"], common, &words].concat()).ok();
            assert_eq!(out.stdout, format!("{printed}\n"), "{line}");
        }
    });
}

#[test]
fn run() {
    with_podman("podman::run", |podman, common| {
        let run = |flags: &[&str], args: &[&str]| {
            podman.run(&[&["run", "--rm"], common, flags, &["box"], args].concat())
        };
        assert_eq!(run(&[], &["sh", "-c", "echo said; exit 3"]).exits(3).stdout, "said\n");
        run(&["-u", "mail"], &["id", "-u"]).ok().prints("8");
        let map = ["--uidmap=0:100000:1000", "--gidmap=0:100000:1000"];
        run(&map, &["cat", "/proc/self/uid_map"]).ok().prints("100000");
        run(&["--privileged"], &["grep", "Seccomp:", "/proc/self/status"]).ok().prints("0");
        for (program, code, text) in [
            ("missing", 127, "exec: \"missing\": executable file not found in $PATH"),
            ("/missing", 127, "stat /missing: no such file or directory"),
            ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ] {
            run(&[], &[program]).exits(code).says(text);
        }
    });
}

#[test]
fn lifecycle() {
    with_podman("podman::lifecycle", |podman, common| {
        let script = "trap 'exit 7' TERM; echo up; while :; do sleep .1; done";
        let state = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c"];
        let create = ["--name=c", "box", "sh", "-c", script];
        podman.run(&[&["create"], common, &create].concat()).ok();
        podman.run(&["init", "c"]).ok();
        assert_eq!(podman.ask(&state), "initialized 0");
        podman.run(&["start", "c"]).ok();
        podman.wait_for(&["logs", "c"], "up");
        podman.run(&["exec", "c", "sh", "-c", "echo in; exit 4"]).exits(4).prints("in");
        podman.run(&["exec", "c", "missing"]).exits(127).says("executable file not found in $PATH");
        podman.run(&["top", "c", "args"]).ok().prints("trap");
        podman.run(&["pause", "c"]).ok();
        assert_eq!(podman.ask(&state), "paused 0");
        podman.run(&["unpause", "c"]).ok();
        podman.run(&["update", "--memory=64m", "c"]).ok();
        let limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes";
        podman.run(&["exec", "c", "sh", "-c", limit]).prints("67108864");
        podman.run(&["stop", "c"]).ok();
        assert_eq!(podman.ask(&state), "exited 7");
        podman.run(&["start", "c"]).ok();
        podman.run(&["kill", "c"]).ok();
        podman.run(&["wait", "c"]).ok().prints("137");
    });
}

/// Podman before 4.6, Debian 12's, copies the annotations of an image's manifest to config.json. Their author
/// gets nothing of the host but a warning, until the operator allows the key.
#[test]
fn an_image_with_annotations() {
    privately("podman::an_image_with_annotations", TOOLS, |place| {
        in_podman(place, "", |podman, common| {
            let host = place.path("host");
            std::fs::create_dir_all(format!("{host}/etc")).expect("a directory");
            place.file("host/etc/secret", "of the host\n");
            let layers = serde_json::json!([place.rootfs(), host]).to_string();
            let upper = serde_json::json!({"upper": host, "work": place.path("work")}).to_string();
            let hostile = [
                format!("io.aril.rootfs.layers={layers}"),
                format!("io.aril.rootfs.upper={upper}"),
                "io.aril.network=host".to_owned(),
                "io.aril.network.publish=22:22".to_owned(),
            ];
            let file = place.file("Containerfile", "FROM box\n");
            let policy = place.path("policy.json");
            let mut build = vec!["build", "--signature-policy", &policy, "-t", "evil", "-f", &file];
            let annotations: Vec<_> =
                hostile.iter().flat_map(|pair| ["--annotation", pair.as_str()]).collect();
            // Podman 5 does not pass an image's annotations to the runtime. Those of its command line are no different
            // in config.json.
            let of_the_image = major_version(podman) < 5;
            build.extend(if of_the_image { &annotations[..] } else { &[] });
            podman.run(&build).ok();
            let run = |flags: &[&str]| {
                let script = "cat /etc/secret; touch /etc/owned; ls /sys/class/net | wc -l";
                let words = ["--name", "c", "evil", "sh", "-c", script];
                let annotations = if of_the_image { &[] } else { &annotations[..] };
                podman.run(&[flags, &["run"], annotations, common, &words].concat())
            };
            // Podman has the runtime's log in a file, and shows it where the runtime fails.
            let log = || {
                let config = podman.ask(&["inspect", "-f", "{{.OCIConfigPath}}", "c"]);
                let text = std::fs::read_to_string(&config).expect("config.json");
                assert!(hostile.iter().all(|pair| text.contains(pair.split('=').next().unwrap())));
                let beside = podman.ask(&["inspect", "-f", "{{.ConmonPidFile}}", "c"]);
                let log = std::path::Path::new(&beside).with_file_name("oci-log");
                let log = std::fs::read_to_string(log).expect("the runtime's log");
                podman.run(&["rm", "-f", "-t", "0", "c"]).ok();
                log
            };
            assert_eq!(run(&[]).ok().stdout, "1\n");
            let said = log();
            let keys = "io.aril.network, io.aril.network.publish, io.aril.rootfs.layers, \
                        io.aril.rootfs.upper ignored: the operator has not allowed";
            assert!(said.contains(keys) && said.lines().count() == 1, "{said}");
            assert!(!std::path::Path::new(&host).join("etc/owned").exists());
            let allow = ["--runtime-flag", "allow-annotation=io.aril.rootfs.layers"];
            assert_eq!(run(&allow).ok().stdout, "of the host\n1\n");
            let said = log();
            assert!(said.contains("ignored") && !said.contains("layers"), "{said}");
            // A warning before an error hides neither its text nor its code.
            let missing = [&["run", "--rm"], common, &["evil", "missing"]].concat();
            podman.run(&missing).exits(127).says("executable file not found in $PATH");
            let strict = run(&["--runtime-flag", "strict-annotations"]);
            strict.exits(126).says("--strict-annotations: annotations io.aril.network, ");
        });
    });
}
