//! Facts about this node that its modules and peers share: identity, addresses, and the last contact with a
//! leader.
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
    transport::{Dialed, Transport},
    version,
};

/// Shared by all modules of this node.
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
    /// This node's metrics.
    pub metrics: Arc<Metrics>,
    /// How connections with other nodes are secured.
    pub transport: Arc<Transport>,
    dial_timeout: Duration,
    started: Instant,
    /// Milliseconds since `started` of the last message from a leader, plus one; 0 is never.
    leader_contact: AtomicU64,
    /// The commit index that the leader last sent.
    leader_commit: AtomicU64,
    /// The leader reported that it has no quorum.
    leader_without_quorum: AtomicBool,
    /// This node leads and has no quorum.
    leads_without_quorum: AtomicBool,
    /// Milliseconds since `started` at which the cluster lost its leader, plus one; 0 while it has one.
    leaderless_since: AtomicU64,
    /// Raft id to advertised Raft address, of members that announced a move since the membership was written.
    moved: Mutex<BTreeMap<String, String>>,
    /// The format version in effect in this node's cluster, as far as its log is applied here.
    format_version: AtomicU16,
    /// Raft id to the newest format version that the node supports.
    supported: Mutex<BTreeMap<String, u16>>,
    /// Raft id to advertised Raft address, from the newest membership.
    recorded: Mutex<BTreeMap<String, String>>,
}

/// Limit of announced moves. A cluster has a few; more would come from faulty or hostile senders.
const MAX_MOVED: usize = 64;
/// Limit of known format versions. More than any cluster has nodes; more would come from faulty or hostile
/// senders.
const MAX_SUPPORTED: usize = 256;

