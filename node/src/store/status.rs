//! Gathers what `/status` shows under `store`; names and shapes are rqlite's.
use std::{path::Path, time::Duration};

use node_contract::duration;
use serde_json::{Value, json};

use super::{Opened, Store, upkeep::Upkeep};
use crate::{clock::rfc3339_of_micros, metrics::Counter, raft::Consensus, version};

/// Looking through a data directory stops here; ours holds a few dozen files.
const MAX_FILES: usize = 10_000;
/// What the disk has not said by then is left out: a status that waits for a hanging disk tells nobody of it.
const DISK_LIMIT: Duration = Duration::from_secs(2);

impl Store {
    /// The `store` part of `/status`.
    pub async fn status(&self) -> Value {
        let Some(opened) = self.0.opened.get() else {
            return json!({"open": false});
        };
        let s = &self.0.settings;
        let leader = self.leader();
        let consensus = &opened.consensus;
        let progress = consensus.progress();
        let (dir_size, sqlite3) = self.disk_status(opened).await;
        let applied_at = progress
            .applied_unix_micros
            .load(std::sync::atomic::Ordering::Relaxed);
        let stamped_at = progress
            .stamped_unix_micros
            .load(std::sync::atomic::Ordering::Relaxed);
        let command_index = progress
            .command_index
            .load(std::sync::atomic::Ordering::Relaxed);
        let upkeep = opened.upkeep.get();
        let mut status = json!({
            "open": {},
            "node_id": self.0.local.name(),
            "addr": self.0.local.raft_addr,
            "leader": {
                "node_id": leader.as_ref().map_or("", |l| &l.name),
                "addr": leader.as_ref().map_or("", |l| &l.raft_addr),
            },
            "ready": leader.is_some(),
            "identity": self.identity(),
            "content": self.content_status(),
            "nodes": nodes(consensus),
            "raft": self.raft_status(opened),
            "fsm_index": consensus.applied_index(),
            "fsm_term": consensus.metrics().last_applied.map_or(0, |id| id.leader_id.term),
            "fsm_update_time": rfc3339_of_micros(applied_at),
            "db_applied_index": command_index,
            "strong_read_term": 0,
            "leader_appended_at_time": rfc3339_of_micros(stamped_at),
            "observer": {"observed": 0, "dropped": 0},
            "cdc": {"enabled": false, "registered": false},
            "apply_timeout": duration::format(s.apply_timeout),
            "heartbeat_timeout": duration::format(s.heartbeat_timeout),
            "election_timeout": duration::format(s.election_timeout),
            "commit_timeout": duration::format(s.commit_timeout),
            "snapshot_threshold": s.snapshot_threshold,
            "snapshot_interval": duration::format(s.snapshot_interval),
            "reap_timeout": duration::format(s.reap_timeout),
            "reap_read_only_timeout": duration::format(s.reap_read_only_timeout),
            "no_freelist_sync": false,
            "trailing_logs": s.snapshot_threshold + s.snapshot_threshold / 4,
            "request_marshaler": {"compression_batch": 0, "compression_size": 0, "force_compression": false},
            "dir": s.data_dir,
            "dir_size": dir_size,
            "dir_size_friendly": friendly_bytes(dir_size),
            "db_conf": {"fk_constraints": s.foreign_keys},
            "snapshot_store": snapshot_store(&s.data_dir, consensus.metrics().snapshot.map(|id| (id.leader_id.term, id.index))),
            "sqlite3": sqlite3,
            "running": self.running().unwrap_or_default(),
        });
        if let Some(waiting) = opened.db.waiting() {
            status["apply_waiting"] = waiting.into();
        }
        // Shown where they are switched on.
        for (key, shown) in upkeep.map(Upkeep::status).unwrap_or_default() {
            status[key] = shown;
        }
        status
    }

