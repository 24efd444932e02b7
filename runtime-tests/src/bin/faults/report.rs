//! Results: a line for each fault, and a table by verb.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::attempt::{Ending, Outcome};

/// Numbers of a verb, for all its shapes.
#[derive(Debug, Default)]
struct Row {
    calls: usize,
    points: usize,
    missed: usize,
    at_once: usize,
    after: BTreeMap<&'static str, usize>,
    never: usize,
    tolerated: usize,
    faults: usize,
}

#[derive(Debug, Default)]
pub struct Table {
    order: Vec<&'static str>,
    rows: BTreeMap<&'static str, Row>,
    /// Calls whose failure a command ignored, and how often.
    tolerated: BTreeMap<String, usize>,
}

impl Table {
    fn row(&mut self, verb: &'static str) -> &mut Row {
        if !self.order.contains(&verb) {
            self.order.push(verb);
        }
        self.rows.entry(verb).or_default()
    }

    pub fn counted(&mut self, verb: &'static str, calls: usize) {
        let row = self.row(verb);
        row.calls = row.calls.max(calls);
    }

    pub fn add(&mut self, verb: &'static str, outcome: &Outcome) {
        if outcome.tolerated
            && let Some((call, object)) = &outcome.reached
        {
            *self.tolerated.entry(format!("{verb}: {call} {object}")).or_default() += 1;
        }
        let row = self.row(verb);
        row.points += 1;
        row.missed += usize::from(outcome.reached.is_none());
        row.tolerated += usize::from(outcome.tolerated);
        row.faults += usize::from(!outcome.faults.is_empty());
        match outcome.ending {
            Ending::AtOnce => row.at_once += 1,
            Ending::After(command) => *row.after.entry(command).or_default() += 1,
            Ending::Never => row.never += 1,
        }
    }

    pub fn faults(&self) -> usize {
        self.rows.values().map(|row| row.faults).sum()
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = "| verb | calls | points | clean at once | \
                        after `delete --force` | after `reconcile` | after another | left | faults |\n\
                        |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for verb in &self.order {
            let row = &self.rows[verb];
            let after = |part: &str| -> usize {
                row.after
                    .iter()
                    .filter(|(command, _)| command.starts_with(part))
                    .map(|(_, n)| n)
                    .sum()
            };
            let (delete, reconcile) = (after("delete"), after("reconcile"));
            let other = row.after.values().sum::<usize>() - delete - reconcile;
            let _ = writeln!(
                text,
                "| {verb} | {} | {} | {} | {delete} | {reconcile} | {other} | {} | {} |",
                row.calls, row.points, row.at_once, row.never, row.faults
            );
        }
        text
    }

    /// Calls whose failure was ignored, and points that no run came to.
    pub fn remarks(&self) -> String {
        let mut text = String::new();
        let missed: usize = self.rows.values().map(|row| row.missed).sum();
        let _ = writeln!(text, "points that a run did not come to: {missed}");
        for (call, count) in &self.tolerated {
            let _ = writeln!(text, "ignored {count}: {call}");
        }
        text
    }
}