impl Local {
    /// Creates the value; `dial_timeout` limits connecting to another node for Raft's own messages.
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
            transport: Arc::default(),
            dial_timeout,
            started: Instant::now(),
            leader_contact: AtomicU64::new(0),
            leader_commit: AtomicU64::new(0),
            leader_without_quorum: AtomicBool::new(false),
            leads_without_quorum: AtomicBool::new(false),
            leaderless_since: AtomicU64::new(0),
            moved: Mutex::default(),
            format_version: AtomicU16::new(version::OLDEST),
            supported: Mutex::default(),
            recorded: Mutex::default(),
        }
    }

    /// Secures connections with other nodes like this; without it they are plain.
    #[must_use]
    pub fn with_transport(self, transport: Arc<Transport>) -> Self {
        Self { transport, ..self }
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

    /// Limit for connecting to another node: with TLS there are three round trips instead of two.
    pub fn dial_timeout(&self) -> Duration {
        match self.transport.dials() {
            Dialed::Plain => self.dial_timeout,
            Dialed::Tls => self.dial_timeout * 3 / 2,
        }
    }

    /// Becomes a member of `cluster`, durably. Does nothing if it already is one.
    ///
    /// # Errors
    /// It belongs to another cluster, or an I/O error.
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

    /// Agrees, durably and once, to form a cluster with exactly these members.
    ///
    /// # Errors
    /// It is in a cluster, it has agreed to another set of members, or an I/O error.
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

    /// Cancels the agreement to form a cluster that will not be formed. Only for a node without log and vote.
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

    /// Becomes a member of a cluster whose leader has admitted it, and drops an agreement to form one. Only
    /// for a node without log and vote, so nothing that it could have acknowledged is forgotten.
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

    /// Records the address that a moved member announced. A hint only: the Raft id is checked at every
    /// connection.
    pub fn note_moved(&self, raft_id: &str, raft_addr: &str) {
        let mut moved = self.moved.lock();
        if moved.len() < MAX_MOVED || moved.contains_key(raft_id) {
            moved.insert(raft_id.to_owned(), raft_addr.to_owned());
        }
    }

    /// The address that a moved member announced.
    pub fn moved_to(&self, raft_id: &str) -> Option<String> {
        let moved = self.moved.lock();
        moved.get(raft_id).cloned()
    }

    /// Forgets an announced address at which the member was not found.
    pub fn forget_moved(&self, raft_id: &str) {
        let mut moved = self.moved.lock();
        moved.remove(raft_id);
    }

    /// The format version in effect in this node's cluster, as far as its log is applied here. Entries and
    /// messages of a newer version must not be sent.
    pub fn format_version(&self) -> u16 {
        self.format_version.load(Ordering::Acquire)
    }

    /// Sets the version in effect. It never falls, except that a snapshot or a fresh start may set it.
    pub fn set_format_version(&self, version: u16) {
        self.format_version.store(version, Ordering::Release);
    }

    /// Records the newest format version that a node supports.
    pub fn note_supported_version(&self, raft_id: &str, version: u16) {
        let mut supported = self.supported.lock();
        if supported.len() < MAX_SUPPORTED || supported.contains_key(raft_id) {
            supported.insert(raft_id.to_owned(), version);
        }
    }

    /// The newest format version that a node supports, if it announced it since it was last reachable. Always
    /// known for this node.
    pub fn supported_version(&self, raft_id: &str) -> Option<u16> {
        if raft_id == self.raft_id {
            return Some(version::NEWEST);
        }
        let supported = self.supported.lock();
        supported.get(raft_id).copied()
    }

    /// Forgets the version of an unreachable node: it may return with another one.
    pub fn forget_supported_version(&self, raft_id: &str) {
        let mut supported = self.supported.lock();
        supported.remove(raft_id);
    }

    /// Records the addresses in a new membership.
    pub fn note_recorded(&self, addresses: BTreeMap<String, String>) {
        *self.recorded.lock() = addresses;
    }

    /// The member's address in the newest membership.
    pub fn recorded(&self, raft_id: &str) -> Option<String> {
        let recorded = self.recorded.lock();
        recorded.get(raft_id).cloned()
    }

    /// Records a message from a leader that this node follows.
    pub fn heard_from_leader(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.leader_contact
            .store(now.saturating_add(1), Ordering::Relaxed);
    }

    /// Records that a leader's append was accepted. A leader without a quorum does not know what is committed
    /// elsewhere, so it does not count as contact.
    pub fn followed_leader(&self, without_quorum: bool) {
        if !without_quorum {
            self.heard_from_leader();
        }
        self.leader_without_quorum
            .store(without_quorum, Ordering::Relaxed);
    }

    /// Whether the leader that this node follows last reported that it has no quorum.
    pub fn leader_is_without_quorum(&self) -> bool {
        self.leader_without_quorum.load(Ordering::Relaxed)
    }

    /// Sets what this node reports to its followers.
    pub fn set_leads_without_quorum(&self, without: bool) {
        self.leads_without_quorum.store(without, Ordering::Relaxed);
    }

    /// Whether this node leads, but has had no response from a quorum for an election timeout.
    pub fn leads_without_quorum(&self) -> bool {
        self.leads_without_quorum.load(Ordering::Relaxed)
    }

    /// Records whether the cluster has a leader.
    pub fn note_leader_known(&self, led: bool) {
        if led {
            self.leaderless_since.store(0, Ordering::Relaxed);
        } else if self.leaderless_since.load(Ordering::Relaxed) == 0 {
            let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.leaderless_since
                .store(now.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Time since the cluster lost its leader, as seen here; zero while it has one.
    pub fn leaderless_for(&self) -> Duration {
        match self.leaderless_since.load(Ordering::Relaxed).checked_sub(1) {
            Some(at) => self
                .started
                .elapsed()
                .saturating_sub(Duration::from_millis(at)),
            None => Duration::ZERO,
        }
    }

    /// Records a commit index. That of a deposed leader is not above the present one's, so the maximum
    /// counts.
    pub fn leader_committed(&self, index: u64) {
        self.leader_commit.fetch_max(index, Ordering::Relaxed);
    }

    /// Time since the last message from a leader; `None` if there was none.
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

/// Why this node does not become a member of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is a member of another cluster.
    #[error(
        "this node belongs to cluster {own}, not to {other}; to move it, give it an empty data directory"
    )]
    Other {
        /// Its cluster.
        own: String,
        /// The other cluster.
        other: String,
    },
    /// It was prepared for another cluster, or only to join one.
    #[error("this node was not prepared to form or enter cluster {other}")]
    NotMeantFor {
        /// The other cluster.
        other: String,
    },
    /// It has agreed to form another cluster.
    #[error("this node has agreed to form a cluster with {members}")]
    Pledged {
        /// That cluster's members.
        members: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] IdentityError),
}