    /// Bytes of the data directory, and SQLite's part: what may have to wait for the disk.
    async fn disk_status(&self, opened: &Opened) -> (u64, Value) {
        let (data_dir, db) = (self.0.settings.data_dir.clone(), opened.db.clone());
        let dir_size = within_limit(move || directory_bytes(&data_dir)).await;
        let sqlite3 = match opened.consensus.disk_answers() {
            Ok(()) => within_limit(move || db.status()).await,
            Err(hangs) => Some(json!({"error": hangs.to_string()})),
        };
        let silent = || json!({"error": "the disk does not respond"});
        if sqlite3
            .as_ref()
            .is_none_or(|status| status.get("error").is_some())
        {
            let metrics = &self.0.local.metrics;
            metrics.count(Counter::StoreNumDbStatsErrors);
        }
        (dir_size.unwrap_or(0), sqlite3.unwrap_or_else(silent))
    }

    /// What is known of this node's copy beside the others'.
    fn content_status(&self) -> Value {
        let difference = self.difference();
        let last = self.last_comparison();
        json!({
            "differs": difference.is_some(),
            "differs_at_index": difference.map(|d| d.index),
            "last_comparison": last.map(|last| json!({
                "index": last.index,
                "time": rfc3339_of_micros(last.unix_micros),
                "verdict": format!("{:?}", last.verdict),
            })),
        })
    }

    /// What an operator compares before it trusts a data directory.
    fn identity(&self) -> Value {
        let identity = self.0.local.identity();
        json!({
            "raft_id": identity.raft_id(),
            "incarnation": identity.incarnation,
            "cluster_id": identity.cluster.as_ref().map(|c| &c.id),
            "lineage": identity.cluster.as_ref().map(|c| &c.lineage),
        })
    }

    fn raft_status(&self, opened: &Opened) -> Value {
        let consensus = &opened.consensus;
        let metrics = consensus.metrics();
        let leadership = consensus.leadership();
        let state = consensus.state_name();
        let log = consensus.log().facts();
        let contact = match self.0.local.since_leader_contact() {
            _ if leadership.mine => "0".to_owned(),
            Some(since) => duration::format(since),
            None => "never".to_owned(),
        };
        let own = self.0.local.raft_id();
        let voter = consensus
            .members()
            .iter()
            .any(|(id, _, voter)| *voter && id.0.as_ref() == own);
        let matched: serde_json::Map<String, Value> = metrics
            .replication
            .clone()
            .unwrap_or_default()
            .into_iter()
            .map(|(id, matched)| (id.name().to_owned(), json!(matched.map_or(0, |m| m.index))))
            .collect();
        json!({
            "applied_index": consensus.applied_index(),
            "commit_index": consensus.commit_index(),
            "fsm_pending": 0,
            "last_contact": contact,
            "last_log_index": log.last.map_or(0, |id| id.1),
            "last_log_term": log.last.map_or(0, |id| id.0),
            "last_snapshot_index": metrics.snapshot.map_or(0, |id| id.index),
            "last_snapshot_term": metrics.snapshot.map_or(0, |id| id.leader_id.term),
            "latest_configuration": latest_configuration(consensus),
            "latest_configuration_index": metrics.membership_config.log_id().map_or(0, |id| id.index),
            "committed_configuration": committed_configuration(consensus),
            "committed_configuration_index": consensus.committed_members().0,
            "unreachable_seconds": unreachable_seconds(consensus),
            "num_peers": consensus.members().len().saturating_sub(1),
            "matched_index": matched,
            "unsendable": unsendable(consensus),
            "format_version": consensus.version(),
            "format_version_max": version::NEWEST,
            "format_version_of_members": spoken_versions(consensus),
            "protocol_version": 1,
            "protocol_version_min": 1,
            "protocol_version_max": 1,
            "snapshot_version_min": 1,
            "snapshot_version_max": 1,
            "state": state,
            "term": leadership.term,
            "log_size": log.disk_bytes,
            "log_size_friendly": friendly_bytes(log.disk_bytes),
            "voter": voter,
            "transport": {
                "command_commit_index": self.0.local.leader_commit(),
                "leader_commit_index": self.0.local.leader_commit(),
                "compress_snap": false,
            },
            "config": self.raft_config(),
        })
    }

    /// The flags that shape Raft, under rqlite's names.
    fn raft_config(&self) -> Value {
        let s = &self.0.settings;
        json!({
                "LocalID": self.0.local.name(),
                "HeartbeatTimeout": nanos(s.heartbeat_timeout),
                "ElectionTimeout": nanos(s.election_timeout),
                "LeaderLeaseTimeout": nanos(s.lease_timeout),
                "CommitTimeout": nanos(s.commit_timeout),
                "SnapshotInterval": nanos(s.snapshot_interval),
                "SnapshotThreshold": s.snapshot_threshold,
                "MaxAppendEntries": 64,
                "ShutdownOnRemove": false,
                "LogLevel": s.log_level,
                "NoSnapshotRestoreOnStart": true,
        })
    }
}

