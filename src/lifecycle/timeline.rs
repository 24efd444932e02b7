//! Durations of the stages of a start (`--timeline`).

use std::fmt;

use crate::sys::timeline::{SharedClock, now};

/// Stages of the runtime in order, with the steps of the container's process, which run at the same time.
#[derive(Debug, Default)]
pub struct Timeline {
    start: u64,
    stages: Vec<(&'static str, u64)>,
    steps: Vec<(String, u64)>,
    cloned: u64,
}

impl Timeline {
    /// Starts the measurement.
    pub fn start() -> Self {
        Self { start: now(), ..Self::default() }
    }

    /// Ends a stage.
    pub fn mark(&mut self, stage: &'static str) {
        crate::time::step(stage);
        self.stages.push((stage, now()));
    }

    /// Marks the start of the child.
    pub fn mark_clone(&mut self) {
        self.cloned = now();
        // runc's callers look for the first words.
        crate::time::step("nsexec container setup: clone the container's process");
        self.stages.push(("clone the container's process", self.cloned));
    }

    /// Logs the steps that the child has marked.
    pub fn tell_steps(&self, clock: &SharedClock, names: impl Iterator<Item = String>) {
        // Three lines have the words by which runc's callers recognize init's messages.
        crate::time::log_step("init: child process in init()", 0);
        let mut before = self.cloned;
        for (name, at) in names.enumerate().filter_map(|(n, name)| Some((name, clock.read(n)?))) {
            crate::time::log_step(format_args!("init: {name}"), at.saturating_sub(before));
            before = at;
        }
    }

    /// Adds the steps that the child has marked.
    pub fn add_steps(&mut self, clock: &SharedClock, names: impl Iterator<Item = String>) {
        self.steps.extend(names.enumerate().filter_map(|(n, name)| Some((name, clock.read(n)?))));
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  at ms   took us  runtime")?;
        self.column(f, self.start, self.stages.iter().map(|(name, at)| (*name, *at)))?;
        writeln!(f, "\n  at ms   took us  container's process")?;
        self.column(f, self.cloned, self.steps.iter().map(|(name, at)| (name.as_str(), *at)))
    }
}

impl Timeline {
    fn column<'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        begin: u64,
        rows: impl Iterator<Item = (&'a str, u64)>,
    ) -> fmt::Result {
        let mut before = begin;
        for (name, at) in rows {
            let since_start = at.saturating_sub(self.start) as f64 / 1e6;
            let took = at.saturating_sub(before) as f64 / 1e3;
            writeln!(f, "{since_start:7.3}  {took:8.1}  {name}")?;
            before = at;
        }
        Ok(())
    }
}
