//! What the subcommands of `rqlited archive` share: where the archive is, how entries are replayed, what they
//! print.
use std::path::PathBuf;

use clap::Args;
use node_archive::{moment::Moment, plan::Target};
use node_objects::{Config, Use};

use crate::restore::{
    run::Wish,
    source::{Refusal, Source, read_keys},
};

/// Where the archive is.
#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// JSON file that says where the archive is, as for -archive.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Key file of an encrypted archive, as for -archive-key-file.
    #[arg(long, alias = "archive-key-file", value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Id of the timeline, where the archive has several.
    #[arg(long, value_name = "ID")]
    pub(super) lineage: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Place {
    /// What is wrong with these words of the command line.
    pub(super) fn misuse(&self) -> Option<Refusal> {
        let missing = "-config is missing: the JSON file that says where the archive is";
        self.config.is_none().then(|| missing.into())
    }

    pub(super) fn open(&self) -> Result<Source, Refusal> {
        let Some(path) = &self.config else {
            return Err(self.misuse().unwrap_or_default());
        };
        type Rest = serde_json::Map<String, serde_json::Value>;
        let config = Config::<Rest>::read(path, Use::Prefix).map_err(|e| e.to_string())?;
        let keys = read_keys(self.key_file.as_deref())?;
        let store = config.target.open().map_err(|e| e.to_string())?;
        Ok(Source::new(store, keys))
    }
}

/// How entries are replayed.
#[derive(Clone, Debug, Args)]
pub(super) struct ReplayArgs {
    /// Replay entries although another version of SQLite applied them.
    #[arg(long)]
    pub(super) allow_other_sqlite: bool,
    /// The cluster enforced foreign keys (its nodes had -fk). Only for archives that do not say it: a replay
    /// does by itself what the archive says.
    #[arg(long)]
    pub(super) fk: bool,
}

impl ReplayArgs {
    pub(super) fn wish(&self, place: &Place, target: Target) -> Wish {
        Wish {
            lineage: place.lineage.clone(),
            target,
            allow_other_sqlite: self.allow_other_sqlite,
            foreign_keys: self.fk,
            insists_on_foreign_keys: self.fk,
        }
    }
}

/// Reads a time that a person wrote.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    Moment::parse(text)
}

/// What a subcommand found out about the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is wrong with it.
    Sound,
    /// Something is wrong with it.
    Unsound,
    /// Something else failed first, so it is not known.
    Unknown,
}

/// The output of a subcommand that did its work.
pub(super) struct Done {
    pub(super) verdict: Verdict,
    pub(super) text: String,
}

impl Done {
    pub(super) fn fine(text: String) -> Self {
        Self {
            verdict: Verdict::Sound,
            text,
        }
    }
}

/// JSON for people: these types always serialize.
pub(super) fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
