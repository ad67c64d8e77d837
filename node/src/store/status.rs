//! Builds the `store` part of `/status`; names and shapes are rqlite's.
use std::{collections::BTreeMap, path::Path, sync::atomic::Ordering::Relaxed, time::Duration};

use node_contract::{
    duration,
    parked::{DiskStatus, ParkedStatus},
    status::{
        CommittedConfiguration, CommittedMember, Comparison, ContentStatus, DatabaseConfig,
        Identity, LeaderStatus, RaftConfig, RaftDetails, RaftStatus, ServerStatus, SnapshotStore,
        StoreDetails, StoreStatus, TransportStatus,
    },
};
use serde_json::{Value, json};

use super::{Opened, Store, auto_maintenance::MaintenanceTimes};
use crate::{
    clock::rfc3339_of_micros,
    metrics::Counter,
    parked,
    raft::{Consensus, types::RaftId},
    version,
};

/// Most files counted for the size of the data directory; it holds a few dozen.
const MAX_FILES: usize = 10_000;
/// Values that the disk does not deliver in this time are left out: a status that waits for a hanging disk
/// could not report it.
const DISK_LIMIT: Duration = Duration::from_secs(2);

impl Store {
    /// The `store` part of `/status`.
    pub async fn status(&self) -> StoreStatus {
        let Some(opened) = self.0.opened.get() else {
            return StoreStatus::opening();
        };
        let leader = self.leader();
        let (dir_size, sqlite3) = self.disk_status(opened).await;
        StoreStatus {
            open: json!({}),
            node_id: Some(self.0.local.name().to_owned()),
            leader: Some(LeaderStatus {
                node_id: leader.as_ref().map_or_else(String::new, |l| l.name.clone()),
                addr: leader
                    .as_ref()
                    .map_or_else(String::new, |l| l.raft_addr.clone()),
            }),
            identity: Some(self.identity()),
            raft: Some(self.raft_status(opened)),
            check: self.check_status(),
            parked: self.parked_status().await,
            disk: self.disk_space().await,
            dir_size_friendly: Some(friendly_bytes(dir_size)),
            details: Some(Box::new(StoreDetails {
                ready: leader.is_some(),
                dir_size,
                sqlite3,
                ..self.details(opened)
            })),
        }
    }

    /// What does not have to wait for the disk; settings under rqlite's names.
    fn details(&self, opened: &Opened) -> StoreDetails {
        let s = &self.0.settings;
        let consensus = &opened.consensus;
        let metrics = consensus.metrics();
        let progress = consensus.progress();
        let maintenance = opened
            .maintenance_times
            .get()
            .map(MaintenanceTimes::status)
            .unwrap_or_default();
        let automatic = |key: &str| {
            let mut shown = maintenance.iter().filter(|(name, _)| *name == key);
            shown.next().map(|(_, shown)| shown.clone())
        };
        StoreDetails {
            addr: self.0.local.raft_addr.clone(),
            content: self.content_status(),
            nodes: servers(consensus),
            fsm_index: consensus.applied_index(),
            fsm_term: metrics.last_applied.map_or(0, |id| id.leader_id.term),
            fsm_update_time: rfc3339_of_micros(progress.applied_unix_micros.load(Relaxed)),
            db_applied_index: progress.command_index.load(Relaxed),
            leader_appended_at_time: rfc3339_of_micros(progress.stamped_unix_micros.load(Relaxed)),
            apply_timeout: duration::format(s.apply_timeout),
            heartbeat_timeout: duration::format(s.heartbeat_timeout),
            election_timeout: duration::format(s.election_timeout),
            commit_timeout: duration::format(s.commit_timeout),
            snapshot_threshold: s.snapshot_threshold,
            snapshot_interval: duration::format(s.snapshot_interval),
            reap_timeout: duration::format(s.reap_timeout),
            reap_read_only_timeout: duration::format(s.reap_read_only_timeout),
            trailing_logs: s.snapshot_threshold + s.snapshot_threshold / 4,
            dir: s.data_dir.clone(),
            db_conf: DatabaseConfig {
                fk_constraints: s.foreign_keys,
            },
            snapshot_store: snapshot_store(
                &s.data_dir,
                metrics.snapshot.map(|id| (id.leader_id.term, id.index)),
            ),
            running: self.running().unwrap_or_default(),
            apply_waiting: opened.db.waiting(),
            auto_vacuum: automatic("auto_vacuum"),
            auto_optimize: automatic("auto_optimize"),
            // The fields that are left are constants of rqlite's contract.
            ..StoreDetails::default()
        }
    }

