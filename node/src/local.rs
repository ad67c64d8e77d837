//! This node as its own rooms and its peers know it: identity, addresses, and what was last heard from a leader.
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    identity::{Cluster, FormingRight, Identity, IdentityError},
    metrics::Metrics,
    version,
};

/// Shared by everything that speaks for this node.
#[derive(Debug)]
pub struct Local {
    raft_dir: PathBuf,
    raft_id: String,
    name: String,
    identity: Mutex<Identity>,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Advertised HTTP URL, for example `http://localhost:4001`.
    pub api_url: String,
    /// What this node has counted.
    pub metrics: Arc<Metrics>,
    dial_timeout: Duration,
    started: Instant,
    /// Milliseconds since `started` of the last message from a leader, plus one; 0 is never.
    leader_contact: AtomicU64,
    /// The commit index that the leader last sent.
    leader_commit: AtomicU64,
    /// The leader said of itself that it has no quorum.
    leader_without_quorum: AtomicBool,
    /// This node leads and has no quorum.
    leads_without_quorum: AtomicBool,
    /// Milliseconds since `started` at which the cluster was seen to be without a leader, plus one; 0 while it has one.
    unled: AtomicU64,
    /// Raft id to advertised Raft address, of members that said they have moved since the membership was written.
    moved: Mutex<BTreeMap<String, String>>,
    /// The format version in effect in this node's cluster, as far as its log is applied here.
    format_version: AtomicU16,
    /// Raft id to the newest format version that the node said it speaks.
    spoken: Mutex<BTreeMap<String, u16>>,
    /// Raft id to advertised Raft address, as the newest membership says.
    recorded: Mutex<BTreeMap<String, String>>,
}

/// Members noted as moved. A cluster has a few; the rest would be somebody's noise.
const MAX_MOVED: usize = 64;
/// Nodes whose format version is noted. More than any cluster has; the rest would be somebody's noise.
const MAX_SPOKEN: usize = 256;

impl Local {
    /// `dial_timeout` bounds connecting to another node for Raft's own messages.
    pub fn new(
        raft_dir: PathBuf,
        identity: Identity,
        raft_addr: String,
        api_url: String,
        dial_timeout: Duration,
    ) -> Self {
        Self {
            raft_dir,
            raft_id: identity.raft_id(),
            name: identity.name.clone(),
            identity: Mutex::new(identity),
            raft_addr,
            api_url,
            metrics: Arc::default(),
            dial_timeout,
            started: Instant::now(),
            leader_contact: AtomicU64::new(0),
            leader_commit: AtomicU64::new(0),
            leader_without_quorum: AtomicBool::new(false),
            leads_without_quorum: AtomicBool::new(false),
            unled: AtomicU64::new(0),
            moved: Mutex::default(),
            format_version: AtomicU16::new(version::OLDEST),
            spoken: Mutex::default(),
            recorded: Mutex::default(),
        }
    }

    /// `<name>#<incarnation>`.
    pub fn raft_id(&self) -> &str {
        &self.raft_id
    }

    /// What users call this node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that this node belongs to, if any.
    pub fn cluster(&self) -> Option<Cluster> {
        self.identity().cluster.clone()
    }

    /// A copy of the identity.
    pub fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// Connecting takes at most this long.
    pub fn dial_timeout(&self) -> Duration {
        self.dial_timeout
    }

    /// Becomes a member of `cluster`, durably. Nothing happens if it is one already.
    ///
    /// # Errors
    /// It belongs to another cluster, or the disk refused.
    pub fn adopt(&self, cluster: &Cluster) -> Result<(), AdoptError> {
        self.change(|identity| match &identity.cluster {
            Some(own) if own == cluster => Ok(false),
            Some(own) => Err(AdoptError::Other {
                own: own.id.clone(),
                other: cluster.id.clone(),
            }),
            None if !identity.may_enter(cluster) => Err(AdoptError::NotMeantFor {
                other: cluster.id.clone(),
            }),
            None => {
                identity.cluster = Some(cluster.clone());
                Ok(true)
            }
        })
    }

