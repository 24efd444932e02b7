//! What a `run` asks of the kernel.

use std::collections::BTreeMap;
use std::fs;

use runtime_tests::{Container, host, in_each_view, on_the_host, skip};

/// In the pure cgroup2 view. Each v1 hierarchy has a directory to make, fill, limit and remove.
/// Thirty reset signals that the caller may ignore, one each: they take less time than to read which.
const MOST: usize = 460;
const PER_V1_HIERARCHY: usize = 35;

/// Lines of a trace of the whole process tree: a call each.
fn trace(c: &Container, strace: &std::path::Path) -> String {
    c.write_config();
    let file = c.path("trace").display().to_string();
    c.bare(strace, "strace")
        .args(["-f", "-qq", "-e", "signal=none", "-o", &file])
        .arg(&c.runtime.path)
        .arg("--root")
        .arg(&c.root)
        .args(c.globals())
        .args(["run", "-b", c.dir.to_str().expect("utf-8"), &c.id])
        .ok();
    fs::read_to_string(c.path("trace")).expect("a trace")
}

/// How often each call was made, by all processes together.
fn by_name(trace: &str) -> BTreeMap<&str, usize> {
    let mut calls = BTreeMap::new();
    // Lines are `PID NAME(...`; the ends of interrupted calls and of processes are not.
    let rests = trace.lines().filter_map(|line| line.split_whitespace().nth(1).zip(Some(line)));
    for (rest, line) in rests {
        let name = rest.split('(').next().unwrap_or_default();
        // Debug builds of Rust's library check each descriptor that they close.
        if name.starts_with(char::is_alphabetic) && !line.contains("F_GETFD") {
            *calls.entry(name).or_default() += 1;
        }
    }
    calls
}

#[test]
fn a_run_makes_few() {
    in_each_view(|view| {
        let Some(strace) = skip::tool("strace", "strace") else { return };
        let c = Container::new(view).args(["/bin/true"]);
        let trace = trace(&c, &strace);
        let calls = by_name(&trace);
        let count: usize = calls.values().sum();
        eprintln!("{count} calls in the view {view:?}");
        assert!(count > 50, "the trace is not whole: {trace}");
        let v1 = if view.is_v2() { 0 } else { host::hierarchies().len() - 1 };
        let most = MOST + v1 * PER_V1_HIERARCHY;
        assert!(count <= most || !c.runtime.is_aril(), "{count} calls: {calls:#?}");
        assert!(count > most || c.runtime.is_aril(), "the limit would not have failed the peer");
    });
}

#[test]
fn nothing_of_the_containers_is_opened_by_its_path_on_the_host() {
    on_the_host(|view| {
        let Some(strace) = skip::tool("strace", "strace") else { return };
        let c = Container::new(view).args(["/bin/true"]);
        if !c.runtime.only_aril("runc does, under its own protections") {
            return;
        }
        let inside = format!("{}/", c.rootfs().display());
        let trace = trace(&c, &strace);
        let paths: Vec<&str> = trace.lines().filter(|line| line.contains(&inside)).collect();
        assert!(paths.is_empty(), "{paths:#?}");
    });
}

/// The first layer takes an overlay and its directories, each further one is a name.
#[test]
fn a_layer_costs_few() {
    on_the_host(|view| {
        let Some(strace) = skip::tool("strace", "strace") else { return };
        let with = |layers: usize| {
            let c = Container::new(view).args(["/bin/true"]);
            let annotations = (0..layers).map(|number| match number {
                0 => c.rootfs(),
                number => c.directory(&format!("layer-{number}")),
            });
            let list: Vec<_> = annotations.collect();
            let c = match layers {
                0 => c,
                _ => {
                    let list = serde_json::to_string(&list).expect("json");
                    c.annotated("io.aril.rootfs.layers", &list)
                }
            };
            by_name(&trace(&c, &strace)).values().sum::<usize>()
        };
        if !Container::new(view).runtime.only_aril("layers are an option of its own") {
            return;
        }
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
        let numbers: Vec<u32> = release.split(['.', '-']).flat_map(str::parse).take(2).collect();
        if numbers < vec![6, 15] {
            return skip::inapplicable("before Linux 6.15 a process of its own mounts the layers");
        }
        let [none, one, many] = [0, 1, 101].map(with);
        eprintln!("{none} calls without layers, {one} with one, {many} with 101");
        // 39 on an idle machine. On a loaded one a few waits are interrupted and begun again.
        assert!(one <= none + 50, "{none} {one}");
        assert!(many <= one + 110, "{one} {many}");
    });
}
