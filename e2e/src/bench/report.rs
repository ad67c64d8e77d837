//! The measured figures: printed as they arrive and written as JSON.
use serde_json::{Value, json};

use crate::bench::load::Load;

/// One figure.
#[derive(Clone, Debug)]
pub struct Cell {
    /// `system/what/connections`.
    pub name: String,
    /// Value in `unit`.
    pub value: f64,
    /// `req/s`, `MiB`, `ms`, …
    pub unit: &'static str,
    /// Median and 99th percentile latency in milliseconds, if measured.
    pub latency: Option<(f64, f64)>,
    /// Replies with a status other than 200 or with an error.
    pub errors: usize,
    /// Remark for the reader.
    pub note: String,
}

impl Cell {
    /// A figure without a latency.
    #[must_use]
    pub fn rate(name: &str, unit: &'static str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit,
            latency: None,
            errors: 0,
            note: String::new(),
        }
    }

    /// The result of a load.
    #[must_use]
    pub fn load(name: &str, load: &Load) -> Self {
        let millis = |share| f64::from(load.percentile(share)) / 1e3;
        Self {
            name: name.to_owned(),
            value: load.rate(),
            unit: "req/s",
            latency: Some((millis(0.5), millis(0.99))),
            errors: load.errors,
            note: load.sample_error.clone().unwrap_or_default(),
        }
    }

    /// Sets the remark.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        note.clone_into(&mut self.note);
        self
    }
}

/// A target and its result.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetResult {
    /// Description of the target.
    pub what: String,
    /// The bound.
    pub wanted: f64,
    /// Whether the bound is a minimum (otherwise a maximum).
    pub at_least: bool,
    /// Measured value; `None` if its cells were not measured.
    pub measured: Option<f64>,
    /// Whether the bound was met; `None` if its cells were not measured.
    pub met: Option<bool>,
}

/// All figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    cells: Vec<Cell>,
}

impl Report {
    /// Adds a figure and prints it.
    pub fn add(&mut self, cell: Cell) {
        println!("{}", render(&cell));
        self.cells.push(cell);
    }

    /// The figure with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.name == name)
    }
}

fn render(cell: &Cell) -> String {
    let mut line = format!(
        "{:<38} {:>10.*} {:<9}",
        cell.name,
        usize::from(cell.value < 1000.0),
        cell.value,
        cell.unit
    );
    if let Some((p50, p99)) = cell.latency {
        line.push_str(&format!(" p50 {p50:>7.2} ms  p99 {p99:>7.2} ms"));
    }
    if cell.errors > 0 {
        line.push_str(&format!("  {} ERRORS", cell.errors));
    }
    if !cell.note.is_empty() {
        line.push_str(&format!(
            "  {}",
            cell.note.lines().last().unwrap_or_default()
        ));
    }
    line.trim_end().to_owned()
}

/// The targets as a table.
#[must_use]
pub fn render_targets(results: &[TargetResult]) -> String {
    let mut table = format!("\n{:<58} {:>12} {:>12}\n", "target", "wanted", "measured");
    for target in results {
        let measured = target.measured.map_or_else(|| "-".to_owned(), figure);
        let met = target
            .met
            .map_or("", |met| if met { "ok" } else { "MISSED" });
        let sign = if target.at_least { ">=" } else { "<=" };
        let wanted = format!("{sign} {}", figure(target.wanted));
        table.push_str(&format!(
            "{:<58} {wanted:>12} {measured:>12}  {met}\n",
            target.what
        ));
    }
    table
}

fn figure(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// The whole report as JSON, to compare runs by program.
#[must_use]
pub fn to_json(report: &Report, results: &[TargetResult]) -> String {
    let cells: Vec<Value> = report
        .cells
        .iter()
        .map(|cell| {
            json!({
                "name": cell.name, "value": cell.value, "unit": cell.unit,
                "p50_ms": cell.latency.map(|latency| latency.0), "p99_ms": cell.latency.map(|latency| latency.1),
                "errors": cell.errors, "note": cell.note,
            })
        })
        .collect();
    let targets: Vec<Value> = results
        .iter()
        .map(|target| {
            json!({"what": target.what, "wanted": target.wanted, "at_least": target.at_least,
                   "measured": target.measured, "met": target.met})
        })
        .collect();
    format!("{:#}\n", json!({"cells": cells, "targets": targets}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::targets;

    #[test]
    fn a_line_shows_value_latency_and_errors() {
        let mut cell = Cell::load(
            "one/insert/64",
            &Load {
                replies: 10,
                errors: 1,
                seconds: 1.0,
                ..Load::default()
            },
        );
        cell.note = "head\nboom".to_owned();
        let line = render(&cell);
        assert!(
            line.starts_with("one/insert/64 ")
                && line.contains(" 10.0 req/s ")
                && line.ends_with("1 ERRORS  boom"),
            "{line}"
        );
    }

    #[test]
    fn json_holds_cells_and_targets() {
        let mut report = Report::default();
        report.add(Cell::rate("one/insert/1", "req/s", 2000.0));
        let text = to_json(&report, &targets::evaluate(&report));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["cells"][0]["name"], "one/insert/1");
        assert!(
            value["targets"]
                .as_array()
                .unwrap()
                .iter()
                .any(|target| target["met"] == true)
        );
    }
}
