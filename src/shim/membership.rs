//! Being in a pod's namespaces: how the one that stands for a pod gets there, and, where that is the shim
//! itself, how it and its commands get home.
//!
//! containerd's interface for Kubernetes names a pod's namespaces by the pid that the sandbox reports
//! (`/proc/PID/ns/net`). So whoever has that pid has to be in them; a descriptor would not be found.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;

use super::pod::Pod;
use crate::error::{Error, OsContext, Result};
use crate::fs::Proc;
use crate::namespace::plan::Plan;
use crate::namespace::{Step, child};
use crate::sys::namespace::{setns, unshare};
use crate::sys::open::open;

/// The namespaces of the host's that the shim has left. Its commands begin there.
#[derive(Default)]
pub struct Home(Vec<OwnedFd>);

impl Home {
    pub fn namespaces(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }

    /// Leaves for those of a pod; after a failure it is where it was.
    pub fn leave_for(&mut self, pod: &Pod) -> Result<()> {
        let plan = pod.plan(None)?;
        let own = [c"/proc/self/ns/net", c"/proc/self/ns/ipc", c"/proc/self/ns/uts"];
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let own = own.map(|path| open(path, flags).os("open", path.to_string_lossy()));
        self.0 = own.into_iter().collect::<Result<_>>()?;
        enter(&plan).inspect_err(|_| self.come_back())
    }

    /// Where all of them were, that is always allowed.
    pub fn come_back(&mut self) {
        for namespace in self.0.drain(..) {
            let _ = setns(namespace.as_fd(), 0);
        }
    }
}

/// All that is planned, in this process.
pub fn enter(plan: &Plan) -> Result<()> {
    let proc = Proc::of_the_host()?;
    let joins = plan.joined_before_clone.iter().cloned().map(Step::Join);
    let run = |step: &Step| {
        child::run(step, &proc).map_err(|fault| Error::os(fault.call, step, fault.errno))
    };
    joins.chain(plan.enter.iter().cloned()).try_for_each(|step| run(&step))?;
    unshare(plan.clone_flags as i32).os("unshare", "namespaces of the pod")?;
    plan.names.iter().chain(&plan.sysctls).try_for_each(run)
}
