//! An unprivileged user with a delegated part of the cgroup tree.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::{Container, host, skip};

#[derive(Debug, Clone)]
pub struct User {
    pub uid: u32,
    /// Cgroup that calls run in. `None`: that of the test.
    pub cgroup: Option<PathBuf>,
}

impl User {
    /// Name of the callers' cgroup, beside the container's.
    pub const CALLER: &'static str = "caller";

    /// A user that owns the cgroup2 directory around the container's cgroup, with every controller delegated.
    #[track_caller]
    pub fn delegated(container: &Container) -> Self {
        const NOBODY: u32 = 65_534;
        let root = unified_root().expect("a cgroup2 hierarchy");
        let top = root.join(&container.mark);
        let caller = top.join(Self::CALLER);
        fs::create_dir_all(&caller).expect("a cgroup");
        for dir in [&root, &top] {
            let all = fs::read_to_string(dir.join("cgroup.controllers")).expect("controllers");
            for controller in all.split_whitespace() {
                let line = format!("+{controller}");
                fs::write(dir.join("cgroup.subtree_control"), line).expect("a controller");
            }
        }
        for dir in [&top, &caller] {
            for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                chown(dir.join(name), Some(NOBODY), Some(NOBODY)).expect("chown");
            }
        }
        Self { uid: NOBODY, cgroup: Some(caller) }
    }

    /// A user with a running systemd user manager, or a skip. Calls run in a cgroup of that manager, or, with
    /// `outside`, in that of the test.
    pub fn of_systemd(outside: bool) -> Option<Self> {
        let users = fs::read_dir("/run/user").into_iter().flatten().flatten();
        let running = users.filter(|entry| entry.path().join("systemd/private").exists());
        let mut uids = running.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let Some(uid) = uids.find(|uid| *uid != 0) else {
            skip::inapplicable("no user of this host has a running systemd user manager");
            return None;
        };
        let manager = format!("user.slice/user-{uid}.slice/user@{uid}.service/init.scope");
        let cgroup = unified_root()?.join(manager);
        Some(Self { uid, cgroup: (!outside).then_some(cgroup) })
    }

    pub fn runtime_dir(&self) -> PathBuf {
        Path::new("/run/user").join(self.uid.to_string())
    }
}

fn unified_root() -> Option<PathBuf> {
    host::hierarchies().into_iter().find(|root| root.join("cgroup.controllers").exists())
}