    /// Bytes of the data directory, and SQLite's part: what may have to wait for the disk.
    async fn disk_status(&self, opened: &Opened) -> (u64, Value) {
        let (data_dir, db) = (self.0.settings.data_dir.clone(), opened.db.clone());
        let dir_size = within_limit(move || directory_bytes(&data_dir)).await;
        let sqlite3 = match opened.consensus.disk_responds() {
            Ok(()) => within_limit(move || db.status()).await,
            Err(hangs) => Some(json!({"error": hangs.to_string()})),
        };
        let no_response = || json!({"error": "the disk does not respond"});
        if sqlite3
            .as_ref()
            .is_none_or(|status| status.get("error").is_some())
        {
            let metrics = &self.0.local.metrics;
            metrics.count(Counter::StoreNumDbStatsErrors);
        }
        (dir_size.unwrap_or(0), sqlite3.unwrap_or_else(no_response))
    }

    async fn parked_status(&self) -> Option<ParkedStatus> {
        let (dir, policy) = (self.0.settings.data_dir.clone(), self.0.settings.parked);
        within_limit(move || parked::status(&dir, policy)).await?
    }

    async fn disk_space(&self) -> Option<DiskStatus> {
        let dir = self.0.settings.data_dir.clone();
        let look = move || {
            Some(DiskStatus {
                free_bytes: fs4::available_space(&dir).ok()?,
                total_bytes: fs4::total_space(&dir).ok()?,
            })
        };
        within_limit(look).await?
    }

    /// Comparison of this node's copy with the others'.
    fn content_status(&self) -> ContentStatus {
        let difference = self.difference();
        ContentStatus {
            differs: difference.is_some(),
            differs_at_index: difference.map(|d| d.index),
            last_comparison: self.last_comparison().map(|last| Comparison {
                index: last.index,
                time: rfc3339_of_micros(last.unix_micros),
                verdict: format!("{:?}", last.verdict),
            }),
        }
    }

    fn identity(&self) -> Identity {
        let identity = self.0.local.identity();
        Identity {
            raft_id: identity.raft_id(),
            incarnation: identity.incarnation.clone(),
            cluster_id: identity.cluster.as_ref().map(|c| c.id.clone()),
            lineage: identity.cluster.as_ref().map(|c| c.lineage.clone()),
        }
    }

    fn raft_status(&self, opened: &Opened) -> RaftStatus {
        let consensus = &opened.consensus;
        let log = consensus.log().facts();
        RaftStatus {
            state: consensus.state_name().to_owned(),
            term: consensus.leadership().term,
            last_log_index: log.last.map_or(0, |id| id.1),
            last_log_term: log.last.map_or(0, |id| id.0),
            commit_index: consensus.commit_index(),
            applied_index: consensus.applied_index(),
            committed_configuration: committed_configuration(consensus),
            unreachable_seconds: by_raft_id(consensus.unreachable(), |since| since.as_secs()),
            details: Some(Box::new(self.raft_details(consensus))),
        }
    }