/// Members that nothing more can be sent to, by Raft id, and why.
fn unsendable(consensus: &Consensus) -> serde_json::Map<String, Value> {
    let unsendable = consensus.unsendable().into_iter();
    unsendable
        .map(|(id, why)| (id.0.to_string(), json!(why)))
        .collect()
}

/// The newest format version of each member by Raft id; null while it has not said so.
fn spoken_versions(consensus: &Consensus) -> serde_json::Map<String, Value> {
    let spoken = consensus.spoken_versions().into_iter();
    spoken
        .map(|(id, version)| (id.0.to_string(), json!(version)))
        .collect()
}

fn nodes(consensus: &Consensus) -> Vec<Value> {
    let members = consensus.members();
    members
        .iter()
        .map(|(id, member, voter)| {
            json!({"id": id.name(), "addr": member.raft_addr, "suffrage": if *voter { "voter" } else { "nonvoter" }})
        })
        .collect()
}

/// What asks the disk, on a thread that may wait for it. `None` if it does not answer.
pub(super) async fn within_limit<T: Send + 'static>(
    ask: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let asked = tokio::task::spawn_blocking(ask);
    tokio::time::timeout(DISK_LIMIT, asked).await.ok()?.ok()
}

/// As HashiCorp's Raft prints it.
fn latest_configuration(consensus: &Consensus) -> String {
    let members = consensus.members();
    let servers: Vec<String> = members
        .iter()
        .map(|(id, member, voter)| {
            let suffrage = if *voter { "Voter" } else { "Nonvoter" };
            format!(
                "{{Suffrage:{suffrage} ID:{} Address:{}}}",
                id.name(),
                member.raft_addr
            )
        })
        .collect();
    format!("[{}]", servers.join(" "))
}

/// Who is in, for whoever acts on it: unlike the newest configuration, this one can no longer be undone.
fn committed_configuration(consensus: &Consensus) -> Value {
    let (index, members) = consensus.committed_members();
    let members: Vec<Value> = members
        .iter()
        .map(|(id, member, voter)| {
            json!({"id": id.name(), "raft_id": id.0.as_ref(), "addr": member.raft_addr, "voter": voter})
        })
        .collect();
    json!({"index": index, "members": members})
}

/// By the leader's own clock, for whoever decides that a member will not come back; by Raft id, empty on others than the leader.
fn unreachable_seconds(consensus: &Consensus) -> serde_json::Map<String, Value> {
    let silences = consensus.unreachable().into_iter();
    silences
        .map(|(id, silent)| (id.0.to_string(), json!(silent.as_secs())))
        .collect()
}

/// The database's main file is the one snapshot.
fn snapshot_store(dir: &Path, snapshot: Option<(u64, u64)>) -> Value {
    let dir_size = std::fs::metadata(dir.join("db.sqlite")).map_or(0, |meta| meta.len());
    let names: Vec<String> = snapshot
        .map(|(term, index)| format!("{term}-{index}"))
        .into_iter()
        .collect();
    json!({"dir": dir, "dir_size": dir_size, "snapshots": names})
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

fn directory_bytes(dir: &Path) -> u64 {
    let mut waiting = vec![dir.to_owned()];
    let (mut total, mut seen) = (0, 0);
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MAX_FILES {
                return total;
            }
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => waiting.push(entry.path()),
                Ok(meta) => total += meta.len(),
                Err(_) => {}
            }
        }
    }
    total
}

/// Sizes as rqlite shows them: powers of 1000, one unit, no fraction below ten of it.
fn friendly_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("PB");
    if unit > 0 && value < 9.95 {
        format!("{value:.1} {name}")
    } else {
        format!("{value:.0} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1234, "1.2 kB"),
            (70_100, "70 kB"),
            (1_500_000, "1.5 MB"),
        ] {
            assert_eq!(friendly_bytes(bytes), want);
        }
    }
}
