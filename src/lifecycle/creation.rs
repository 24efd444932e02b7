//! A container that is being created. If the create fails, its effects on the host are undone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use super::applied::Applied;
use super::create::Outcome;
use super::handover::{Released, Sockets};
use super::intent::intent;
use super::prepare::{ContainerRequest, Prepared};
use super::timeline::Timeline;
use super::{end, rollback};
use crate::console::parent::PidfdOwner;
use crate::error::{Kind, OsContext, Result};
use crate::fs::record;
use crate::id::ContainerId;
use crate::init::parent::Init;
use crate::plan::effect::Stage;
use crate::seccomp::report::Refusals;
use crate::state::{ExitFile, Store};
use crate::sys::pidfd::Ended;
use crate::sys::timeline::SharedClock;

/// A container that is being created. If it is dropped before `keep`, its effects are undone.
pub(super) struct Creation<'a> {
    pub prepared: Prepared,
    pub host: Applied<'a>,
    pub sockets: Sockets,
    /// Memory in which the child marks its steps, for the timeline and debug messages.
    pub clock: Option<SharedClock>,
    /// Report of the seccomp profile, if it was requested.
    pub refusals: Option<Rc<RefCell<Refusals>>>,
    /// Descriptors of the caller that a detached container closes.
    pub released: Option<Released>,
    /// File in which the end is recorded.
    pub exit: Option<ExitFile>,
    /// Complete record that is not committed yet.
    pub written: Option<record::Prepared>,
    wants_timeline: bool,
    undo: bool,
}

impl<'a> Creation<'a> {
    /// Creates the state directory, writes the intent, and applies the effects that do not need the process.
    pub(super) fn begin(
        store: &Store,
        request: &ContainerRequest,
        mut prepared: Prepared,
        time: Timeline,
        warn: &'a dyn Fn(&str),
    ) -> Result<Self> {
        let script = &prepared.plan.script;
        script.note_filter();
        prepared.warnings().for_each(|w| warn(w));
        let sockets = request.handover.connect(script.console.as_ref())?;
        let clock = (request.timeline || crate::time::has_log())
            .then(|| SharedClock::new(script.steps.len()));
        let clock = clock.transpose().os("mmap", "")?;
        let record = intent(request, &prepared)?;
        let refusals = prepared.refusals.take().map(|refusals| Rc::new(RefCell::new(refusals)));
        let shared = prepared.settled.shared.take();
        let slot = store.create(&request.id)?;
        let mut creation = Self {
            prepared,
            host: Applied::new(slot, record, shared, time, warn),
            sockets,
            clock,
            refusals,
            released: None,
            exit: None,
            written: None,
            wants_timeline: request.timeline,
            undo: true,
        };
        creation.apply(Stage::Intent)?;
        creation.host.slot.write_intent(&creation.host.record)?;
        creation.host.time.mark("write down the intent");
        // Other creates find the ids in the record.
        creation.prepared.settled.ids = None;
        creation.apply(Stage::Host)?;
        Ok(creation)
    }

    fn apply(&mut self, stage: Stage) -> Result<()> {
        let mut effects = self.prepared.plan.effects().filter(|effect| effect.stage() == stage);
        effects.try_for_each(|effect| self.host.apply(effect))
    }

    /// Commits the record, and reports the container to the caller.
    pub(super) fn announce(&mut self, init: &Init, request: &ContainerRequest) -> Result<()> {
        if let Some(record) = self.written.take() {
            record.commit()?;
        }
        request.handover.deliver(&self.sockets, PidfdOwner::Init, init)?;
        self.host.time.mark("tell of the process");
        Ok(())
    }

    /// Keeps the container: nothing is undone on drop.
    pub(super) fn keep(mut self, code: u8) -> Outcome {
        self.undo = false;
        let mut time = std::mem::take(&mut self.host.time);
        let clock = self.clock.take().filter(|_| self.wants_timeline);
        let timeline = clock.map(|clock| {
            let steps = &self.prepared.plan.script.steps;
            time.add_steps(&clock, steps.iter().map(ToString::to_string));
            time
        });
        let refusals = self.refusals.as_ref().map(|refusals| refusals.borrow().to_string());
        Outcome { code, timeline, refusals, monitored: None }
    }

    /// Records the end of the container and releases its network, unless it has been deleted. Other verbs may have written
    /// the record.
    pub(super) fn record_end(
        &mut self,
        id: &ContainerId,
        ended: Ended,
        started: SystemTime,
    ) -> Result<()> {
        let Applied { slot, record, .. } = &mut self.host;
        if let Some(file) = &self.exit {
            file.record(&end::exit(ended, started, Some(record)))?;
        }
        match slot.relock(id) {
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            other => other?,
        }
        slot.read()?.map_or(Ok(()), |record| end::disconnect(slot, record))
    }

    /// Deletes the container at the end of a foreground run. Another process may have deleted it before.
    pub(super) fn delete(&mut self, id: &ContainerId) -> Result<()> {
        self.undo = false;
        let Applied { slot, record, warn, .. } = &mut self.host;
        match slot.relock(id) {
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            other => other.and_then(|()| rollback::after_end(slot, record, warn)),
        }
    }
}

impl Drop for Creation<'_> {
    /// Undoes the effects. Drop of `Init` has killed and reaped the process.
    fn drop(&mut self) {
        if self.undo {
            self.host.undo(&self.prepared.plan.script.hooks);
        }
    }
}
