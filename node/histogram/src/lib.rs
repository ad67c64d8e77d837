//! Histograms for openraft's own statistics: the part of the crate `base2histogram` that openraft uses.
//!
//! The published crate (0.2.3) builds lookup tables for all 16 of its resolutions when the first histogram is
//! made. They take 26 MiB, which was two thirds of an idle node's memory, and openraft uses one resolution of
//! 2 KiB. This crate computes a bucket's bounds instead. Remove it, and its line under `[patch.crates-io]`,
//! when openraft depends on a version that builds only the table it needs.
//!
//! Buckets: values below 4 have a bucket each; above, each power of two is divided into 4 buckets, so a
//! bucket is at most a quarter of its lower bound wide. They cover all of `u64`.
use std::{fmt, marker::PhantomData};

/// Buckets per power of two, as a number of bits.
const BITS: u32 = 2;
const PER_POWER: usize = 1 << BITS;
/// One group of exact values, and one for each power of two from the second bit to the last.
const BUCKETS: usize = PER_POWER * (u64::BITS - BITS + 1) as usize;
const PERCENTILES: [f64; 8] = [0.001, 0.01, 0.05, 0.10, 0.50, 0.90, 0.99, 0.999];

/// Counts of values by bucket. `T` is there because openraft names it; nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64]>,
    total: u64,
    metadata: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Without any value.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
            metadata: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if let Some(bucket) = self.counts.get_mut(bucket_of(value)) {
            *bucket = bucket.saturating_add(count);
            self.total = self.total.saturating_add(count);
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The middle of the bucket in which the share `p` (0 to 1) of all values is reached; 0 without values.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "statistics: a share of a count, rounded up"
    )]
    pub fn percentile(&self, p: f64) -> u64 {
        let rank = ((self.total as f64 * p).ceil() as u64).max(1);
        let mut below = 0_u64;
        for (index, count) in self.counts.iter().enumerate() {
            below = below.saturating_add(*count);
            if below >= rank {
                return middle_of(index);
            }
        }
        0
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let [p0_1, p1, p5, p10, p50, p90, p99, p99_9] =
            PERCENTILES.map(|share| self.percentile(share));
        PercentileStats {
            samples: self.total,
            p0_1,
            p1,
            p5,
            p10,
            p50,
            p90,
            p99,
            p99_9,
        }
    }
}

/// The bucket that counts `value`.
fn bucket_of(value: u64) -> usize {
    let Some(highest_bit) = value.checked_ilog2().filter(|bit| *bit >= BITS) else {
        return usize::try_from(value).unwrap_or(0);
    };
    let within = usize::try_from(value >> (highest_bit - BITS)).unwrap_or(0) % PER_POWER;
    (highest_bit - BITS + 1) as usize * PER_POWER + within
}

/// The smallest value of a bucket; `u64::MAX` behind the last one.
fn lowest_of(bucket: usize) -> u64 {
    let (group, within) = (bucket / PER_POWER, bucket % PER_POWER);
    if group == 0 {
        return within as u64;
    }
    if bucket >= BUCKETS {
        return u64::MAX;
    }
    ((PER_POWER + within) as u64) << (group - 1)
}

fn middle_of(bucket: usize) -> u64 {
    let lowest = lowest_of(bucket);
    lowest + (lowest_of(bucket + 1) - lowest) / 2
}

/// Percentiles of a histogram: the value that so many percent of all values do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// Number of samples.
    pub samples: u64,
    /// 0.1st percentile.
    pub p0_1: u64,
    /// 1st percentile.
    pub p1: u64,
    /// 5th percentile.
    pub p5: u64,
    /// 10th percentile.
    pub p10: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "n={} p50={} p90={} p99={} p99.9={}",
            self.samples, self.p50, self.p90, self.p99, self.p99_9
        )
    }
}

/// Several histograms for printing; one line of percentiles each.
#[derive(Clone, Debug)]
pub struct AsciiChart<T = ()>(Vec<(String, Histogram<T>)>);

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> AsciiChart<T> {
    /// Without any histogram.
    #[must_use]
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a histogram under a name.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }

    /// What prints the chart.
    #[must_use]
    pub fn detailed(&self) -> &Self {
        self
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0 {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_between_its_buckets_bounds() {
        let mut values: Vec<u64> = (0..5_000).collect();
        values.extend((0..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [
                power - 1,
                power,
                power + power / 3,
                power.saturating_mul(2) - 1,
            ]
        }));
        values.push(u64::MAX);
        for value in values {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKETS, "{value}: {bucket}");
            assert!(lowest_of(bucket) <= value, "{value}: {bucket}");
            assert!(
                value < lowest_of(bucket + 1) || value == u64::MAX,
                "{value}: {bucket}"
            );
        }
    }

    #[test]
    fn percentiles_are_within_a_quarter_of_the_truth() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0, "empty");
        (1..=1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1000);
        for (found, exact) in [(stats.p1, 10), (stats.p50, 500), (stats.p99, 990)] {
            assert!(found.abs_diff(exact) * 4 <= exact, "{found} for {exact}");
        }
    }
}
