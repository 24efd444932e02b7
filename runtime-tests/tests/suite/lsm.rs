//! AppArmor and SELinux: a label holds for what it was given to, and one that cannot hold is an error
//! and not a container without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runtime_tests::{Container, on_the_host, skip};

/// Profiles that the kernel has as long as this lives.
struct Profiles {
    parser: PathBuf,
    file: PathBuf,
}

impl Profiles {
    /// Of these names, which may do everything but read one file. None, with the reason, where there
    /// can be none.
    fn load(c: &Container, names: &[(&str, &str)]) -> Option<Self> {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y')) {
            skip::inapplicable("this kernel has no AppArmor");
            return None;
        }
        let parser = skip::tool("apparmor_parser", "apparmor")?;
        let profile = |(name, denied): &(&str, &str)| {
            format!(
                "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  \
                 capability,\n  signal,\n  unix,\n  network,\n  deny {denied} r,\n}}\n"
            )
        };
        let file = c.file("profiles", &names.iter().map(profile).collect::<String>());
        let profiles = Self { parser, file };
        profiles.run("-rK");
        Some(profiles)
    }

    fn run(&self, what: &str) {
        let mut call = Command::new(&self.parser);
        let status =
            call.arg(what).arg(&self.file).stdin(Stdio::null()).status().expect("a parser");
        assert!(status.success(), "apparmor_parser {what}: {status}");
    }
}

impl Drop for Profiles {
    fn drop(&mut self) {
        self.run("-R");
    }
}

const LOOK: &str = "cat /proc/self/attr/current; for f in passwd group; do \
                    cat /etc/$f >/dev/null 2>&1 && echo $f || echo no $f; done";

#[test]
fn apparmor_confines_the_first_program_and_an_exec() {
    on_the_host(|view| {
        let c = Container::new(view);
        let (first, second) = (format!("{}-first", c.mark), format!("{}-second", c.mark));
        let names = [(first.as_str(), "/etc/passwd"), (second.as_str(), "/etc/group")];
        let Some(_profiles) = Profiles::load(&c, &names) else { return };
        let of_first = format!("{first} (enforce)\nno passwd\ngroup\n");
        let of_second = format!("{second} (enforce)\npasswd\nno group\n");
        // Whether or not set-user-id programs may raise privileges.
        for locked in [true, false] {
            let c = Container::new(view).script(LOOK).edit(|spec| {
                spec["process"]["apparmorProfile"] = first.as_str().into();
                spec["process"]["noNewPrivileges"] = locked.into();
            });
            assert_eq!(c.run().ok().stdout, of_first);
            let c = c.sleeper();
            c.run_detached();
            assert_eq!(c.exec(["sh", "-c", LOOK]).ok().stdout, of_first, "its container's");
            let out = c.call(["exec", "--apparmor", &second, &c.id, "sh", "-c", LOOK]).ok();
            assert_eq!(out.stdout, of_second);
            let out = c.call(["exec", "--apparmor", "aril-test-none", &c.id, "true"]).output();
            assert!(out.code != Some(0), "{out:?}");
            out.says("apparmor");
        }
        // One that is not there is named, with what to do.
        let c = Container::new(view).script("echo ran").edit(|spec| {
            spec["process"]["apparmorProfile"] = "aril-test-none".into();
        });
        let out = c.run();
        assert!(out.code != Some(0) && !out.stdout.contains("ran"), "{out:?}");
        let out = out.says("apparmor failed to apply profile");
        if c.runtime.only_aril("its words") {
            out.says("apparmor profile aril-test-none").says("apparmor_parser -r");
        }
        c.leaves_nothing();
    });
}

#[test]
fn apparmor_where_there_is_none_is_refused() {
    on_the_host(|view| {
        if Path::new("/sys/kernel/security/apparmor").exists() {
            return skip::inapplicable("this kernel has AppArmor");
        }
        let c = Container::new(view).sleeper();
        c.run_detached();
        let out = c.call(["exec", "--apparmor", "any", &c.id, "true"]).output();
        assert!(out.code != Some(0), "{out:?}");
        if c.runtime.is_aril() {
            out.says("apparmor: config provided but apparmor not supported");
        }
    });
}