    fn raft_details(&self, consensus: &Consensus) -> RaftDetails {
        let metrics = consensus.metrics();
        let members = consensus.members();
        let log = consensus.log().facts();
        let last_contact = match self.0.local.since_leader_contact() {
            _ if consensus.leads() => "0".to_owned(),
            Some(since) => duration::format(since),
            None => "never".to_owned(),
        };
        let own = self.0.local.raft_id();
        let mut voters = members.iter().filter(|(_, _, voter)| *voter);
        let matched = metrics.replication.clone().unwrap_or_default();
        RaftDetails {
            last_contact,
            last_snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
            last_snapshot_term: metrics.snapshot.map_or(0, |id| id.leader_id.term),
            latest_configuration: latest_configuration(consensus),
            latest_configuration_index: metrics.membership_config.log_id().map_or(0, |id| id.index),
            committed_configuration_index: consensus.committed_members().0,
            num_peers: members.len().saturating_sub(1),
            matched_index: matched
                .into_iter()
                .map(|(id, matched)| (id.name().to_owned(), matched.map_or(0, |m| m.index)))
                .collect(),
            unsendable: by_raft_id(consensus.unsendable(), |reason| reason),
            format_version: consensus.version(),
            format_version_max: version::NEWEST,
            format_version_of_members: by_raft_id(consensus.supported_versions(), |version| {
                version
            }),
            protocol_version: 1,
            protocol_version_min: 1,
            protocol_version_max: 1,
            snapshot_version_min: 1,
            snapshot_version_max: 1,
            log_size: log.disk_bytes,
            log_size_friendly: friendly_bytes(log.disk_bytes),
            voter: voters.any(|(id, _, _)| id.0.as_ref() == own),
            transport: TransportStatus {
                command_commit_index: self.0.local.leader_commit(),
                leader_commit_index: self.0.local.leader_commit(),
                compress_snap: false,
            },
            config: self.raft_config(),
            fsm_pending: 0,
        }
    }

    /// The flags that configure Raft.
    fn raft_config(&self) -> RaftConfig {
        let s = &self.0.settings;
        RaftConfig {
            local_id: self.0.local.name().to_owned(),
            heartbeat_timeout: nanos(s.heartbeat_timeout),
            election_timeout: nanos(s.election_timeout),
            leader_lease_timeout: nanos(s.lease_timeout),
            commit_timeout: nanos(s.commit_timeout),
            snapshot_interval: nanos(s.snapshot_interval),
            snapshot_threshold: s.snapshot_threshold,
            max_append_entries: 64,
            shutdown_on_remove: false,
            log_level: s.log_level.clone(),
            no_snapshot_restore_on_start: true,
        }
    }
}

/// Keyed by Raft id, sorted.
fn by_raft_id<T, U>(
    values: impl IntoIterator<Item = (RaftId, T)>,
    shown: impl Fn(T) -> U,
) -> BTreeMap<String, U> {
    let values = values.into_iter();
    values
        .map(|(id, value)| (id.0.to_string(), shown(value)))
        .collect()
}

fn servers(consensus: &Consensus) -> Vec<ServerStatus> {
    let members = consensus.members();
    members
        .iter()
        .map(|(id, member, voter)| ServerStatus {
            id: id.name().to_owned(),
            addr: member.raft_addr.clone(),
            suffrage: if *voter { "voter" } else { "nonvoter" }.to_owned(),
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

/// The newest configuration that can no longer be undone.
fn committed_configuration(consensus: &Consensus) -> CommittedConfiguration {
    let (index, members) = consensus.committed_members();
    let members = members.into_iter();
    CommittedConfiguration {
        index,
        members: members
            .map(|(id, member, voter)| CommittedMember {
                id: id.name().to_owned(),
                raft_id: id.0.to_string(),
                addr: member.raft_addr,
                voter,
            })
            .collect(),
    }
}

/// The database's main file is the one snapshot.
fn snapshot_store(dir: &Path, snapshot: Option<(u64, u64)>) -> SnapshotStore {
    let dir_size = std::fs::metadata(dir.join("db.sqlite")).map_or(0, |meta| meta.len());
    let name = snapshot.map(|(term, index)| format!("{term}-{index}"));
    SnapshotStore {
        dir: dir.to_owned(),
        dir_size,
        snapshots: name.into_iter().collect(),
    }
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
