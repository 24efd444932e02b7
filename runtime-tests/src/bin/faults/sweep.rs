//! Chooses points, and runs each.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use runtime_tests::{Runtime, View, view};

use crate::attempt::Bench;
use crate::calls;
use crate::neighbour::Neighbour;
use crate::options::Options;
use crate::point::{Fault, Point};
use crate::report::Table;
use crate::shape::Shape;
use crate::trace::Report;
use crate::verbs::{VERBS, Verb};

/// A process is held at one of so many calls: each costs time.
const HOLD_EVERY: usize = 8;

/// Shortest time for a scenario of a random choice: preparing one takes a part of it.
const SHARE: Duration = Duration::from_secs(4);

/// Numbers that look random (xorshift64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// A verb with a shape of container, in a view of the cgroup tree.
type Scenario = (&'static Verb, Shape, View);

fn view_name(view: View) -> &'static str {
    if view == View::Unified { "v2" } else { "host" }
}

fn scenarios(options: &Options) -> Vec<Scenario> {
    let views: &[View] =
        if view::host_is_v2() { &[View::Host] } else { &[View::Host, View::Unified] };
    let mut all = Vec::new();
    for view in views {
        for verb in VERBS {
            let shapes = verb.shapes.iter().map(|shape| (verb, *shape, *view));
            all.extend(shapes.filter(|(verb, shape, view)| {
                let possible = verb.name != "update" || view.controls("memory");
                possible && options.wants(verb.name, shape.name(), view_name(*view))
            }));
        }
    }
    all
}

/// Runs every point, or some at random for the time that the options give.
pub fn all(options: &Options) -> Result<ExitCode> {
    println!("seed {}, {}", options.seed, Runtime::under_test().version);
    let mut random = Random::new(options.seed);
    let mut table = Table::default();
    let mut scenarios = scenarios(options);
    anyhow::ensure!(!scenarios.is_empty(), "no verb of that name");
    if let Some(limit) = options.limit {
        for index in (1..scenarios.len()).rev() {
            scenarios.swap(index, random.below(index + 1));
        }
        let few = limit.as_secs() / SHARE.as_secs();
        scenarios.truncate((few as usize).max(1));
        // One neighbour for each view.
        scenarios.sort_by_key(|(_, _, view)| view.is_v2());
    }
    let root = Path::new("/run/faults");
    let mut neighbour = None::<(View, Neighbour)>;
    let start = Instant::now();
    for (number, (verb, shape, view)) in scenarios.iter().enumerate() {
        let share = options
            .limit
            .map(|limit| limit.saturating_sub(start.elapsed()) / (scenarios.len() - number) as u32);
        if neighbour.as_ref().is_none_or(|(of, _)| of != view) {
            if let Some((_, old)) = neighbour.take() {
                old.end();
            }
            neighbour = Some((*view, Neighbour::start(*view, root)?));
        }
        let (_, beside) = neighbour.as_ref().context("a neighbour")?;
        let name = format!("{}:{}:{}", verb.name, shape.name(), view_name(*view));
        let mut bench =
            Bench::new(verb, *shape, *view, root, beside).with_context(|| name.clone())?;
        let end = share.map(|share| Instant::now() + share);
        one(&mut bench, &name, options, &mut random, end, &mut table)
            .with_context(|| name.clone())?;
        bench.end();
    }
    if let Some((_, old)) = neighbour {
        old.end();
    }
    print!("{}{}", table.markdown(), table.remarks());
    if let Some(file) = &options.table {
        std::fs::write(file, table.markdown()).with_context(|| file.clone())?;
    }
    Ok(if table.faults() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(
    bench: &mut Bench,
    name: &str,
    options: &Options,
    random: &mut Random,
    end: Option<Instant>,
    table: &mut Table,
) -> Result<()> {
    let report = bench.count()?;
    let mut points = options.point.map_or_else(|| points(&report), |point| vec![point]);
    if end.is_some() {
        for index in (1..points.len()).rev() {
            points.swap(index, random.below(index + 1));
        }
    }
    println!("{name}: {} calls, {} points", report.calls.len(), points.len());
    table.counted(bench.verb.name, report.calls.len());
    for (number, point) in points.into_iter().enumerate() {
        if end.is_some_and(|end| Instant::now() > end) {
            break;
        }
        let outcome = bench.attempt(point, number % 2 == 1).with_context(|| point.to_string())?;
        table.add(bench.verb.name, &outcome);
        let (call, object) = outcome.reached.clone().unwrap_or_default();
        if options.verbose {
            println!("  {point} {call} {object}: {:?}", outcome.ending);
        }
        for fault in &outcome.faults {
            println!("FAULT {name} {point} ({call} {object}) {fault}");
        }
    }
    Ok(())
}

/// Every fault at every call.
fn points(report: &Report) -> Vec<Point> {
    let mut points = Vec::new();
    for (index, (process, call, name, object)) in report.calls.iter().enumerate() {
        let (process, call) = (*process, *call);
        let errors = calls::named(name).map_or(&[][..], |kind| kind.errors_of(object));
        let mut faults = vec![Fault::Kill, Fault::KillAfter, Fault::KillAll];
        faults.extend(errors.iter().map(|errno| Fault::Fail(*errno)));
        if index % HOLD_EVERY == 0 {
            faults.push(Fault::Hold);
        }
        points.extend(faults.into_iter().map(|fault| Point { process, call, fault }));
    }
    points
}
