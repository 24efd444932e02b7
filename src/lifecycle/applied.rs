//! Effects of a create that were applied to the host, and the record that lists them.

use std::ffi::CString;
use std::fs::File;

use super::network::{self, Shared};
use super::rollback;
use super::timeline::Timeline;
use crate::cgroup;
use crate::error::{OsContext, Result};
use crate::hook;
use crate::init::parent::Init;
use crate::limits::rdt;
use crate::namespace::Kind;
use crate::namespace::plan::Plan as Namespaces;
use crate::network::address::Lease;
use crate::network::address::effect::claim;
use crate::network::device::Device;
use crate::network::device::effect::MovedDevices;
use crate::network::link::attach::attach;
use crate::network::names::Names;
use crate::network::names::effect as names;
use crate::network::pasta;
use crate::network::plan::Attachment;
use crate::path::c_path;
use crate::plan::effect::Effect;
use crate::rootfs::overlay;
use crate::state::{Record, Slot};
use crate::volume::{Claim, MountedVolume};

/// Applied effects, with the handles that later effects and the process need.
pub(super) struct Applied<'a> {
    /// Gets a message for each odd but accepted value.
    pub warn: &'a dyn Fn(&str),
    pub time: Timeline,
    /// State directory, with the container's lock.
    pub slot: Slot,
    pub record: Record,
    /// Cgroup; empty until it is created.
    pub cgroup: cgroup::parent::Created,
    /// Named volumes, locked until their content is complete.
    pub claims: Vec<Claim>,
    /// Sources of volumes that have content already.
    pub complete_volumes: Vec<CString>,
    /// Lease on a network of Aril.
    lease: Option<Lease>,
    /// Network namespace of another container, open until the process has joined it.
    shared: Option<Shared>,
    /// Network devices of the host that were moved into the container.
    moved: Option<MovedDevices>,
    /// resctrl groups; `None` until they are created.
    resctrl: Option<rdt::Group>,
}

impl<'a> Applied<'a> {
    /// Starts with the state directory. `record` lists the intended effects.
    pub(super) fn new(
        slot: Slot,
        record: Record,
        shared: Option<Shared>,
        time: Timeline,
        warn: &'a dyn Fn(&str),
    ) -> Self {
        Self {
            warn,
            time,
            slot,
            record,
            cgroup: cgroup::parent::Created::default(),
            claims: Vec::new(),
            complete_volumes: Vec::new(),
            lease: None,
            shared,
            moved: None,
            resctrl: None,
        }
    }

    /// Applies an effect that does not need the process.
    pub(super) fn apply(&mut self, effect: Effect<'_>) -> Result<()> {
        match effect {
            Effect::StateDirectory(_) => Ok(()),
            Effect::Lease(attachment) => {
                let lease = claim(attachment, &network::holder(&self.slot, &self.record))?;
                self.hold(Some(lease));
                Ok(())
            }
            Effect::SharedLease(_) => {
                let holder = network::holder(&self.slot, &self.record);
                let lease = self.shared.as_ref().map(|shared| shared.hold(&holder)).transpose()?;
                self.hold(lease.flatten());
                Ok(())
            }
            Effect::Names(names) => self.write_names(names),
            Effect::Volume(volume) => self.claim(volume),
            Effect::Upper(overlay) => {
                let warning = overlay::parent::prepare(overlay)?;
                warning.iter().for_each(|warning| (self.warn)(warning));
                Ok(())
            }
            Effect::NotifyDirectory(path) => std::fs::create_dir(path).os("mkdir", path.display()),
            Effect::Cgroup(plan) => self.create_cgroup(plan),
            Effect::Resctrl(plan) => {
                let _made = rdt::parent::prepare(plan)?;
                self.resctrl = self.record.intel_rdt.clone();
                self.time.mark("make the resctrl group");
                Ok(())
            }
            Effect::Pasta | Effect::Devices(_) | Effect::Link(_) => Ok(()),
        }
    }

