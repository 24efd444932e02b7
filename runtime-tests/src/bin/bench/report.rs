//! Report of the measurements, as a table, as JSON and as a chart.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::chart;
use crate::command;
use crate::contender::{Contender, Kind};
use crate::options::{Operation, Options};
use crate::statistics::Summary;
use crate::workload::Setup;

pub struct Row {
    pub operation: Operation,
    pub rest: Duration,
    pub contender: String,
    pub summary: Summary,
}

pub struct Report {
    pub rows: Vec<Row>,
    sizes: BTreeMap<String, u64>,
    /// Peak resident memory of one `run`, in KiB.
    memory: BTreeMap<String, u64>,
    rounds: (usize, usize),
}

impl Report {
    pub fn new(contenders: &[Contender], options: &Options) -> Report {
        let sizes =
            contenders.iter().map(|contender| (contender.name.clone(), contender.size())).collect();
        let rounds = (options.iterations, options.rested);
        Report { rows: Vec::new(), sizes, memory: BTreeMap::new(), rounds }
    }

    pub fn add(
        &mut self,
        operation: Operation,
        rest: Duration,
        contender: &str,
        series: &[Duration],
    ) {
        if let Some(summary) = Summary::of(series) {
            self.rows.push(Row { operation, rest, contender: contender.to_owned(), summary });
        }
    }

    pub fn measure_memory(&mut self, contenders: &[Contender], setup: &Setup) -> Result<()> {
        for contender in contenders.iter().filter(|contender| contender.kind == Kind::Runtime) {
            let args = setup.run(contender, "bench-memory", &setup.bundle);
            let peak = command::peak_memory(&contender.path, &args)?;
            self.memory.insert(contender.name.clone(), peak);
        }
        Ok(())
    }

    /// Rows of one operation and rest.
    pub fn group(&self, operation: Operation, rest: Duration) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.operation == operation && row.rest == rest).collect()
    }

    /// Operations and rests, in the order measured.
    pub fn groups(&self) -> Vec<(Operation, Duration)> {
        let mut groups = Vec::new();
        for row in &self.rows {
            if !groups.contains(&(row.operation, row.rest)) {
                groups.push((row.operation, row.rest));
            }
        }
        groups
    }

    /// Table in Markdown, also readable as plain text.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (operation, rest) in self.groups() {
            let group = self.group(operation, rest);
            let _ = writeln!(text, "\n**{}**, {}\n", operation.title(), pace(rest));
            let against: Vec<&&Row> = group.iter().filter(|_| group.len() > 1).collect();
            let heads: String =
                against.iter().map(|row| format!(" / {} |", row.contender)).collect();
            let _ = writeln!(text, "| ms | median | p99 | min |{heads}");
            let _ = writeln!(text, "|---|---:|---:|---:|{}", "---:|".repeat(against.len()));
            for row in &group {
                let Summary { median, p99, min } = row.summary;
                let ratio = |other: &&&Row| format!(" {:.2} |", median / other.summary.median);
                let ratios: String = against.iter().map(ratio).collect();
                let _ = writeln!(
                    text,
                    "| {} | {median:.2} | {p99:.2} | {min:.2} |{ratios}",
                    row.contender
                );
            }
        }
        let _ = writeln!(text, "\n| | binary, bytes | peak memory of run, KiB |\n|---|---:|---:|");
        for (contender, size) in &self.sizes {
            let memory = self.memory.get(contender).map(u64::to_string).unwrap_or_default();
            let _ = writeln!(text, "| {contender} | {size} | {memory} |");
        }
        text
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let Summary { median, p99, min } = row.summary;
            json!({
                "operation": row.operation.name(),
                "restMs": row.rest.as_millis() as u64,
                "contender": row.contender,
                "medianMs": median, "p99Ms": p99, "minMs": min,
            })
        };
        json!({
            "iterations": self.rounds.0,
            "restedIterations": self.rounds.1,
            "kernel": kernel_release(),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "binaryBytes": self.sizes,
            "runPeakKiB": self.memory,
        })
    }

    /// Writes bench.json, bench.md and bench.svg into `directory`.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let files = [
            ("bench.json", serde_json::to_string_pretty(&self.json())? + "\n"),
            ("bench.md", self.table()),
            ("bench.svg", chart::svg(self)),
        ];
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        for (name, content) in files {
            let path = directory.join(name);
            fs::write(&path, content).with_context(|| path.display().to_string())?;
            println!("written: {}", path.display());
        }
        Ok(())
    }
}

pub fn pace(rest: Duration) -> String {
    match rest.as_millis() {
        0 => "in a tight loop".to_owned(),
        ms => format!("after {ms} ms of rest"),
    }
}

fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}
