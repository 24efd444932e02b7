//! Containers whose processes have left their cgroup: by their own doing, where they can write to the
//! cgroup tree (BuildKit in a privileged pod), or by an administrator's.

use std::fs;
use std::path::{Path, PathBuf};

use runtime_tests::{Container, View, host, in_each_view};
use serde_json::{Value, json};

/// The directories of the container's own cgroup.
fn own(c: &Container) -> Vec<PathBuf> {
    host::cgroups(&c.mark).into_iter().filter(|dir| dir.ends_with(&c.id)).collect()
}

/// A new cpuset of v1 is empty, and admits no process.
fn inherit(from: &Path, to: &Path, file: &str) {
    if let Ok(value) = fs::read_to_string(from.join(file))
        && !value.trim().is_empty()
    {
        fs::write(to.join(file), value).expect("a cpuset");
    }
}

/// Moves the processes of one cgroup to another one, which is made.
fn move_processes(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a cgroup");
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(from, to, file);
    }
    for pid in fs::read_to_string(from.join("cgroup.procs")).expect("processes").lines() {
        fs::write(to.join("cgroup.procs"), pid).expect("a member");
    }
}

/// A running container that has left its cgroups for others; `gone`: its own were removed, too.
fn moved(c: Container, gone: bool) -> Container {
    c.run_detached();
    for dir in own(&c) {
        move_processes(&dir, &dir.with_file_name("elsewhere"));
        if gone {
            fs::remove_dir(&dir).expect("an empty cgroup");
        }
    }
    c
}

fn only_aril(c: &Container) -> bool {
    c.runtime.only_aril("runc 1.1.5 and crun take the cgroup that they made for the container's")
}

fn refuses_update(c: &Container) {
    let update = c.call(["update", "--pids-limit", "77", &c.id]).output();
    update.exits(1).says("has left its cgroup");
}

/// The cgroups that the test made itself are not the runtime's to remove.
fn leaves_nothing_else(c: &Container) {
    host::scrub(&c.mark);
    c.leaves_nothing();
}

fn pids(c: &Container) -> Vec<i32> {
    let text = c.call(["ps", "-f", "json", &c.id]).ok().stdout;
    serde_json::from_str(&text).expect("json")
}

/// Without a pid namespace of its own a container's processes do not end with its init.
fn with_the_hosts_pids(view: View) -> Container {
    Container::new(view).sleeper().without_namespace("pid")
}

#[test]
fn its_own_cgroup_is_gone() {
    in_each_view(|view| {
        let c = moved(Container::new(view).sleeper(), true);
        if !only_aril(&c) {
            return;
        }
        c.exec(["echo", "inside"]).ok().prints("inside\n");
        let exec = c.exec(["cat", "/proc/self/cgroup"]).ok();
        assert!(!exec.stdout.contains(&format!("/{}\n", c.id)), "{exec:#?}");
        assert_eq!(pids(&c), [c.pid()]);
        assert_eq!(c.status(), "running");
        c.verb("pause").exits(1).says("has left its cgroup");
        refuses_update(&c);
        c.call(["events", "--stats", &c.id]).output().exits(1).says("was removed");
        c.kill("TERM").ok();
        c.kill("KILL").ok();
        c.wait_for("stopped");
        c.delete().ok();
        leaves_nothing_else(&c);
    });
}

/// What is done to a cgroup without processes changes nothing for the container.
#[test]
fn its_own_cgroup_is_empty() {
    in_each_view(|view| {
        let c = moved(Container::new(view).sleeper(), false);
        if !only_aril(&c) {
            return;
        }
        c.verb("pause").exits(1).says("failed to freeze: the container has left its cgroup");
        refuses_update(&c);
        for dir in own(&c) {
            // On cgroup2 an empty cgroup is frozen at once, on v1, too.
            let _ = fs::write(dir.join("freezer.state"), "FROZEN");
            let _ = fs::write(dir.join("cgroup.freeze"), "1");
        }
        assert_eq!(c.status(), "running");
        assert_eq!(pids(&c), [c.pid()]);
        c.delete_by_force().ok();
        leaves_nothing_else(&c);
    });
}

/// An exec would be frozen before its program, and wait for ever.
#[test]
fn moved_container_is_frozen_in_its_present_cgroup() {
    in_each_view(|view| {
        let c = moved(Container::new(view).sleeper(), true);
        if !only_aril(&c) {
            return;
        }
        let elsewhere = host::cgroups(&c.mark).into_iter().filter(|dir| dir.ends_with("elsewhere"));
        let elsewhere: Vec<PathBuf> = elsewhere.collect();
        let (file, value) = match view.is_v2() {
            true => ("cgroup.freeze", "1"),
            false => ("freezer.state", "FROZEN"),
        };
        let freezer = elsewhere.iter().find(|dir| dir.join(file).exists()).expect("a freezer");
        fs::write(freezer.join(file), value).expect("frozen");
        c.exec(["true"]).exits(255).says("cannot exec in a paused container");
        let thawed = if view.is_v2() { "0" } else { "THAWED" };
        fs::write(freezer.join(file), thawed).expect("thawed");
        c.exec(["true"]).ok();
        c.delete_by_force().ok();
        leaves_nothing_else(&c);
    });
}

#[test]
fn a_process_of_the_hosts_pid_namespace_that_has_left_is_killed() {
    in_each_view(|view| {
        for gone in [true, false] {
            let c = moved(with_the_hosts_pids(view), gone);
            if !only_aril(&c) {
                return;
            }
            assert_eq!(pids(&c), [c.pid()]);
            c.kill("KILL").ok();
            c.wait_for("stopped");
            c.delete().ok();
            leaves_nothing_else(&c);
        }
    });
}

/// Moving down, as init systems in containers do, is not leaving.
#[test]
fn below_its_own_cgroup() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        for dir in own(&c) {
            move_processes(&dir, &dir.join("init"));
        }
        c.verb("pause").ok();
        assert_eq!(c.status(), "paused");
        c.verb("resume").ok();
        c.exec(["true"]).ok();
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

/// The kernel refuses to list the processes of a threaded cgroup, and to kill it as a whole.
#[test]
fn its_own_cgroup_is_threaded() {
    in_each_view(|view| {
        if !view.is_v2() {
            return;
        }
        let domain = |spec: &mut Value| spec["linux"]["resources"] = json!({});
        for c in [Container::new(view).sleeper(), with_the_hosts_pids(view)] {
            let c = c.edit(domain);
            if !only_aril(&c) {
                return;
            }
            c.run_detached();
            if fs::write(c.cgroup("").join("cgroup.type"), "threaded").is_err() {
                // Where the parent gives controllers away that know no threads.
                continue;
            }
            c.exec(["true"]).ok();
            assert_eq!(pids(&c), [c.pid()]);
            c.verb("pause").ok();
            c.verb("resume").ok();
            c.delete_by_force().ok();
            c.leaves_nothing();
        }
    });
}