    /// Agrees, durably and once, to take part in the first forming of a cluster with exactly these members.
    ///
    /// # Errors
    /// It is in a cluster, it agreed to another set, or the disk refused.
    pub fn pledge(&self, cluster: &Cluster, members: &[String]) -> Result<(), AdoptError> {
        self.change(|identity| match (&identity.cluster, &identity.pledged) {
            (Some(own), Some(pledged)) if own == cluster && pledged == members => Ok(false),
            (Some(own), _) => Err(AdoptError::Other {
                own: own.id.clone(),
                other: cluster.id.clone(),
            }),
            (None, Some(pledged)) => Err(AdoptError::Pledged {
                members: pledged.join(", "),
            }),
            (None, None) => {
                let may = match identity.forming_right() {
                    FormingRight::Any => true,
                    FormingRight::Only(own) => own == *cluster,
                    FormingRight::JoinOnly(_) => false,
                };
                if !may {
                    return Err(AdoptError::NotMeantFor {
                        other: cluster.id.clone(),
                    });
                }
                identity.cluster = Some(cluster.clone());
                identity.pledged = Some(members.to_vec());
                Ok(true)
            }
        })
    }

    /// Is no longer bound to a forming that will not happen. Only for a node without log and vote.
    ///
    /// # Errors
    /// The disk refused.
    pub fn release(&self) -> Result<(), AdoptError> {
        self.change(|identity| {
            let bound = identity.pledged.is_some();
            if bound {
                identity.pledged = None;
                identity.cluster = None;
            }
            Ok(bound)
        })
    }

