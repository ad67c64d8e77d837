//! The benchmark's command line.
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regex::Regex;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: bench [--quick] [--seconds N] [--only REGEX] [--big] [--archive] [--strict]
       bench ceiling ADDR

  --seconds N   duration of each cell in seconds (default 3)
  --quick       1 second per cell, 2 failover rounds
  --only REGEX  measure only cells whose name matches, e.g. 'one/insert' or '/64$'
  --big         also measure the restart of a 1 GB database (needs 3 GB of disk and a minute)
  --archive     also measure the continuous archive of a 1 GB database (needs 8 GB of disk and some minutes;
                with --only '^archive/' nothing else); in an S3 server with ARCHIVE_STORE=s3; with
                LITESTREAM=PROGRAM also Litestream's bytes for the same rows
  --strict      exit with 1 if a target is missed
  ceiling ADDR  serve the parse-only ceiling on ADDR (the benchmark starts this itself)";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Print [`USAGE`].
    Help,
    /// Serve as the parse-only server on this address.
    Ceiling(String),
    /// Measure.
    Measure(Options),
}

/// Options of a measurement.
#[derive(Debug)]
pub struct Options {
    /// Duration of each cell.
    pub cell: Duration,
    /// How many times the leader is killed.
    pub failover_rounds: usize,
    /// Also restart a node with a 1 GB database.
    pub big: bool,
    /// Also measure the continuous archive.
    pub archive: bool,
    /// Exit with a failure if a target is missed.
    pub strict: bool,
    only: Option<Regex>,
}

impl Options {
    /// Whether `--only` selects the cell of this name.
    #[must_use]
    pub fn wants(&self, cell: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.is_match(cell))
    }
}

/// Parses the arguments.
///
/// # Errors
/// Names the argument that is wrong.
pub fn parse(args: &[String]) -> Result<Command> {
    let mut options = Options {
        cell: Duration::from_secs(3),
        failover_rounds: 5,
        big: false,
        archive: false,
        strict: false,
        only: None,
    };
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "-h" | "--help" => return Ok(Command::Help),
            "ceiling" => {
                return Ok(Command::Ceiling(
                    args.next().context("ceiling needs an address")?.to_owned(),
                ));
            }
            "--quick" => {
                options.cell = Duration::from_secs(1);
                options.failover_rounds = 2;
            }
            "--big" => options.big = true,
            "--archive" => options.archive = true,
            "--strict" => options.strict = true,
            "--seconds" => {
                let seconds: f64 = args
                    .next()
                    .context("--seconds needs a number")?
                    .parse()
                    .context("--seconds")?;
                options.cell = Duration::try_from_secs_f64(seconds).context("--seconds")?;
            }
            "--only" => {
                options.only = Some(Regex::new(args.next().context("--only needs a pattern")?)?)
            }
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    Ok(Command::Measure(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(line: &str) -> Options {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&args).unwrap() {
            Command::Measure(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_set_what_they_say() {
        assert_eq!(measure("").cell, Duration::from_secs(3));
        assert_eq!(measure("--quick").cell, Duration::from_secs(1));
        assert_eq!(
            measure("--quick --seconds 0.5").cell,
            Duration::from_millis(500)
        );
        assert!(measure("--only one/insert").wants("one/insert/64"));
        assert!(!measure("--only one/insert").wants("three/insert/64"));
        assert!(measure("--big").big);
        assert!(measure("--archive").archive && !measure("--big").archive);
    }

    #[test]
    fn mistakes_are_named() {
        for line in [
            "--fast",
            "--seconds",
            "--seconds x",
            "--seconds -1",
            "--only (",
            "ceiling",
        ] {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert!(parse(&args).is_err(), "{line}");
        }
    }
}
