//! `aril explain`: what the default configs of engines let a container do, and the privileged one.

use std::fs;

use runtime_tests::{Container, on_the_host, spec};
use serde_json::{Value, json};

fn explained(c: &Container, format: &[&str]) -> runtime_tests::Output {
    c.write_config();
    let bundle = c.dir.to_str().expect("utf-8");
    // Whoever asks: nothing is made, and nothing of the bundle's but its config is read.
    c.plain([&["explain", bundle], format].concat()).stage(["user", "65534"]).ok()
}

fn graded(c: &Container) -> (String, Value) {
    let document: Value =
        serde_json::from_str(&explained(c, &["--format", "json"]).stdout).expect("JSON");
    (document["grade"].as_str().expect("a grade").to_owned(), document)
}

#[test]
fn configs_of_engines_are_usual_and_privileged_ones_open() {
    on_the_host(|view| {
        let mut c = Container::new(view);
        if !c.runtime.only_aril("no other runtime explains") {
            return;
        }
        let files = c.directory("files");
        let confined = |mut spec: Value| {
            spec["process"]["apparmorProfile"] = "engine-default".into();
            spec
        };
        for spec in [spec::docker(view, &files), spec::podman(view, &files)] {
            c.take_spec(confined(spec));
            let (grade, document) = graded(&c);
            assert_eq!(grade, "usual", "{document:#}");
        }
        // These two come without a seccomp profile.
        for spec in [spec::containerd(view), spec::runc(view)] {
            c.take_spec(confined(spec));
            let (grade, document) = graded(&c);
            assert_eq!(grade, "loose", "{document:#}");
            let loose = document["findings"].as_array().expect("findings").iter();
            let loose: Vec<_> = loose.filter(|finding| finding["grade"] == "loose").collect();
            assert!(matches!(loose[..], [one] if one["topic"] == "seccomp"), "{loose:#?}");
        }

        // `docker run --privileged -v /:/host`, run by root: for somebody else it would be nobody's.
        let mut privileged = spec::docker(view, &files);
        let all = json!(["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_CHOWN"]);
        privileged["process"]["capabilities"] = json!({"bounding": all, "effective": all});
        privileged["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        for gone in ["seccomp", "maskedPaths", "readonlyPaths"] {
            privileged["linux"].as_object_mut().expect("linux").remove(gone);
        }
        c.take_spec(privileged);
        let c = c.mounting(spec::bind(std::path::Path::new("/"), "/host", &["rw"]));
        c.write_config();
        let out = c.plain(["explain"]).dir(&c.dir).ok();
        let told = |line: &str| {
            out.stdout.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == line)
        };
        for line in [
            "open capabilities CAP_SYS_MODULE: may load modules into the kernel",
            "open files /host: host path / is writable",
            "open devices every device of the host is accessible, including disks and memory",
            "loose seccomp no profile: every system call is allowed",
        ] {
            assert!(told(line), "{line}: {}", out.stdout);
        }
        assert!(
            out.stdout.contains(": open: a program in the container can take over the host"),
            "{out:?}"
        );
    });
}

#[test]
fn a_bundle_that_is_none() {
    on_the_host(|view| {
        let c = Container::new(view);
        if !c.runtime.only_aril("no other runtime explains") {
            return;
        }
        let bundle = c.directory("empty");
        let out = c.plain(["explain", bundle.to_str().expect("utf-8")]).output().exits(1);
        out.says("config.json not found in").says("a bundle is a directory");
        fs::write(
            bundle.join("config.json"),
            r#"{"ociVersion":"1.2.0","annotations":{"io.aril.landlock":"x"}}"#,
        )
        .expect("a config");
        let explain = |words: &[&str]| c.plain(words).dir(&bundle).output();
        let allowed = explain(&["--allow-annotation", "io.aril.*", "explain"]).exits(1);
        allowed.says("io.aril.landlock: invalid JSON");
        explain(&["explain"]).ok().says("annotation io.aril.landlock ignored");
    });
}
