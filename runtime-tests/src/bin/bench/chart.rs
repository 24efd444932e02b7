//! Bar chart: one panel per operation and pace. The bar is the median, the whisker ends at p99. Colours follow the
//! reader's light or dark scheme.

use std::fmt::Write;

use crate::report::{Report, Row, pace};

const WIDTH: f64 = 760.0;
const LABEL: f64 = 110.0;
const FIGURES: f64 = 150.0;
const BAR: f64 = 16.0;
const PITCH: f64 = 24.0;
const HEAD: f64 = 44.0;

const STYLE: &str = "<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.axis, .whisker { stroke: #8c959f }
.floor { fill: #8c959f } .aril { fill: #1a7f37 } .peer { fill: #7a9ccf }
@media (prefers-color-scheme: dark) {
  text { fill: #d1d7e0 }
  .axis, .whisker { stroke: #656c76 }
  .floor { fill: #656c76 } .aril { fill: #3fb950 } .peer { fill: #4f78b0 }
}
</style>
";

/// The report as one SVG document.
pub fn svg(report: &Report) -> String {
    let groups: Vec<_> = report
        .groups()
        .into_iter()
        .filter(|group| report.group(group.0, group.1).len() > 1)
        .collect();
    let mut body = String::new();
    let mut y = 8.0;
    for (operation, rest) in groups {
        let rows = report.group(operation, rest);
        let title = format!("{}, {}", operation.title(), pace(rest));
        panel(&mut body, y, &title, &rows);
        y += HEAD + PITCH * rows.len() as f64;
    }
    let height = y + 8.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Time per command, in milliseconds\">\n{STYLE}{body}</svg>\n"
    )
}

fn panel(body: &mut String, top: f64, title: &str, rows: &[&Row]) {
    let most = rows.iter().map(|row| row.summary.p99).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABEL - FIGURES) / most;
    let _ = writeln!(body, "<text class=\"head\" x=\"8\" y=\"{}\">{title}</text>", top + 20.0);
    for (index, row) in rows.iter().enumerate() {
        bar(body, top + 32.0 + PITCH * index as f64, scale, row);
    }
    let bottom = top + 32.0 + PITCH * rows.len() as f64;
    let _ = writeln!(
        body,
        "<line class=\"axis\" x1=\"{LABEL}\" y1=\"{}\" x2=\"{LABEL}\" y2=\"{bottom}\"/>",
        top + 28.0
    );
}

fn bar(body: &mut String, y: f64, scale: f64, row: &Row) {
    let class = match row.contender.as_str() {
        "floor" | "aril" => row.contender.as_str(),
        _ => "peer",
    };
    let (median, p99) = (row.summary.median, row.summary.p99);
    let (end, tip, middle) = (LABEL + median * scale, LABEL + p99 * scale, y + BAR / 2.0);
    let _ = writeln!(
        body,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{LABEL}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\"/>\
         <path class=\"whisker\" d=\"M{end:.1} {middle}H{tip:.1}m0 -4v8\" fill=\"none\"/>\
         <text x=\"{:.1}\" y=\"{}\">{median:.2} ms (p99 {p99:.2})</text>",
        LABEL - 8.0,
        y + 13.0,
        escape(&row.contender),
        end - LABEL,
        tip + 8.0,
        y + 13.0,
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
