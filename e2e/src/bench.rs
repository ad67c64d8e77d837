//! The benchmark: HTTP load on one node and on three, with the machine's ceilings measured in the same run.
//!
//! Only ratios within one run are comparable, because machines, disks and days differ. The load generator is
//! one thread over raw sockets, because it shares two cores with the nodes under test.
//!
//! Reading order: [`options`] → [`quiet`] → [`cells`] → [`load`] → [`ceiling`] → [`disk`] → [`faults`] →
//! [`tls`] → [`mod@archive`] → [`targets`] → [`report`].
use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

pub mod archive;
pub mod ceiling;
pub mod cells;
pub mod disk;
pub mod faults;
mod litestream;
pub mod load;
pub mod memory;
pub mod node;
pub mod options;
pub mod quiet;
pub mod report;
pub mod requests;
mod stream;
pub mod targets;
pub mod tls;

use options::{Command, Options};
use report::{Cell, Report};

/// Runs the benchmark with the command line `args`, without the program's name.
///
/// # Errors
/// If an argument is wrong or a measured process fails.
pub fn run(args: &[String]) -> Result<ExitCode> {
    match options::parse(args)? {
        Command::Help => {
            println!("{}", options::USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Ceiling(addr) => ceiling::serve(&addr).map(|()| ExitCode::SUCCESS),
        Command::Measure(options) => measure(&options),
    }
}

fn measure(options: &Options) -> Result<ExitCode> {
    let base = target_dir()?;
    let work = tempfile::Builder::new()
        .prefix("bench-data-")
        .tempdir_in(&base)
        .context("create the data directory")?;
    let mut report = Report::default();
    report.add(Cell::rate(
        "machine/busy-before",
        "%",
        quiet::busy_share()? * 100.0,
    ));
    cells::measure_ceilings(options, work.path(), &mut report)?;
    cells::measure_one_node(options, work.path(), &mut report)?;
    cells::measure_three_nodes(options, work.path(), &mut report)?;
    tls::measure(options, work.path(), &mut report)?;
    if options.big {
        faults::measure_big_restart(options, work.path(), &mut report)?;
    }
    if options.archive {
        archive::measure(options, work.path(), &mut report)?;
    }
    let results = targets::evaluate(&report);
    println!("{}", report::render_targets(&results));
    let path = base.join("bench.json");
    std::fs::write(&path, report::to_json(&report, &results))
        .with_context(|| format!("write {}", path.display()))?;
    println!("report written to {}", path.display());
    let missed = results.iter().any(|target| target.met == Some(false));
    Ok(if missed && options.strict {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The workspace's target directory, because it is on a real disk; the system's temporary directory may be a
/// tmpfs.
fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("own path")?;
    // target/<profile>/bench, or target/<profile>/deps/<test> for the tests.
    let found = own
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists() || dir.ends_with("target"));
    Ok(found
        .context("not run from a target directory")?
        .to_path_buf())
}
