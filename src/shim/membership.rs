//! Enters a pod's namespaces, for the anchor or for the shim itself, and returns the shim and its commands to their
//! own namespaces.
//!
//! containerd's interface for Kubernetes names a pod's namespaces by the pid that the sandbox reports
//! (`/proc/PID/ns/net`), so the process with that pid must be in them; open descriptors would not be found.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;

use super::pod::Pod;
use crate::error::{Error, OsContext, Result};
use crate::fs::Proc;
use crate::namespace::plan::Plan;
use crate::namespace::{Step, child};
use crate::sys::namespace::{setns, unshare};
use crate::sys::open::open;

/// Namespaces of the host that the shim has left. Its commands start in them.
#[derive(Default)]
pub struct HostNamespaces(Vec<OwnedFd>);

impl HostNamespaces {
    /// Returns the namespaces.
    pub fn namespaces(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }

    /// Enters the namespaces of a pod. After a failure the shim is in its own namespaces again.
    ///
    /// # Errors
    ///
    /// A namespace cannot be created or entered.
    pub fn enter_pod(&mut self, pod: &Pod) -> Result<()> {
        let plan = pod.plan(None)?;
        let own = [c"/proc/self/ns/net", c"/proc/self/ns/ipc", c"/proc/self/ns/uts"];
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let own = own.map(|path| open(path, flags).os("open", path.to_string_lossy()));
        self.0 = own.into_iter().collect::<Result<_>>()?;
        enter(&plan).inspect_err(|_| self.return_to_host())
    }

    /// Returns to the own namespaces, which is always permitted because the shim was in all of them.
    pub fn return_to_host(&mut self) {
        for namespace in self.0.drain(..) {
            let _ = setns(namespace.as_fd(), 0);
        }
    }
}

/// Executes the whole plan in this process.
///
/// # Errors
///
/// A namespace cannot be created or entered.
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
