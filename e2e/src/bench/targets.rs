//! Performance targets, and whether a run met them.
//!
//! Absolute figures assume a disk with about 5 000 synced appends per second and two cores shared with the
//! load generator. The ratios hold on any machine.
use crate::bench::report::{Report, TargetResult};

/// The figure that is compared with the bound.
enum Figure {
    Value(&'static str),
    P99(&'static str),
    Ratio(&'static str, &'static str),
    /// 99th percentile over median.
    Spread(&'static str),
}

use Figure::{P99, Ratio, Spread, Value};

/// (target, figure, whether the bound is a minimum, bound)
const TARGETS: [(&str, Figure, bool, f64); 40] = [
    (
        "one node: writes/s, 1 connection",
        Value("one/insert/1"),
        true,
        1_900.0,
    ),
    (
        "one node: writes/s, 64 connections",
        Value("one/insert/64"),
        true,
        45_000.0,
    ),
    (
        "one node: writes/s, 256 connections",
        Value("one/insert/256"),
        true,
        60_000.0,
    ),
    (
        "one node: writes at 256 / parse-only",
        Ratio("one/insert/256", "ceiling/insert/256"),
        true,
        0.55,
    ),
    (
        "one node: reads none at 64 / parse-only",
        Ratio("one/select-none/64", "ceiling/select/64"),
        true,
        0.5,
    ),
    (
        "one node: reads none at 256 / parse-only",
        Ratio("one/select-none/256", "ceiling/select/256"),
        true,
        0.5,
    ),
    (
        "one node: reads weak at 64 / parse-only",
        Ratio("one/select-weak/64", "ceiling/select/64"),
        true,
        0.5,
    ),
    (
        "one node: reads weak at 256 / parse-only",
        Ratio("one/select-weak/256", "ceiling/select/256"),
        true,
        0.5,
    ),
    (
        "one node: reads linearizable / none at 64",
        Ratio("one/select-linearizable/64", "one/select-none/64"),
        true,
        0.7,
    ),
    (
        "one node: p99 of writes at 64, ms",
        P99("one/insert/64"),
        false,
        5.0,
    ),
    (
        "one node: p99 of writes at 64 across a checkpoint, ms",
        P99("one/checkpoint/64"),
        false,
        50.0,
    ),
    (
        "one node: idle memory, MiB",
        Value("one/memory-idle"),
        false,
        45.0,
    ),
    (
        "one node: peak memory under load, MiB",
        Value("one/memory-peak"),
        false,
        100.0,
    ),
    (
        "three: writes/s, 64 connections",
        Value("three/leader/insert/64"),
        true,
        12_000.0,
    ),
    (
        "three: writes/s, 256 connections",
        Value("three/leader/insert/256"),
        true,
        17_000.0,
    ),
    (
        "three: writes by follower / leader at 64",
        Ratio("three/follower/insert/64", "three/leader/insert/64"),
        true,
        0.7,
    ),
    (
        "three: writes by follower / leader at 256",
        Ratio("three/follower/insert/256", "three/leader/insert/256"),
        true,
        0.7,
    ),
    (
        "three: reads none at 64 / parse-only",
        Ratio("three/leader/select-none/64", "ceiling/select/64"),
        true,
        0.5,
    ),
    (
        "three: reads weak at 64 / parse-only",
        Ratio("three/leader/select-weak/64", "ceiling/select/64"),
        true,
        0.5,
    ),
    (
        "three: reads linearizable / none at 16",
        Ratio(
            "three/leader/select-linearizable/16",
            "three/leader/select-none/16",
        ),
        true,
        0.7,
    ),
    (
        "three: reads linearizable / none at 64",
        Ratio(
            "three/leader/select-linearizable/64",
            "three/leader/select-none/64",
        ),
        true,
        0.7,
    ),
    (
        "three: reads linearizable / none at 256",
        Ratio(
            "three/leader/select-linearizable/256",
            "three/leader/select-none/256",
        ),
        true,
        0.7,
    ),
    (
        "three: idle memory, worst node, MiB",
        Value("three/memory-idle"),
        false,
        45.0,
    ),
    (
        "three: peak memory under load, worst node, MiB",
        Value("three/memory-peak"),
        false,
        100.0,
    ),
    (
        "three: leader killed to next accepted write, worst, ms",
        Value("three/failover"),
        false,
        1_500.0,
    ),
    (
        "one node: 1 GB database ready after kill -9, s",
        Value("one/big-restart"),
        false,
        2.0,
    ),
    (
        "one node: peak memory after that restart, MiB",
        Value("one/big-restart-memory"),
        false,
        100.0,
    ),
    (
        "TLS: writes with / without, 1 kept connections",
        Ratio("tls/insert/1", "tls/plain-insert/1"),
        true,
        0.8,
    ),
    (
        "TLS: writes with / without, 16 kept connections",
        Ratio("tls/insert/16", "tls/plain-insert/16"),
        true,
        0.8,
    ),
    (
        "TLS: writes with / without, 64 kept connections",
        Ratio("tls/insert/64", "tls/plain-insert/64"),
        true,
        0.8,
    ),
    (
        "TLS: reads none with / without, 1 kept connections",
        Ratio("tls/select/1", "tls/plain-select/1"),
        true,
        0.8,
    ),
    (
        "TLS: reads none with / without, 16 kept connections",
        Ratio("tls/select/16", "tls/plain-select/16"),
        true,
        0.8,
    ),
    (
        "TLS: reads none with / without, 64 kept connections",
        Ratio("tls/select/64", "tls/plain-select/64"),
        true,
        0.8,
    ),
    (
        "TLS and users: idle memory, MiB",
        Value("tls/memory-idle"),
        false,
        48.0,
    ),
    (
        "archive: writes with / without it at 64",
        Ratio("archive/on/insert/64", "archive/off/insert/64"),
        true,
        0.9,
    ),
    (
        "archive: p99 / median of 64 writers during a 1 GB base",
        Spread("archive/base/insert/64"),
        false,
        10.0,
    ),
    (
        "archive: p99 / median of 64 writers during a 1 GB backup",
        Spread("archive/backup/insert/64"),
        false,
        10.0,
    ),
    (
        "archive: peak memory during a 1 GB base, MiB",
        Value("archive/base/memory-peak"),
        false,
        100.0,
    ),
    (
        "archive: peak memory during a 1 GB backup, MiB",
        Value("archive/backup/memory-peak"),
        false,
        100.0,
    ),
    (
        "archive: peak memory of an archiving leader at 64, MiB",
        Value("archive/on/memory-peak"),
        false,
        100.0,
    ),
];

/// Compares a run with every target.
#[must_use]
pub fn evaluate(report: &Report) -> Vec<TargetResult> {
    let value = |name| report.get(name).map(|cell| cell.value);
    TARGETS
        .iter()
        .map(|(what, figure, at_least, wanted)| {
            let measured = match figure {
                Value(name) => value(name),
                P99(name) => report
                    .get(name)
                    .and_then(|cell| cell.latency)
                    .map(|latency| latency.1),
                Spread(name) => report
                    .get(name)
                    .and_then(|cell| cell.latency)
                    .map(|(p50, p99)| p99 / p50),
                Ratio(name, base) => value(name)
                    .zip(value(base))
                    .map(|(part, whole)| part / whole),
            };
            let met = measured.map(|measured| {
                if *at_least {
                    measured >= *wanted
                } else {
                    measured <= *wanted
                }
            });
            TargetResult {
                what: (*what).to_owned(),
                wanted: *wanted,
                at_least: *at_least,
                measured,
                met,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Cell;

    #[test]
    fn floors_ceilings_and_ratios() {
        let mut report = Report::default();
        for (name, value) in [
            ("one/insert/256", 50_000.0),
            ("ceiling/insert/256", 100_000.0),
            ("one/memory-idle", 46.0),
            ("one/insert/1", 1_900.0),
        ] {
            report.add(Cell::rate(name, "x", value));
        }
        let results = evaluate(&report);
        let met = |what: &str| {
            results
                .iter()
                .find(|target| target.what == what)
                .unwrap()
                .met
        };
        assert_eq!(met("one node: writes/s, 1 connection"), Some(true));
        assert_eq!(met("one node: writes/s, 256 connections"), Some(false));
        assert_eq!(met("one node: writes at 256 / parse-only"), Some(false));
        assert_eq!(met("one node: idle memory, MiB"), Some(false));
        assert_eq!(met("three: writes/s, 64 connections"), None);
    }
}
