//! Settings that the user can change during a session, and the names of their values.

use std::io::{self, Write};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// A framed table.
    #[default]
    Column,
    /// Comma-separated values with a header.
    Csv,
    /// An array of objects.
    Json,
    /// One `name = value` line per column.
    Line,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Column, Mode::Csv, Mode::Json, Mode::Line];

    /// The mode's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Mode::Column => "column",
            Mode::Csv => "csv",
            Mode::Json => "json",
            Mode::Line => "line",
        }
    }

    /// Reads a mode's name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| format!("invalid mode '{text}'. Use 'column', 'csv', 'json', or 'line'"))
    }
}

/// Read consistency of `.tables`, `.indexes` and `.schema`; plain statements leave it to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Consistency {
    /// The local data of the node.
    None,
    /// Data of the node that believes itself leader.
    #[default]
    Weak,
    /// Confirmed by a quorum.
    Linearizable,
    /// Through the log.
    Strong,
}

impl Consistency {
    const ALL: [Consistency; 4] = [
        Consistency::None,
        Consistency::Weak,
        Consistency::Linearizable,
        Consistency::Strong,
    ];

    /// The level's name, also in URLs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Consistency::None => "none",
            Consistency::Weak => "weak",
            Consistency::Linearizable => "linearizable",
            Consistency::Strong => "strong",
        }
    }

    /// Reads a level's name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Consistency::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| {
                format!(
                    "invalid consistency '{text}'. Use 'none', 'weak', 'linearizable', or 'strong'"
                )
            })
    }
}

/// The settings that are on or off; all start off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Show BLOBs as arrays of numbers.
    BlobArray,
    /// Show the last insert ID after writes.
    Changes,
    /// Send statements to the write endpoint.
    ForceWrites,
    /// Show execution times.
    Timer,
}

/// The current values.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) consistency: Consistency,
    pub(crate) blob_array: bool,
    pub(crate) changes: bool,
    pub(crate) force_writes: bool,
    pub(crate) timer: bool,
    /// Name of the file that query output is written to.
    pub(crate) output: Option<String>,
}

impl Settings {
    /// The storage of a switch.
    pub(crate) fn switch(&mut self, switch: Switch) -> &mut bool {
        match switch {
            Switch::BlobArray => &mut self.blob_array,
            Switch::Changes => &mut self.changes,
            Switch::ForceWrites => &mut self.force_writes,
            Switch::Timer => &mut self.timer,
        }
    }

    /// All values, a line each.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let values = [
            ("blobarray", on_off(self.blob_array)),
            ("changes", on_off(self.changes)),
            ("consistency", self.consistency.as_str()),
            ("forcewrites", on_off(self.force_writes)),
            ("mode", self.mode.as_str()),
            ("output", self.output.as_deref().unwrap_or("stdout")),
            ("timer", on_off(self.timer)),
        ];
        values
            .iter()
            .try_for_each(|(name, value)| writeln!(out, "  {name}: {value}"))
    }
}

/// Spelling of a switch.
pub(crate) fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

/// Reads a switch.
pub(crate) fn parse_on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!(
            "invalid option '{text}'. Use 'on' or 'off' (default)"
        )),
    }
}
