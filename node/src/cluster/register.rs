//! The key in Consul or etcd that names the leader: an empty node claims it, or joins the node that it names;
//! a leader keeps it up to date.
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{
    bootstrapper::{Bootstrapper, ClusterError},
    claim::{self, CHECK_INTERVAL, Own, Report, Step},
    join::join_once,
};
use crate::{
    discovery::{LeaderKey, LeaderRecord, LookupError},
    local::Local,
    raft::Consensus,
};

/// Shortest pause between reads of a node that waits. The pause is random, up to twice as long.
const READ_PAUSE: Duration = Duration::from_secs(1);

impl Bootstrapper {
    /// Claims the key and forms a cluster, or joins the node that the key names; repeated until the node is
    /// in a cluster.
    pub(super) async fn register(&self, key: &LeaderKey) -> Result<(), ClusterError> {
        let own = Own {
            raft_id: self.local.raft_id().to_owned(),
            raft_addr: self.local.raft_addr.clone(),
            voter: self.options.voter,
        };
        let mut claimed: Option<Instant> = None;
        let mut last_why = String::new();
        loop {
            let why = match self.register_round(key, &own, &mut claimed).await {
                Ok(None) => return Ok(()),
                Ok(Some(why)) => why,
                Err(RoundError::Lookup(e)) => format!("{}: {e}", key.name()),
                Err(RoundError::Cluster(e)) => return Err(e),
            };
            if self.has_state().await? {
                // The leader has admitted this node; only its response was lost.
                return Ok(());
            }
            if why != last_why {
                tracing::info!(target: "disco", "not in a cluster yet: {why}");
                last_why = why;
            }
            let pause = READ_PAUSE.mul_f64(1.0 + rand::random::<f64>());
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt. Returns `None` when done, otherwise what is missing.
    async fn register_round(
        &self,
        key: &LeaderKey,
        own: &Own,
        claimed: &mut Option<Instant>,
    ) -> Result<Option<String>, RoundError> {
        let held = key.read().await?;
        let mine = held
            .as_ref()
            .is_some_and(|h| h.record.raft_id == own.raft_id);
        *claimed = mine.then(|| claimed.unwrap_or_else(Instant::now));
        let record = held.map(|h| h.record);
        match claim::next(own, record.as_ref(), claimed.map(|since| since.elapsed())) {
            Step::Wait(why) => Ok(Some(why)),
            Step::Claim => {
                let created = key.create(&self.claim_record()).await?;
                Ok(Some(if created {
                    "this node has claimed the key and will lead".into()
                } else {
                    "another node was first to claim the key".into()
                }))
            }
            Step::Form => {
                tracing::info!(target: "disco", "{} names this node: it forms the cluster", key.name());
                self.form_alone().await?;
                Ok(None)
            }
            Step::Join(address) => match join_once(self, &[address]).await {
                Ok(address) => {
                    tracing::info!(target: "cluster-join", "successfully joined cluster at {address}");
                    Ok(None)
                }
                Err(why) => Ok(Some(why.to_string())),
            },
        }
    }

    /// A record without a cluster id: a claim, which a leader may overwrite.
    fn claim_record(&self) -> LeaderRecord {
        LeaderRecord {
            cluster_id: String::new(),
            ..record_of(&self.local)
        }
    }
}

enum RoundError {
    Lookup(LookupError),
    Cluster(ClusterError),
}

impl From<LookupError> for RoundError {
    fn from(e: LookupError) -> Self {
        Self::Lookup(e)
    }
}

impl From<ClusterError> for RoundError {
    fn from(e: ClusterError) -> Self {
        Self::Cluster(e)
    }
}

fn record_of(local: &Local) -> LeaderRecord {
    LeaderRecord {
        id: local.name().to_owned(),
        api_addr: local.api_url.clone(),
        addr: local.raft_addr.clone(),
        raft_id: local.raft_id().to_owned(),
        cluster_id: local.cluster().map(|c| c.id).unwrap_or_default(),
    }
}

/// Makes the key name this node while it leads. Checks it every [`CHECK_INTERVAL`], and at once after an
/// election.
pub async fn keep_leader_key(key: LeaderKey, consensus: Consensus, stop: CancellationToken) {
    let mut leadership = consensus.watch_leadership();
    let mut last_trouble = String::new();
    loop {
        if consensus.leads() {
            let trouble = match report_once(&key, consensus.local()).await {
                Ok(trouble) => trouble,
                Err(e) => format!("{}: {e}", key.name()),
            };
            if trouble != last_trouble {
                if !trouble.is_empty() {
                    tracing::warn!(target: "disco", "{trouble}");
                }
                last_trouble = trouble;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// Checks the key and writes it if necessary. Returns a problem for the log, or an empty text.
async fn report_once(key: &LeaderKey, local: &Local) -> Result<String, LookupError> {
    let own = record_of(local);
    let held = key.read().await?;
    match claim::report(&own, held.as_ref().map(|h| &h.record)) {
        Report::Nothing => {}
        Report::Create => {
            key.create(&own).await?;
            tracing::info!(target: "disco", "{} now names this node as leader", key.name());
        }
        Report::Replace => {
            if let Some(held) = held {
                key.replace(&own, held.version).await?;
                tracing::info!(target: "disco", "{} named {}, and now this node as leader", key.name(), held.record.id);
            }
        }
        Report::Conflict { cluster_id } => {
            return Ok(format!(
                "{} names a leader of another cluster ({cluster_id}); give each cluster its own -disco-key, or delete the key if that cluster is gone",
                key.name()
            ));
        }
    }
    Ok(String::new())
}
