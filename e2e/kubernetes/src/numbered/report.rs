//! Computes the time without writes from acknowledgements: pure functions.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::Acknowledged;

/// Number of gaps that are listed individually.
const LISTED: usize = 5;

/// What a writer has seen in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rows acknowledged in the span.
    pub acknowledged: u64,
    /// Length of the span.
    pub span_ms: u64,
    /// Longest time without an acknowledgement that overlaps the span.
    pub longest_gap_ms: u64,
    /// Its begin, relative to the span's start; 0 if before.
    pub longest_gap_at_ms: u64,
    /// The 50th, 90th, 99th and 99.9th percentile of all gaps.
    pub percentiles_ms: [u64; 4],
    /// The longest gaps, longest first.
    pub longest_ms: Vec<u64>,
    /// Failed attempts by error text, since the writer started.
    pub failures: BTreeMap<String, u64>,
}

/// Per mille, for [`Report::percentiles_ms`].
const PERCENTILES: [usize; 4] = [500, 900, 990, 999];

/// Examines the span from `from_ms` to `to_ms` (Unix time); `entries` ascend in time. Gaps at both ends
/// count: one that began before the span counts in full, and the last one lasts until `to_ms`.
#[must_use]
pub fn report(entries: &[Acknowledged], from_ms: u64, to_ms: u64) -> Report {
    let first = entries.partition_point(|entry| entry.at_ms < from_ms);
    let after = entries.partition_point(|entry| entry.at_ms <= to_ms);
    let inside = &entries[first.min(after)..after];
    let before = first.checked_sub(1).and_then(|last| entries.get(last));
    let mut start = before.map_or(from_ms, |entry| entry.at_ms);
    let mut gaps: Vec<(u64, u64)> = Vec::with_capacity(inside.len() + 1);
    for at in inside.iter().map(|entry| entry.at_ms).chain([to_ms]) {
        gaps.push((at.saturating_sub(start), start));
        start = at;
    }
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let (longest_gap_ms, at) = gaps.first().copied().unwrap_or_default();
    let percentile = |per_mille: usize| {
        let rank = (gaps.len() - 1) * (1000 - per_mille) / 1000;
        gaps.get(rank).map_or(0, |gap| gap.0)
    };
    Report {
        acknowledged: inside.len() as u64,
        span_ms: to_ms.saturating_sub(from_ms),
        longest_gap_ms,
        longest_gap_at_ms: at.saturating_sub(from_ms),
        percentiles_ms: PERCENTILES.map(percentile),
        longest_ms: gaps.iter().take(LISTED).map(|gap| gap.0).collect(),
        failures: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(times: &[u64]) -> Vec<Acknowledged> {
        (1..)
            .zip(times)
            .map(|(number, &at_ms)| Acknowledged { number, at_ms })
            .collect()
    }

    /// `(times, from, to, acknowledged, longest gap, its begin)`.
    type Case = (&'static [u64], u64, u64, u64, u64, u64);

    #[test]
    fn gaps() {
        let cases: [Case; 8] = [
            (&[], 100, 150, 0, 50, 0),
            (&[110, 120, 145], 100, 150, 3, 25, 20),
            (&[110, 120], 100, 150, 2, 30, 20),
            // A gap that began before the span counts in full.
            (&[60, 110, 120], 100, 125, 2, 50, 0),
            (&[60, 90], 100, 125, 0, 35, 0),
            // Entries after the span do not count.
            (&[110, 400], 100, 150, 1, 40, 10),
            (&[100, 150], 100, 150, 2, 50, 0),
            (&[10], 100, 100, 0, 90, 0),
        ];
        for (times, from, to, acknowledged, gap, start) in cases {
            let report = report(&at(times), from, to);
            let seen = (
                report.acknowledged,
                report.longest_gap_ms,
                report.longest_gap_at_ms,
            );
            assert_eq!(seen, (acknowledged, gap, start), "{times:?} {from} {to}");
        }
    }

    #[test]
    fn percentiles_of_a_thousand_gaps() {
        let times: Vec<u64> = (0..1000).map(|n| 1000 + n * 10).collect();
        let seen = report(&at(&times), 1000, 11_990);
        assert_eq!(seen.longest_ms[..2], [1000, 10]);
        assert_eq!(seen.percentiles_ms, [10, 10, 10, 10]);
        assert_eq!(report(&[], 0, 7).percentiles_ms, [7; 4]);
    }
}