    /// Applies an effect that needs the process.
    pub(super) fn apply_to(
        &mut self,
        effect: Effect<'_>,
        namespaces: &Namespaces,
        init: &Init,
    ) -> Result<()> {
        match effect {
            Effect::Pasta => {
                pasta::effect::start(self.slot.path(), init.pid)?;
                self.time.mark("connect the network");
                Ok(())
            }
            Effect::Devices(devices) => self.move_devices(devices, namespaces, init),
            Effect::Link(attachment) => self.attach(attachment, init),
            _ => Ok(()),
        }
    }

    fn hold(&mut self, lease: Option<Lease>) {
        self.record.network = lease.as_ref().map(Lease::reference);
        self.lease = lease;
    }

    fn write_names(&mut self, names: &Names) -> Result<()> {
        let holder = network::holder(&self.slot, &self.record);
        let warnings = names::write(names, self.slot.path(), self.lease.as_ref(), &holder)?;
        warnings.iter().for_each(|w| (self.warn)(w));
        Ok(())
    }

    fn claim(&mut self, volume: &MountedVolume) -> Result<()> {
        let claim = volume.claim(self.slot.path())?;
        if !claim.fill {
            self.complete_volumes.push(c_path("volume", &volume.source())?);
        }
        self.claims.push(claim);
        self.time.mark("take a volume");
        Ok(())
    }

    fn create_cgroup(&mut self, plan: &cgroup::Plan) -> Result<()> {
        self.cgroup = cgroup::parent::create(plan)?;
        self.cgroup.warnings.iter().for_each(|w| (self.warn)(w));
        if self.cgroup.paths.is_empty() && !self.record.private_pid_namespace {
            (self.warn)(
                "the container has no cgroup and no private pid namespace, so its processes cannot all be found and \
                 killed. Such configuration is strongly discouraged",
            );
        }
        self.record.cgroup_paths = self.cgroup.paths.clone();
        self.time.mark("make the cgroup");
        Ok(())
    }

    /// Moves network devices, before hooks that may set their routes.
    fn move_devices(
        &mut self,
        devices: &[Device],
        namespaces: &Namespaces,
        init: &Init,
    ) -> Result<()> {
        let path = match namespaces.joined(Kind::Net) {
            Some(path) => path.to_string_lossy().into_owned(),
            None => format!("/proc/{}/ns/net", init.pid),
        };
        let namespace = File::open(&path).os("open", &path)?;
        self.moved.insert(MovedDevices::into(namespace)).take(devices)?;
        self.time.mark("move network devices");
        Ok(())
    }

    fn attach(&mut self, attachment: &Attachment, init: &Init) -> Result<()> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let warnings = attach(lease, attachment.rate, init.pid.0, init.pidfd())?;
        warnings.iter().for_each(|w| (self.warn)(w));
        self.time.mark("attach to the network");
        Ok(())
    }

    /// Lets the devices stay in the container.
    pub(super) fn leave_devices(&mut self) {
        self.moved = None;
    }

    /// Undoes what was applied: effects that were only intended may belong to another container. The error of the create is
    /// the one to report; effects that cannot be undone are warnings.
    pub(super) fn undo(&mut self, hooks: &hook::Plan) {
        let moved = self.moved.take().map_or(Ok(()), |moved| moved.move_back());
        self.record.cgroup_paths = self.cgroup.paths.clone();
        self.record.systemd_cgroup = self.cgroup.has_unit();
        self.record.intel_rdt = self.resctrl.take();
        let killed = cgroup::stored::kill_all(&self.record.cgroup_paths);
        let undone = rollback::run(&self.slot, &self.record, hooks, self.warn);
        self.cgroup.remove_made();
        let errors = [moved, killed, undone].into_iter().filter_map(Result::err);
        errors.for_each(|e| (self.warn)(&format!("undo what create did: {e}")));
    }
}
