//! The command lines.
use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser};
use node_contract::duration::parse_nanos;

/// `rqlited backup`.
#[derive(Debug, Parser)]
#[command(
    name = "rqlited backup",
    about = "Makes one backup of a running cluster: fetches it over HTTP, checks it (integrity_check), uploads it, and prints what was done as JSON. With -delete: deletes one.",
    after_help = "The configuration is that of -auto-backup; its interval is not used. A password comes from a file, never from an argument.\n\nExit codes: 0 done; 1 failed; 2 wrong command line."
)]
pub(super) struct BackupArgs {
    /// Configuration file that says where the backup goes.
    #[arg(long)]
    pub(super) config: PathBuf,
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    /// Delete the configured object, and what was written beside it, instead of making a backup. One that is
    /// not there is deleted already.
    #[arg(long, conflicts_with_all = ["urls", "vacuum", "no_compress", "timestamp", "scratch_dir"])]
    pub(super) delete: bool,
    /// With -delete: this object of the configured folder instead of the configured one.
    #[arg(long, requires = "delete", conflicts_with = "urls")]
    pub(super) object: Option<String>,
    /// Vacuum the copy.
    #[arg(long)]
    pub(super) vacuum: bool,
    /// Store the file as it is, not as gzip.
    #[arg(long)]
    pub(super) no_compress: bool,
    /// Put the time before the object's name.
    #[arg(long)]
    pub(super) timestamp: bool,
    /// Directory of the temporary copy, as large as the database. Defaults to that of the system.
    #[arg(long)]
    pub(super) scratch_dir: Option<PathBuf>,
    /// Also write the JSON to this file.
    #[arg(long)]
    pub(super) result_file: Option<PathBuf>,
}

/// Which cluster, and how to get in.
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// URL of a node, such as https://host:4001; may be given several times, and the first that serves is
    /// used.
    #[arg(long = "url", required_unless_present = "delete")]
    pub(super) urls: Vec<String>,
    /// User with the permission `backup`.
    #[arg(long, requires = "password_file")]
    pub(super) user: Option<String>,
    /// File with the user's password; a newline at its end is dropped.
    #[arg(long, requires = "user")]
    pub(super) password_file: Option<PathBuf>,
    /// PEM file of the authorities that may vouch for the nodes, instead of the system's.
    #[arg(long)]
    pub(super) ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate.
    #[arg(long, requires = "key_file")]
    pub(super) cert_file: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, requires = "cert_file")]
    pub(super) key_file: Option<PathBuf>,
    /// Longest time for the download; a Go duration.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(super) timeout: Duration,
}

/// `rqlited fetch`.
#[derive(Debug, Parser)]
#[command(
    name = "rqlited fetch",
    about = "Fetches a backup into a new file: unpacked, checked (integrity_check, SHA-256 if it is known), and never over anything.",
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong command line."
)]
pub(super) struct FetchArgs {
    /// Configuration file that says where the backup is.
    #[arg(long)]
    pub(super) config: PathBuf,
    /// The new file.
    #[arg(long)]
    pub(super) output: PathBuf,
    /// Fetch this object of the same folder instead of the configured one.
    #[arg(long, conflicts_with = "latest")]
    pub(super) object: Option<String>,
    /// Fetch the newest of the backups with a time before the configured name.
    #[arg(long)]
    pub(super) latest: bool,
    /// What the SHA-256 of the unpacked file must be.
    #[arg(long)]
    pub(super) sha256: Option<String>,
    /// Also write the JSON to this file.
    #[arg(long)]
    pub(super) result_file: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    match parse_nanos(text).map(u64::try_from) {
        Ok(Ok(nanos)) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err("expected a duration above zero, such as 10m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::inspect::{CommandOutput, parsed};

    fn backup(line: &str) -> Result<BackupArgs, CommandOutput> {
        parsed(
            "rqlited backup",
            line.split_whitespace().map(OsString::from),
        )
    }

    #[test]
    fn command_lines() {
        let args =
            backup("-config a.json -url http://a:4001 --url=http://b:4001 -timeout 5m").unwrap();
        assert_eq!(args.cluster.urls.len(), 2);
        assert_eq!(args.cluster.timeout, Duration::from_secs(300));
        for wrong in [
            "",
            "-config a.json",
            "-config a.json -url u -user x",
            "-config a.json -url u -timeout 5",
            "-config a.json -url u -password secret",
            "-config a.json -url u -delete",
            "-config a.json -url u -object x",
            "-delete",
        ] {
            assert_eq!(backup(wrong).unwrap_err().exit_code, 2, "{wrong}");
        }
        assert_eq!(backup("-h").unwrap_err().exit_code, 0);
    }
}