#[test]
fn selinux_where_there_is_none_is_refused() {
    on_the_host(|view| {
        if Path::new("/sys/fs/selinux/enforce").exists() {
            return skip::inapplicable("this kernel has SELinux");
        }
        let label = "system_u:system_r:container_t:s0:c1,c2";
        let c = Container::new(view).edit(|spec| {
            spec["process"]["selinuxLabel"] = label.into();
        });
        let said = "selinux label is specified in config, but selinux is disabled or not supported";
        let out = c.run();
        assert!(out.code != Some(0), "{out:?}");
        if c.runtime.is_aril() {
            out.says(said);
        }
        c.leaves_nothing();
        let c = Container::new(view).sleeper();
        c.run_detached();
        let out = c.call(["exec", "--process-label", label, &c.id, "true"]).output();
        assert!(out.code != Some(0), "{out:?}");
        if c.runtime.is_aril() {
            out.says(said);
        }
    });
}

/// Of the policy that is loaded, which has the type if it is any distribution's; else the reason is said.
fn selinux() -> Option<[&'static str; 2]> {
    let Ok(user_types) = fs::read_dir("/sys/fs/selinux/class").map(Iterator::count) else {
        skip::inapplicable("this kernel has no SELinux");
        return None;
    };
    let known = |label: &str| fs::write("/sys/fs/selinux/context", label).is_ok();
    let labels =
        ["system_u:system_r:container_t:s0:c1,c2", "system_u:system_r:container_t:s0:c3,c4"];
    if user_types == 0 || !labels.iter().all(|label| known(label)) {
        skip::inapplicable("the policy has no containers");
        return None;
    }
    Some(labels)
}

/// What the host sees as the label of a file.
fn label_of(path: &str) -> String {
    let out = Command::new("getfattr")
        .args(["--only-values", "-hn", "security.selinux", path])
        .output()
        .expect("getfattr: apt-get install attr");
    String::from_utf8_lossy(&out.stdout).trim_end_matches('\0').to_owned()
}

#[test]
fn selinux_labels_the_first_program_an_exec_keys_and_mounts() {
    on_the_host(|view| {
        let Some([first, second]) = selinux() else { return };
        let of_files = "system_u:object_r:container_file_t:s0:c1,c2";
        let labelled = |locked: bool| {
            Container::new(view).edit(|spec| {
                spec["process"]["selinuxLabel"] = first.into();
                spec["process"]["noNewPrivileges"] = locked.into();
                spec["linux"]["mountLabel"] = of_files.into();
            })
        };
        let look = "tr -d '\\0' < /proc/self/attr/current; echo; probe | grep ^keylabel";
        for locked in [true, false] {
            let c = labelled(locked).script(look);
            assert_eq!(c.run().ok().stdout, format!("{first}\nkeylabel {first}\n"));
            let c = labelled(locked).sleeper();
            c.run_detached();
            assert_eq!(
                c.exec(["sh", "-c", look]).ok().stdout,
                format!("{first}\nkeylabel {first}\n")
            );
            let out = c.call(["exec", "--process-label", second, &c.id, "sh", "-c", look]).ok();
            // It shares the keyring, which was there.
            assert_eq!(out.stdout, format!("{second}\nkeylabel {first}\n"));
            for mount in ["dev", "dev/shm", "dev/mqueue"] {
                let path = format!("/proc/{}/root/{mount}", c.pid());
                assert_eq!(label_of(&path), of_files, "{mount}");
            }
        }
        // One that the policy does not know.
        let c = Container::new(view).script("echo ran").edit(|spec| {
            spec["process"]["selinuxLabel"] = "system_u:system_r:no_such_t:s0".into();
        });
        let out = c.run();
        assert!(out.code != Some(0) && !out.stdout.contains("ran"), "{out:?}");
        if c.runtime.is_aril() {
            out.says("no_such_t").says("invalid argument");
        }
        c.leaves_nothing();
    });
}