    /// Becomes a member of a cluster whose leader has admitted it, dropping a pledge. Only for a node without log and vote: nothing that
    /// it could have acknowledged is forgotten.
    ///
    /// # Errors
    /// The disk refused.
    pub fn enter(&self, cluster: &Cluster) -> Result<(), AdoptError> {
        self.change(|identity| {
            if !identity.may_enter(cluster) {
                return Err(AdoptError::NotMeantFor {
                    other: cluster.id.clone(),
                });
            }
            let changed = identity.cluster.as_ref() != Some(cluster) || identity.pledged.is_some();
            identity.cluster = Some(cluster.clone());
            identity.pledged = None;
            Ok(changed)
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Identity) -> Result<bool, AdoptError>,
    ) -> Result<(), AdoptError> {
        let mut held = self.identity.lock();
        let mut next = held.clone();
        if change(&mut next)? {
            next.save(&self.raft_dir)?;
            *held = next;
        }
        Ok(())
    }

    /// Notes where a member says that it is now. A hint only: the Raft id is checked at every dial.
    pub fn note_moved(&self, raft_id: &str, raft_addr: &str) {
        let mut moved = self.moved.lock();
        if moved.len() < MAX_MOVED || moved.contains_key(raft_id) {
            moved.insert(raft_id.to_owned(), raft_addr.to_owned());
        }
    }

    /// Where a member said that it is now.
    pub fn moved_to(&self, raft_id: &str) -> Option<String> {
        let moved = self.moved.lock();
        moved.get(raft_id).cloned()
    }

    /// The member is not there (any more).
    pub fn forget_moved(&self, raft_id: &str) {
        let mut moved = self.moved.lock();
        moved.remove(raft_id);
    }

    /// The format version in effect in this node's cluster, as far as its log is applied here. Entries and messages of a version are
    /// sent only when it is at least that.
    pub fn format_version(&self) -> u16 {
        self.format_version.load(Ordering::Acquire)
    }

    /// Notes the version in effect. It never falls, except that a snapshot or a fresh start may set it.
    pub fn set_format_version(&self, version: u16) {
        self.format_version.store(version, Ordering::Release);
    }

    /// Notes the newest format version that a node says it speaks.
    pub fn note_spoken(&self, raft_id: &str, version: u16) {
        let mut spoken = self.spoken.lock();
        if spoken.len() < MAX_SPOKEN || spoken.contains_key(raft_id) {
            spoken.insert(raft_id.to_owned(), version);
        }
    }

    /// The newest format version that a node speaks, if it said so since it was last reachable. Of this node, always.
    pub fn spoken(&self, raft_id: &str) -> Option<u16> {
        if raft_id == self.raft_id {
            return Some(version::NEWEST);
        }
        let spoken = self.spoken.lock();
        spoken.get(raft_id).copied()
    }

    /// The node cannot be reached: it may come back as another version.
    pub fn forget_spoken(&self, raft_id: &str) {
        let mut spoken = self.spoken.lock();
        spoken.remove(raft_id);
    }

    /// Notes the addresses of a new membership.
    pub fn note_recorded(&self, addresses: BTreeMap<String, String>) {
        *self.recorded.lock() = addresses;
    }

    /// Where the newest membership says that the member is.
    pub fn recorded(&self, raft_id: &str) -> Option<String> {
        let recorded = self.recorded.lock();
        recorded.get(raft_id).cloned()
    }

    /// Notes a message from a leader that this node follows.
    pub fn heard_from_leader(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.leader_contact
            .store(now.saturating_add(1), Ordering::Relaxed);
    }

    /// Notes that a leader's append was followed. One that has no quorum knows no better than this node what is committed elsewhere, so it
    /// is not heard.
    pub fn followed_leader(&self, without_quorum: bool) {
        if !without_quorum {
            self.heard_from_leader();
        }
        self.leader_without_quorum
            .store(without_quorum, Ordering::Relaxed);
    }

    /// The leader that this node follows said last that it has no quorum.
    pub fn leader_is_without_quorum(&self) -> bool {
        self.leader_without_quorum.load(Ordering::Relaxed)
    }

    /// What this node tells its followers.
    pub fn set_leads_without_quorum(&self, without: bool) {
        self.leads_without_quorum.store(without, Ordering::Relaxed);
    }

    /// This node leads, but has not heard a quorum for an election timeout.
    pub fn leads_without_quorum(&self) -> bool {
        self.leads_without_quorum.load(Ordering::Relaxed)
    }

    /// Notes whether anybody leads.
    pub fn note_led(&self, led: bool) {
        if led {
            self.unled.store(0, Ordering::Relaxed);
        } else if self.unled.load(Ordering::Relaxed) == 0 {
            let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.unled.store(now.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// For how long nobody has been seen to lead; zero while somebody does.
    pub fn unled_for(&self) -> Duration {
        match self.unled.load(Ordering::Relaxed).checked_sub(1) {
            Some(at) => self
                .started
                .elapsed()
                .saturating_sub(Duration::from_millis(at)),
            None => Duration::ZERO,
        }
    }

    /// Notes a commit index. One from a deposed leader is not above the present one's, so the greatest counts.
    pub fn leader_committed(&self, index: u64) {
        self.leader_commit.fetch_max(index, Ordering::Relaxed);
    }

    /// How long ago a leader was last heard; `None` if never.
    pub fn since_leader_contact(&self) -> Option<Duration> {
        let at = self.leader_contact.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.started
                .elapsed()
                .saturating_sub(Duration::from_millis(at)),
        )
    }

    /// The commit index that the leader last sent.
    pub fn leader_commit(&self) -> u64 {
        self.leader_commit.load(Ordering::Relaxed)
    }
}

/// Why this node does not become a member.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is one elsewhere.
    #[error(
        "this node belongs to cluster {own}, not to {other}; to move it, give it an empty data directory"
    )]
    Other {
        /// Its cluster.
        own: String,
        /// The one that asked.
        other: String,
    },
    /// It was prepared for another one, or not for forming any.
    #[error("this node was not prepared to form or enter cluster {other}")]
    NotMeantFor {
        /// The one that asked.
        other: String,
    },
    /// It agreed to form another one.
    #[error("this node has agreed to form a cluster with {members}")]
    Pledged {
        /// That cluster's members.
        members: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] IdentityError),
}
