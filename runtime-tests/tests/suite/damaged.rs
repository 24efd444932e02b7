//! Files of the state directory that are damaged: by a full disk, by lost power, by hand. Each verb says
//! so, and `delete --force` removes the container or says what it leaves; it never forgets one.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use runtime_tests::container::wait_until;
use runtime_tests::{Container, Runtime, host, in_each_view, on_the_host};

const WAYS: [&str; 8] =
    ["empty", "cut", "garbage", "null", "newer", "a directory", "a fifo", "missing"];

fn damage(file: &Path, how: &str) {
    let text = fs::read(file).expect("a file");
    fs::remove_file(file).expect("unlink");
    let newer = || String::from_utf8_lossy(&text).replacen("_version\":", "_version\":99", 1);
    match how {
        "empty" => fs::write(file, ""),
        "cut" => fs::write(file, &text[..text.len().min(200)]),
        "garbage" => fs::write(file, [0, 255, b'{', b'"', 128].repeat(99)),
        "null" => fs::write(file, "null"),
        "newer" => fs::write(file, newer()),
        "a directory" => fs::create_dir(file),
        "a fifo" => nix::unistd::mkfifo(file, Mode::S_IRWXU).map_err(Into::into),
        _ => Ok(()),
    }
    .expect(how);
}

fn only_aril() -> bool {
    Runtime::under_test().only_aril("the files are its own")
}

#[test]
fn delete_by_force_removes_all() {
    if !only_aril() {
        return;
    }
    in_each_view(|view| {
        for file in ["state.json", "intent.json", "config.json"] {
            for how in WAYS {
                let c = Container::new(view).sleeper();
                c.run_detached();
                let pid = c.pid();
                damage(&c.root.join(&c.id).join(file), how);
                c.delete_by_force().ok();
                assert!(host::is_gone(pid), "{file} is {how}");
                c.leaves_nothing();
            }
        }
    });
}

#[test]
fn verbs_say_what_is_damaged_and_harm_nothing() {
    if !only_aril() {
        return;
    }
    on_the_host(|view| {
        for how in WAYS.into_iter().filter(|how| *how != "missing") {
            let c = Container::new(view).sleeper();
            c.run_detached();
            let pid = c.pid();
            let file = c.root.join(&c.id).join("state.json");
            damage(&file, how);
            for verb in ["state", "delete", "pause", "start", "kill"] {
                let out = c.verb(verb).exits(1);
                let out = out.says(&file.display().to_string()).says(&c.id);
                out.says("hint: ");
            }
            c.exec(["true"]).exits(255).says(&file.display().to_string());
            let list = c.call(["list"]).ok();
            assert!(list.stderr.contains(&file.display().to_string()), "{list:#?}");
            c.call(["reconcile"]).ok();
            assert!(!host::is_gone(pid), "{how}: it is not harmed");
            c.delete_by_force().ok();
            c.leaves_nothing();
        }
    });
}

/// What create intended is damaged too: nothing is removed while something is there.
#[test]
fn without_any_record_nothing_is_forgotten() {
    if !only_aril() {
        return;
    }
    in_each_view(|view| {
        let mut c = Container::new(view).sleeper();
        // Without a record, cgroups are found by the container's ID: those of another run must not pass for its own.
        c.id = format!("id-{}", c.mark);
        let spec = c.spec.take();
        c.take_spec(spec);
        c.run_detached();
        let pid = c.pid();
        for file in ["state.json", "intent.json"] {
            damage(&c.root.join(&c.id).join(file), "empty");
        }
        let out = c.delete_by_force().exits(1).says("nothing of it was removed");
        out.says("state.json is damaged").says(&c.id).says("hint: these cgroups may be its: /sys");
        assert!(!host::is_gone(pid));
        assert!(c.root.join(&c.id).is_dir());
        // As the advice says.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)
            .expect("kill");
        wait_until("its death", || host::is_gone(pid));
        for cgroup in host::cgroups(&c.mark).iter().filter(|path| path.ends_with(&c.id)) {
            wait_until("an empty cgroup", || fs::remove_dir(cgroup).is_ok() || !cgroup.exists());
        }
        c.delete_by_force().ok();
        c.leaves_nothing();
    });
}
