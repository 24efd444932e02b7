//! `events` and `stats`.

use runtime_tests::container::wait_until;
use runtime_tests::{Container, Runtime, View, in_each_view};
use serde_json::{Value, json};

fn limited(view: View) -> Container {
    let c = Container::new(view).sleeper().edit(|spec| {
        if view.controls("pids") {
            spec["linux"]["resources"]["pids"] = json!({"limit": 23});
        }
        if view.controls("memory") {
            spec["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
        }
    });
    c.run_detached();
    c
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn sample(c: &Container) -> Value {
    let out = c.call(["events", "--stats", &c.id]).ok();
    assert!(out.stderr.is_empty(), "engines parse both outputs together: {out:#?}");
    assert_eq!(out.stdout.lines().count(), 1, "{out:#?}");
    let line = parse(&out.stdout);
    assert_eq!((&line["type"], &line["id"]), (&json!("stats"), &json!(c.id)));
    line["data"].clone()
}

#[test]
fn stats_prints_one_sample() {
    in_each_view(|view| {
        let c = limited(view);
        let data = sample(&c);
        for field in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"] {
            assert!(data[field].is_object(), "{field} of {data}");
        }
        assert!(data["network_interfaces"].is_null(), "{data}");
        for field in ["usage", "throttling"] {
            assert!(data["cpu"][field].is_object(), "{field} of {data}");
        }
        for field in ["usage", "swap", "kernel", "kernelTCP"] {
            assert!(data["memory"][field]["failcnt"].is_u64(), "{field} of {data}");
        }
        if view.controls("pids") {
            assert_eq!(data["pids"], json!({"current": 1, "limit": 23}));
        }
        if view.controls("memory") {
            let memory = &data["memory"];
            assert_eq!(memory["usage"]["limit"], 67_108_864);
            assert!(memory["usage"]["usage"].as_u64() > Some(0), "{memory}");
            assert!(memory["raw"].as_object().is_some_and(|raw| raw.len() > 10), "{memory}");
        }
    });
}

/// The same numbers of the same container, by the peer's reckoning.
#[test]
fn events_equal_the_peers_counts() {
    in_each_view(|view| {
        let Some(peer) = Runtime::peer() else { return };
        let of = |runtime| {
            let c = Container::of(runtime, view).sleeper().edit(|spec| {
                if view.controls("memory") {
                    spec["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
                }
            });
            c.run_detached();
            shape(&sample(&c))
        };
        let (theirs, ours) = (of(peer), of(Runtime::under_test()));
        let missing: Vec<_> = theirs.iter().filter(|path| !ours.contains(path)).collect();
        assert!(missing.is_empty(), "only {} has {missing:#?}", peer.version);
    });
}

/// The paths of all fields that say something; counters by name depend on what has happened.
fn shape(value: &Value) -> Vec<String> {
    fn walk(path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| *name != "raw") {
                    walk(&format!("{path}/{name}"), value, found);
                }
            }
            // What is zero, or empty, may be left out.
            Value::Null | Value::Array(_) | Value::String(_) => {}
            value if value.as_u64() == Some(0) => {}
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    // Whether the kernel has had anything to count is chance.
    const CHANCE: [&str; 4] = ["/throttling/", "/psi/", "/cpu/usage/", "/memory/cache"];
    found.retain(|path| !CHANCE.iter().any(|part| path.contains(part)));
    found
}

#[test]
fn a_stream_until_the_end() {
    in_each_view(|view| {
        let c = limited(view);
        let events = c.call(["events", "--interval", "50ms", &c.id]).spawn();
        wait_until("three samples", || events.stdout().lines().count() >= 3);
        assert!(c.kill("KILL").code == Some(0));
        let out = events.wait().ok();
        assert!(out.stdout.lines().map(parse).all(|line| line["type"] == "stats"), "{out:#?}");
        c.wait_for("stopped");
        let text = format!("container with id {} is not running", c.id);
        c.call(["events", &c.id]).output().exits(1).says(&text);
        c.call(["events", "--stats", &c.id]).output().exits(1).says(&text);
    });
}

#[test]
fn an_interval_that_is_none() {
    in_each_view(|view| {
        let c = limited(view);
        for interval in ["0s", "-1s"] {
            c.call(["events", "--interval", interval, &c.id]).output().exits(1);
        }
    });
}

#[test]
fn stats_for_people() {
    in_each_view(|view| {
        let c = limited(view);
        if !c.runtime.only_aril("it is its own verb") {
            return;
        }
        let out = c.call(["stats", "--no-stream"]).ok();
        assert!(out.stdout.lines().any(|line| line.starts_with(&c.id)), "{out:#?}");
        let out = c.call(["stats", "--no-stream", "--format", "json", &c.id]).ok();
        let all = parse(out.stdout.trim());
        let one = if all.is_array() { all[0].clone() } else { all };
        assert_eq!(one["id"], json!(c.id), "{one}");
        assert!(one["cpu_percent"].is_number() && one["pressure"].is_object(), "{one}");
        if view.controls("pids") {
            assert_eq!((&one["pids"], &one["pids_limit"]), (&json!(1), &json!(23)));
        }
        c.call(["stats", "--no-stream", "nobody"]).output().exits(1).says("does not exist");
    });
}
