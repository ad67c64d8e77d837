//! The results of the scenarios, as a table for the terminal and as `e2e/RESULTS.md`.
use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::NOTHING};
use e2e_kubernetes::writer;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

/// Maximum length of a failure's reason in the table; the full text is printed when it happens.
const REASON_CHARS: usize = 160;

/// Measurements of a scenario that passed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measurements {
    /// Longest time without an acknowledged write, in milliseconds.
    pub(crate) gap_ms: Option<u64>,
    /// Acknowledged writes.
    pub(crate) acknowledged: Option<u64>,
    /// Acknowledged writes that are missing.
    pub(crate) lost: Option<u64>,
    /// Further figures, as text.
    pub(crate) note: String,
}

impl Measurements {
    /// Measurements of a writer over its whole life.
    pub(crate) fn of(ended: &writer::WriterResult) -> Self {
        Self {
            gap_ms: Some(ended.report.longest_gap_ms),
            acknowledged: Some(ended.check.acknowledged),
            lost: Some(ended.check.lost),
            note: String::new(),
        }
    }

    /// Sets the note.
    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Result of a scenario.
#[derive(Debug)]
pub(crate) enum ScenarioResult {
    Passed(Measurements),
    Failed(String),
    /// Covered by another test, which is named; not run here.
    Elsewhere(&'static str),
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) number: &'static str,
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    pub(crate) result: ScenarioResult,
}

impl Row {
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.result, ScenarioResult::Failed(_))
    }

    fn cells(&self) -> [String; 7] {
        let figure = |n: Option<u64>| n.map_or("–".to_owned(), |n| n.to_string());
        let (result, gap, lost, acknowledged, note) = match &self.result {
            ScenarioResult::Passed(outcome) => (
                "pass",
                outcome.gap_ms.map_or("–".to_owned(), milliseconds),
                figure(outcome.lost),
                figure(outcome.acknowledged),
                outcome.note.clone(),
            ),
            ScenarioResult::Failed(why) => {
                let first: String = why.chars().take(REASON_CHARS).collect();
                let none = || "–".to_owned();
                (
                    "**fail**",
                    none(),
                    none(),
                    none(),
                    first.replace(['\n', '|'], " "),
                )
            }
            ScenarioResult::Elsewhere(reference) => {
                let none = || "–".to_owned();
                ("elsewhere", none(), none(), none(), (*reference).to_owned())
            }
        };
        let took = match self.result {
            ScenarioResult::Elsewhere(_) => "–".to_owned(),
            ScenarioResult::Passed(_) | ScenarioResult::Failed(_) => {
                format!("{:.0} s", self.took.as_secs_f64())
            }
        };
        [
            self.name.to_owned(),
            result.to_owned(),
            took,
            gap,
            lost,
            acknowledged,
            note,
        ]
    }

    /// One line for the terminal.
    pub(crate) fn line(&self) -> String {
        let [name, result, took, gap, lost, acknowledged, note] = self.cells();
        format!(
            "{:>4}  {name:<68} {result:<9} {took:>6} {gap:>9} {lost:>5} of {acknowledged:<7} {note}",
            self.number
        )
    }

    fn markdown(&self, date: &str) -> String {
        let [name, result, took, gap, lost, acknowledged, note] = self.cells();
        format!(
            "| {} | {name} | {result} | {took} | {gap} | {lost} | {acknowledged} | {date} | {note} |",
            self.number
        )
    }
}

fn milliseconds(ms: u64) -> String {
    if ms < 10_000 {
        format!("{ms} ms")
    } else {
        format!("{:.1} s", ms as f64 / 1000.0)
    }
}

/// The whole table for the terminal.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "",
        "scenario",
        "result",
        "time",
        "gap",
        "lost",
        "acknowledged",
        "note",
    ]);
    for row in rows {
        let number = std::iter::once(row.number.to_owned());
        table.add_row(number.chain(row.cells()));
    }
    format!("\n{}\n", table.trim_fmt())
}

fn file() -> PathBuf {
    e2e_operator::root().join("e2e/RESULTS.md")
}

/// Writes a row to `e2e/RESULTS.md`, sorted by `order`. Other rows keep their figures and their date.
pub(crate) fn write(row: &Row, order: impl Iterator<Item = &'static str>) -> Result<()> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let path = file();
    let before = fs::read_to_string(&path).unwrap_or_default();
    let date = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let number_of = |line: &str| -> Option<String> {
        let number = line.strip_prefix("| ")?.split(" |").next()?;
        Some(number.to_owned())
    };
    let mut lines: BTreeMap<String, String> = before
        .lines()
        .filter_map(|line| Some((number_of(line)?, line.to_owned())))
        .collect();
    lines.insert(row.number.to_owned(), row.markdown(&date));
    let mut text = HEAD.to_owned();
    for line in order.filter_map(|number| lines.get(number)) {
        writeln!(text, "{line}")?;
    }
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

const HEAD: &str = "# Results of the operator's scenarios

Written by `WRITE_RESULTS=1 SCENARIOS=all just scenarios`: a real Kubernetes on one machine (`e2e/kubernetes`, three
nodes, two cores shared by everything), the operator installed with `helm install`, and in each scenario a writer in the
cluster that keeps inserting numbered rows through the clients' Service. A row passes if, besides its own checks, no
acknowledged row was lost, all nodes' databases became equal, the members are exactly the pods, and the condition `Ready`
became true again. Delays that are minutes in production (`memberReplacement.after`, `quorumRecovery.detectAfter`,
`update.progressDeadline`) are seconds here.

The longest gap is measured by clients: the longest time in which no write of any of four concurrent writers was
acknowledged, including all time-outs and retries of the clients and of kube-proxy. Where a scenario takes the quorum
away on purpose, the gap is the length of the outage. “elsewhere”: not run by this command; the last column names the
test that covers it. “not run”: never observed to pass or fail. With `E2E_SCOPED=1` the operator is restricted to the
scenarios' own namespaces. Numbers are those of the operator's list of failure scenarios; letters are figures and
additional cases.

| # | scenario | result | time | longest gap | lost | acknowledged | date | note |
|---|---|---|---|---|---|---|---|---|
";
