//! pause, resume, update, kill and delete of containers and cgroups in states that nobody planned.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use runtime_tests::container::wait_until;
use runtime_tests::{Container, View, host, in_each_view};
use serde_json::json;

fn running(view: View) -> Container {
    let c = Container::new(view).sleeper();
    c.run_detached();
    c
}

/// The cgroup's directory in which processes are listed.
fn place(c: &Container) -> PathBuf {
    if c.view.is_v2() { c.cgroup("") } else { c.cgroup("devices") }
}

fn update(c: &Container) -> runtime_tests::Call {
    match c.view.controls("pids") {
        true => c.call(["update", "--pids-limit", "77", &c.id]),
        false => c.call(["update", &c.id]),
    }
}

#[test]
fn pause_and_resume() {
    in_each_view(|view| {
        let c = running(view);
        c.verb("resume").exits(1).says("container not paused");
        c.verb("pause").silent();
        assert_eq!(c.status(), "paused");
        c.verb("pause").exits(1).says("container not running");
        c.verb("resume").silent();
        assert_eq!(c.status(), "running");
        c.kill("KILL").ok();
        c.wait_for("stopped");
        c.verb("pause").exits(1).says("container not running");
        c.verb("resume").exits(1).says("container not paused");
    });
}

#[test]
fn a_created_container_can_be_paused() {
    in_each_view(|view| {
        let c = Container::new(view);
        c.create();
        c.verb("pause").silent();
        c.verb("start").exits(1);
        c.verb("resume").silent();
        c.start();
        c.wait_for("stopped");
    });
}

#[test]
fn a_frozen_container() {
    in_each_view(|view| {
        let c = running(view);
        c.verb("pause").ok();
        update(&c).ok();
        assert_eq!(c.status(), "paused", "update leaves it so");
        c.exec(["true"]).exits(255).says("cannot exec in a paused container");
        c.kill("TERM").ok();
        c.kill("KILL").ok();
        c.wait_for("stopped");
        c.delete().ok();
        c.leaves_nothing();
        let c = running(view);
        c.verb("pause").ok();
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

/// Somebody has removed the cgroup of a container that has ended.
#[test]
fn a_cgroup_that_is_gone() {
    in_each_view(|view| {
        let c = running(view);
        c.kill("KILL").ok();
        c.wait_for("stopped");
        for dir in host::cgroups(&c.mark) {
            fs::remove_dir(dir).expect("an empty cgroup");
        }
        for verb in ["pause", "resume"] {
            c.verb(verb).exits(1);
        }
        update(&c).output().exits(1).says("container not running");
        c.kill("KILL").exits(1).says("container not running");
        c.call(["events", "--stats", &c.id]).output().exits(1).says("is not running");
        c.delete().ok();
        c.leaves_nothing();
    });
}

struct Stranger(Child);

impl Stranger {
    /// A process of the host's, in the container's cgroups.
    fn in_cgroups_of(c: &Container) -> Self {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep");
        let own: Vec<PathBuf> =
            host::cgroups(&c.mark).into_iter().filter(|dir| dir.ends_with(&c.id)).collect();
        assert!(!own.is_empty());
        for dir in own {
            fs::write(dir.join("cgroup.procs"), child.id().to_string()).expect("a member");
        }
        Self(child)
    }

    fn lives(&self) -> bool {
        !host::is_gone(self.0.id().cast_signed())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It is frozen and thawed with the rest, and when the container goes, it must not hold that up.
#[test]
fn a_stranger_in_the_cgroup() {
    in_each_view(|view| {
        let c = running(view);
        if !c.runtime.only_aril("runc 1.1.5 gives up") {
            return;
        }
        let stranger = Stranger::in_cgroups_of(&c);
        c.verb("pause").ok();
        c.verb("resume").ok();
        c.kill("KILL").ok();
        c.wait_for("stopped");
        // It is nobody's of the container: a plain delete says that it is in the way.
        assert!(stranger.lives(), "kill is for the container alone");
        let out = c.delete().exits(1);
        assert!(out.stderr.contains("busy") && out.stderr.contains(&c.id), "{out:#?}");
        assert!(stranger.lives());
        assert_eq!(c.status(), "stopped", "it is still there, to be deleted");
        c.delete_by_force().ok();
        wait_until("the stranger's end", || !stranger.lives());
        c.leaves_nothing();
    });
}

#[test]
fn cgroups_of_the_containers_own_making() {
    in_each_view(|view| {
        if !view.is_v2() {
            return;
        }
        let c = running(view);
        let (deep, threads) = (c.cgroup("").join("a/b/c"), c.cgroup("").join("threads"));
        fs::create_dir_all(&deep).expect("cgroups");
        fs::create_dir_all(&threads).expect("a cgroup");
        fs::write(threads.join("cgroup.type"), "threaded").expect("a threaded cgroup");
        c.verb("pause").ok();
        update(&c).ok();
        c.verb("resume").ok();
        c.call(["ps", "-f", "json", &c.id]).ok();
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

#[test]
fn a_parent_for_threads() {
    in_each_view(|view| {
        if !view.is_v2() {
            return;
        }
        let c = Container::new(view);
        let parent = c.cgroup("").parent().expect("a parent").join("threads");
        fs::create_dir_all(&parent).expect("a cgroup");
        fs::write(parent.join("cgroup.type"), "threaded").expect("a threaded cgroup");
        let path = format!("/{}/threads/{}", c.mark, c.id);
        let c = c.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let out = c.run().exits(1);
        if c.runtime.is_aril() {
            assert!(out.stderr.contains("threaded"), "{out:#?}");
        }
        assert!(!parent.join(&c.id).exists() || !c.runtime.is_aril());
        host::scrub(&c.mark);
    });
}

/// What a create that was killed right after its mkdir leaves.
#[test]
fn an_empty_cgroup_is_taken_over() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        let root = if view.is_v2() { c.cgroup("") } else { c.cgroup("pids") };
        fs::create_dir_all(&root).expect("a cgroup");
        c.run_detached();
        assert!(!fs::read_to_string(place(&c).join("cgroup.procs")).expect("a cgroup").is_empty());
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}

/// Who was ever killed by `cgroup.kill` where the runtime is can still make containers: the kernel
/// kills whoever is cloned from such a cgroup into another.
#[test]
fn a_runtime_whose_own_cgroup_was_killed_once() {
    in_each_view(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("others move their processes") {
            return;
        }
        let roots = host::hierarchies();
        let Some(root) = roots.iter().find(|root| root.join("cgroup.controllers").exists()) else {
            return;
        };
        let own = root.join(&c.mark).join("caller");
        fs::create_dir_all(&own).expect("a cgroup");
        if !own.join("cgroup.kill").exists() {
            return;
        }
        fs::write(own.join("cgroup.kill"), "1").expect("killed");
        let c = c.called_from(&own);
        c.run_detached();
        assert_eq!(c.status(), "running");
        c.exec(["true"]).ok();
        c.delete_by_force().ok();
        wait_until("the caller's end", || fs::remove_dir(&own).is_ok());
        c.leaves_nothing();
    });
}
