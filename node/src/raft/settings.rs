//! Raft's timing, from rqlite's two timeouts, and the configuration of openraft that follows from it.
use std::{sync::Arc, time::Duration};

/// Places in the channel by which the state machine, the log and the clock notify openraft's core: so many
/// that none of them ever waits. The core waits for the state machine where that is behind by
/// [`UNAPPLIED_COMMITS`]; if the state machine waited for the core at the same time, because ticks of the
/// clock had filled this channel meanwhile, both would wait for ever. Memory is allocated only for what is in
/// the channel: at most some ten ticks per heartbeat while the core waits.
const NOTIFICATIONS: u64 = 1 << 40;
/// Advances of the commit index that wait for the state machine. A member that catches up with large entries
/// is behind by one for each message of the leader, thousands a minute; while it is behind by more than this,
/// it responds to nobody. 65,536 of them are about 10 MB.
const UNAPPLIED_COMMITS: u64 = 1 << 16;

/// Raft's timing and limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A follower that receives nothing from a leader for about this long starts an election (default 1 s).
    pub election_timeout: Duration,
    /// Interval between the leader's heartbeats; a tenth of `election_timeout`.
    pub heartbeat: Duration,
    /// How long a proposal may wait for a new leader's first heartbeat round and for its commit.
    pub apply_timeout: Duration,
}

impl Settings {
    /// From rqlite's two timeouts; the smaller one counts. Failover takes 1 to 1.5 times that: an election
    /// starts after the lease, which is the longest election timeout, plus a random part. The wider the range
    /// of the random part, the fewer votes are split.
    pub fn new(
        heartbeat_timeout: Duration,
        election_timeout: Duration,
        apply_timeout: Duration,
    ) -> Self {
        let election_timeout = election_timeout
            .min(heartbeat_timeout)
            .max(Duration::from_millis(100));
        Self {
            election_timeout,
            heartbeat: election_timeout / 10,
            apply_timeout,
        }
    }

    pub(super) fn openraft(&self) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "rqlite".into(),
            heartbeat_interval: millis(self.heartbeat).max(10),
            election_timeout_min: millis(self.election_timeout / 4),
            election_timeout_max: millis(self.election_timeout * 3 / 4),
            enable_pre_vote: Some(true),
            // A restarted leader must win an election like any other node.
            enable_leader_restore: Some(false),
            // Checkpoints and purging go by bytes (`maintenance/storage.rs`): entries are batches, so their
            // number says little.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            max_payload_entries: 64,
            replication_lag_threshold: 16,
            // Small: back-pressure belongs to the proposer's queue.
            api_channel_size: Some(1024),
            notification_channel_size: Some(NOTIFICATIONS),
            state_machine_channel_size: Some(UNAPPLIED_COMMITS),
            backoff: "50ms 100ms 200ms ...2s".into(),
            ..openraft::Config::default()
        };
        config.validate().map(Arc::new)
    }
}
