//! Counters of the node with the names that `/debug/vars` shows, and durations of client requests.
//!
//! Every counter exists from the start with 0. All modules share one [`Metrics`]; counting is one relaxed
//! atomic addition.
use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

mod names;

pub use names::Counter;

/// Upper bounds of the buckets of request durations, in microseconds. A write takes at least one fsync (0.1
/// ms on good disks); the longest bound is the 10 s that a linearizable read may wait.
pub const BUCKET_BOUNDS_MICROS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// A kind of client request whose duration is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// `/db/execute`.
    Execute,
    /// `/db/query`.
    Query,
    /// `/db/request`.
    Request,
}

impl Timed {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 3] = [Self::Execute, Self::Query, Self::Request];

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Query => "query",
            Self::Request => "request",
        }
    }
}

/// Durations of one kind of request.
#[derive(Debug)]
struct Histogram {
    /// One more than there are bounds: the last one is for longer durations.
    buckets: [AtomicU64; BUCKET_BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// The values of a histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Upper bound in seconds (the last is `f64::INFINITY`) and the number of requests between it and the
    /// previous bound.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all durations in seconds.
    pub sum_secs: f64,
    /// Number of requests.
    pub count: u64,
}

/// All counters and histograms.
#[derive(Debug)]
pub struct Metrics {
    counters: [AtomicU64; Counter::ALL.len()],
    times: [Histogram; Timed::ALL.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = |_| Histogram {
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            sum_micros: AtomicU64::new(0),
        };
        Self {
            counters: array::from_fn(|_| AtomicU64::new(0)),
            times: array::from_fn(histogram),
        }
    }
}

impl Metrics {
    /// Adds one.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds a number.
    pub fn add(&self, counter: Counter, number: u64) {
        self.counters[counter as usize].fetch_add(number, Ordering::Relaxed);
    }

    /// Replaces the value of a counter that is a gauge ([`Counter::is_gauge`]).
    pub fn set(&self, counter: Counter, value: u64) {
        self.counters[counter as usize].store(value, Ordering::Relaxed);
    }

    /// Sets a gauge ([`Counter::is_gauge`]) to a duration, in milliseconds.
    pub fn set_duration(&self, counter: Counter, took: Duration) {
        self.set(counter, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    /// The current value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// Records the duration of a request.
    pub fn time(&self, what: Timed, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let histogram = &self.times[what as usize];
        let bucket = BUCKET_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        histogram.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The durations recorded so far.
    pub fn times(&self, what: Timed) -> Times {
        let histogram = &self.times[what as usize];
        let bounds = BUCKET_BOUNDS_MICROS
            .iter()
            .map(|micros| *micros as f64 / 1e6)
            .chain([f64::INFINITY]);
        let counts = histogram
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Times {
            buckets,
            sum_secs: histogram.sum_micros.load(Ordering::Relaxed) as f64 / 1e6,
            count,
        }
    }

    /// All counters by map and key, both in alphabetical order.
    pub fn by_map(&self) -> Vec<(&'static str, Vec<(&'static str, u64)>)> {
        let mut maps: std::collections::BTreeMap<&str, Vec<(&str, u64)>> =
            std::collections::BTreeMap::new();
        for counter in Counter::ALL {
            maps.entry(counter.map())
                .or_default()
                .push((counter.key(), self.get(*counter)));
        }
        let sorted = maps.into_iter().map(|(map, mut keys)| {
            keys.sort_unstable();
            (map, keys)
        });
        sorted.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_counter_has_its_own_place_and_name() {
        let metrics = Metrics::default();
        let mut names = HashSet::new();
        for (at, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, at);
            assert_eq!(metrics.get(*counter), 0);
            assert!(
                names.insert((counter.map(), counter.key())),
                "{counter:?} has the name of another"
            );
        }
    }

    #[test]
    fn counts_appear_under_their_names() {
        let metrics = Metrics::default();
        metrics.count(Counter::HttpExecutions);
        metrics.add(Counter::HttpExecutions, 4);
        metrics.set(Counter::UploaderLastUploadBytes, 7);
        let maps = metrics.by_map();
        let value = |map: &str, key: &str| {
            let keys = &maps.iter().find(|(name, _)| *name == map).unwrap().1;
            keys.iter().find(|(name, _)| *name == key).unwrap().1
        };
        assert_eq!(value("http", "executions"), 5);
        assert_eq!(value("uploader", "last_upload_bytes"), 7);
        assert_eq!(value("cluster", "num_client_force_new_conn"), 0);
        assert_eq!(value("cdc.service", "retries"), 0);
        assert!(maps.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn times_fall_into_their_buckets() {
        let metrics = Metrics::default();
        for micros in [0, 100, 101, 999, 20_000_000] {
            metrics.time(Timed::Query, Duration::from_micros(micros));
        }
        let times = metrics.times(Timed::Query);
        assert_eq!(times.count, 5);
        assert_eq!(times.buckets.len(), BUCKET_BOUNDS_MICROS.len() + 1);
        assert_eq!(times.buckets[0], (0.0001, 2));
        assert_eq!(times.buckets[1].1, 1);
        assert_eq!(times.buckets[3].1, 1);
        assert_eq!(times.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert!(
            (times.sum_secs - 20.0012).abs() < 1e-9,
            "{}",
            times.sum_secs
        );
        assert_eq!(metrics.times(Timed::Execute).count, 0);
    }
}
