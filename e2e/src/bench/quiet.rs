//! How busy the machine is before the measurement: figures taken beside other work are not reliable.
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// How long to observe.
const WATCH: Duration = Duration::from_secs(1);
/// Share of busy processor time above which a warning is printed.
const LIMIT: f64 = 0.15;

/// Share (0 to 1) of all processors' time used by other processes now; prints a warning above `LIMIT`.
///
/// # Errors
/// If `/proc/stat` cannot be read.
pub fn busy_share() -> Result<f64> {
    let before = times()?;
    wait::sleep(WATCH);
    let after = times()?;
    let share = share(before, after);
    if share > LIMIT {
        println!(
            "WARNING: {:.0} % of the processors are busy with other work; do not trust these figures",
            share * 100.0
        );
    }
    Ok(share)
}

fn times() -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    parse(&stat).context("/proc/stat has no cpu line")
}

/// Idle and total ticks of all processors.
fn parse(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .filter_map(|tick| tick.parse().ok())
        .collect();
    // idle and iowait. Guest time (from the ninth field on) is already part of user time.
    let idle = fields.get(3)? + fields.get(4)?;
    Some((idle, fields.iter().take(8).sum()))
}

#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn share(before: (u64, u64), after: (u64, u64)) -> f64 {
    let (idle, total) = (
        after.0.saturating_sub(before.0),
        after.1.saturating_sub(before.1),
    );
    if total == 0 {
        0.0
    } else {
        1.0 - idle as f64 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_ticks() {
        assert_eq!(
            parse("cpu  10 0 5 80 5 0 0 0 3 3\ncpu0 1\n"),
            Some((85, 100))
        );
        assert!(parse("nothing").is_none());
        assert!((share((85, 100), (135, 200)) - 0.5).abs() < 1e-9);
        assert!(share((1, 1), (1, 1)).abs() < 1e-9);
    }
}
