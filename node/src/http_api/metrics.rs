//! `GET /metrics`: counters, request times and the state of Raft and the database, for Prometheus.
use std::{fmt, sync::Arc};

use hyper::header::HeaderValue;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use serde_json::Value;

use super::{error::Failure, reply::Response, state::HttpState};
use crate::{
    metrics::{Counter, Metrics, Timed},
    store::Store,
};

pub(crate) const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Gauges of the store's status: name, help, and JSON pointer of the value in the status.
const GAUGES: [(&str, &str, &str); 6] = [
    ("rqlite_raft_term", "Current Raft term", "/raft/term"),
    (
        "rqlite_raft_applied_index",
        "Index of the last log entry applied to the database",
        "/raft/applied_index",
    ),
    (
        "rqlite_raft_commit_index",
        "Index of the last log entry known to be committed",
        "/raft/commit_index",
    ),
    (
        "rqlite_raft_log_size_bytes",
        "Size of the Raft log on disk",
        "/raft/log_size",
    ),
    (
        "rqlite_db_size_bytes",
        "Size of the SQLite database",
        "/sqlite3/db_size",
    ),
    (
        "rqlite_db_wal_size_bytes",
        "Size of the SQLite write-ahead log",
        "/sqlite3/wal_size",
    ),
];

pub(super) async fn handle(state: &Arc<HttpState>) -> Result<Response, Failure> {
    let text = text(&state.store, &state.metrics).await;
    let text = text.map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.content(OPEN_METRICS, text.into_bytes()))
}

/// The reply's text.
pub(crate) async fn text(store: &Store, metrics: &Arc<Metrics>) -> Result<String, fmt::Error> {
    let scrape = Scrape {
        metrics: Arc::clone(metrics),
        leads: store.is_leader(),
        store: if store.is_open() {
            serde_json::to_value(store.status().await).unwrap_or_default()
        } else {
            Value::Null
        },
    };
    scrape.into_text()
}

/// The values of one scrape.
#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    /// The store's part of `/status`; null while the store is not open.
    store: Value,
    leads: bool,
}

impl Scrape {
    fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let reported =
            |counter: &&Counter| !counter.is_timestamp() || self.metrics.get(**counter) > 0;
        for counter in Counter::ALL.iter().filter(reported) {
            let name = format!(
                "rqlite_{}_{}",
                counter.map().replace('.', "_"),
                counter.key()
            );
            let help = format!("{} of the expvar map {}", counter.key(), counter.map());
            let value = self.metrics.get(*counter);
            if counter.is_gauge() {
                gauge(
                    &mut encoder,
                    &name,
                    &help,
                    i64::try_from(value).unwrap_or(i64::MAX),
                )?;
            } else {
                let metric = ConstCounter::new(value);
                metric.encode(encoder.encode_descriptor(
                    &name,
                    &help,
                    None,
                    metric.metric_type(),
                )?)?;
            }
        }
        gauge(
            &mut encoder,
            "rqlite_raft_leader",
            "1 on the leader, else 0",
            i64::from(self.leads),
        )?;
        gauge(
            &mut encoder,
            "rqlite_db_apply_waiting",
            "1 while entries wait for room on this node's disk, else 0",
            i64::from(self.store.get("apply_waiting").is_some()),
        )?;
        for (name, help, pointer) in GAUGES {
            if let Some(value) = self.store.pointer(pointer).and_then(Value::as_i64) {
                gauge(&mut encoder, name, help, value)?;
            }
        }
        let mut times = encoder.encode_descriptor(
            "rqlite_http_request_duration_seconds",
            "Time from a request's head to its reply",
            None,
            MetricType::Histogram,
        )?;
        for what in Timed::ALL {
            let kept = self.metrics.times(what);
            let labels = [("endpoint", what.name())];
            let mut labelled = times.encode_family(&labels)?;
            labelled.encode_histogram::<NoLabelSet>(
                kept.sum_secs,
                kept.count,
                &kept.buckets,
                None,
            )?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: i64,
) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_scrape() {
        let metrics = Arc::new(Metrics::default());
        metrics.add(Counter::HttpExecutions, 3);
        metrics.set(Counter::UploaderLastUploadBytes, 9);
        metrics.time(Timed::Query, Duration::from_micros(300));
        let store =
            json!({ "raft": { "term": 4, "applied_index": 17 }, "sqlite3": { "db_size": 4096 } });
        let text = Scrape {
            metrics,
            store,
            leads: true,
        }
        .into_text()
        .unwrap();
        for line in [
            "# TYPE rqlite_http_executions counter",
            "rqlite_http_executions_total 3",
            "rqlite_cdc_service_retries_total 0",
            "rqlite_uploader_last_upload_bytes 9",
            "rqlite_raft_leader 1",
            "rqlite_raft_term 4",
            "rqlite_raft_applied_index 17",
            "rqlite_db_size_bytes 4096",
            "rqlite_http_request_duration_seconds_count{endpoint=\"query\"} 1",
            "rqlite_http_request_duration_seconds_bucket{le=\"0.00025\",endpoint=\"query\"} 0",
            "rqlite_http_request_duration_seconds_bucket{le=\"0.0005\",endpoint=\"query\"} 1",
            "rqlite_http_request_duration_seconds_bucket{le=\"+Inf\",endpoint=\"query\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("rqlite_raft_log_size_bytes"));
        assert!(text.ends_with("# EOF\n"));
    }
}
