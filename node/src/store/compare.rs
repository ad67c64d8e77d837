//! Compares the copies of all members: every node hashes its content at one log entry, the leader determines
//! the majority, and a node with a wrong copy reports that it is not ready, parks the copy and receives a
//! snapshot from the leader.
//!
//! Followers ask their leader for its decision; no message from another node makes a node give up its data.
pub mod state;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use node_db::{ContentHash, Hashing};
use tokio_util::sync::CancellationToken;

pub use self::state::Difference;
use super::{Caller, Opened, Store};
use crate::{
    internode::messages::{PeerRequest, PeerResponse},
    metrics::Counter,
    rejoin::{self, Rejoin},
    store_types::{Comparison, CopyDecision, HashReport, MemberCopy, StoreError, Verdict},
};

/// Interval of requests to members that have not finished.
const REQUEST_INTERVAL: Duration = Duration::from_millis(200);
/// Limit of a request to a member.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Limit of the leader's periodic comparisons: hashing hundreds of gigabytes takes hours.
const PERIODIC_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// Interval at which a node checks whether its copy awaits a decision.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Pause before a leader that has not decided yet, or does not let this node leave yet, is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Determines the majority: the hash of more than half of all voters is right.
pub fn find_majority(copies: &[MemberCopy]) -> Verdict {
    let known: Vec<_> = copies.iter().filter(|copy| copy.hash.is_some()).collect();
    let Some(first) = known.first() else {
        return Verdict::Equal;
    };
    if known.iter().all(|copy| copy.hash == first.hash) {
        return Verdict::Equal;
    }
    let voters = copies.iter().filter(|copy| copy.voter).count();
    let mut counts: BTreeMap<ContentHash, usize> = BTreeMap::new();
    for copy in known.iter().filter(|copy| copy.voter) {
        if let Some(hash) = copy.hash {
            *counts.entry(hash).or_default() += 1;
        }
    }
    let Some((&right, _)) = counts.iter().find(|(_, count)| **count * 2 > voters) else {
        return Verdict::Undecided;
    };
    let wrong = known
        .iter()
        .filter(|copy| copy.hash != Some(right))
        .map(|copy| copy.id.clone())
        .collect();
    Verdict::Differ { right, wrong }
}

/// Whether `requester` may park its data: only if a majority of the voters stays healthy without it.
/// `members`: Raft id, is a voter, is healthy.
pub fn may_leave(members: &[(String, bool, bool)], requester: &str) -> bool {
    let voters = members.iter().filter(|(_, voter, _)| *voter).count();
    let staying = members
        .iter()
        .filter(|(id, voter, healthy)| *voter && *healthy && id != requester)
        .count();
    staying * 2 > voters
}

/// A node's report on its hashing at `index`, from the last one that it began.
pub fn hash_report(last: Option<(u64, Hashing)>, index: u64) -> HashReport {
    match last {
        Some((at, Hashing::Done(hash))) if at == index => HashReport::Done(hash),
        Some((at, Hashing::Failed(why))) if at == index => HashReport::Unavailable(why),
        Some((at, _)) if at > index => {
            HashReport::Unavailable("a later comparison has taken its place".into())
        }
        Some(_) | None => HashReport::Pending,
    }
}

impl Store {
    /// Compares the copies of all members as leader, waiting for their hashes for at most `limit`.
    ///
    /// # Errors
    /// See [`StoreError`]; members of an older format version cannot hash.
    pub async fn compare_as_leader(&self, limit: Duration) -> Result<Comparison, StoreError> {
        let opened = self.open()?;
        if opened.consensus.version() < 2 {
            return Err(StoreError::Refused(
                "copies are compared when every member runs this version or a newer one".into(),
            ));
        }
        let _one_at_a_time = self.0.comparison.comparing.lock().await;
        let deadline = Instant::now() + limit;
        let committed = opened.consensus.proposer().hash_content().await?;
        let index = committed.index;
        let mut copies = self.unhashed_copies(opened);
        loop {
            self.collect_hashes(opened, index, &mut copies).await;
            let open = copies
                .iter()
                .any(|copy| copy.hash.is_none() && copy.note.is_empty());
            if !open || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(REQUEST_INTERVAL).await;
        }
        for copy in &mut copies {
            if copy.hash.is_none() && copy.note.is_empty() {
                copy.note = "no hash in time".into();
            }
        }
        let comparison = Comparison {
            index,
            unix_micros: crate::clock::unix_micros(),
            verdict: find_majority(&copies),
            copies,
        };
        self.record_comparison(opened, &comparison).await;
        Ok(comparison)
    }

    /// Compares the copies of all members, wherever the leader is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn compare(&self, caller: &Caller) -> Result<Comparison, StoreError> {
        let opened = self.open()?;
        let Some(address) = Self::elsewhere(opened) else {
            return self.compare_as_leader(caller.timeout).await;
        };
        let request = PeerRequest::Compare {
            limit: caller.timeout,
            credentials: caller.credentials.clone(),
        };
        match self
            .0
            .peers
            .call(&address, &request, caller.timeout + REQUEST_LIMIT)
            .await
        {
            Ok(PeerResponse::Compared(compared)) => compared,
            Ok(_) => Err(StoreError::Refused(format!(
                "{address} sent an unexpected response"
            ))),
            Err(e) => Err(StoreError::Refused(e.to_string())),
        }
    }

    fn unhashed_copies(&self, opened: &Opened) -> Vec<MemberCopy> {
        let members = opened.consensus.members().into_iter();
        members
            .map(|(id, _, voter)| MemberCopy {
                id: id.0.to_string(),
                voter,
                hash: None,
                note: String::new(),
            })
            .collect()
    }

    async fn collect_hashes(&self, opened: &Opened, index: u64, copies: &mut [MemberCopy]) {
        let addresses: BTreeMap<String, String> = opened
            .consensus
            .members()
            .into_iter()
            .map(|(id, member, _)| (id.0.to_string(), member.raft_addr))
            .collect();
        let asked = copies.iter_mut().map(|copy| {
            let address = addresses.get(&copy.id);
            async move {
                if copy.hash.is_some() || !copy.note.is_empty() {
                    return;
                }
                let report = if copy.id == self.0.local.raft_id() {
                    self.hash_at(index)
                } else {
                    let Some(address) = address else {
                        copy.note = "not a member any more".into();
                        return;
                    };
                    let request = PeerRequest::ContentHash { index };
                    match self.0.peers.call(address, &request, REQUEST_LIMIT).await {
                        Ok(PeerResponse::ContentHash(report)) => report,
                        // It may respond later.
                        Ok(_) | Err(_) => HashReport::Pending,
                    }
                };
                match report {
                    HashReport::Pending => {}
                    HashReport::Done(hash) => copy.hash = Some(hash),
                    HashReport::Unavailable(why) => copy.note = why,
                }
            }
        });
        futures_util::future::join_all(asked).await;
    }

    /// This node's hash at an index.
    pub fn hash_at(&self, index: u64) -> HashReport {
        let Some(opened) = self.0.opened.get() else {
            return HashReport::Pending;
        };
        let last = opened.db.hashing();
        hash_report(
            last.map(|(position, hashing)| (position.index, hashing)),
            index,
        )
    }

    /// Records and logs the result of a comparison that this node made as leader.
    async fn record_comparison(&self, opened: &Opened, comparison: &Comparison) {
        let metrics = &self.0.local.metrics;
        metrics.count(Counter::StoreNumContentComparisons);
        *self.0.comparison.last.lock() = Some(comparison.clone());
        let index = comparison.index;
        match &comparison.verdict {
            Verdict::Equal => {
                tracing::info!(target: "store", "the copies of all members that could be asked are equal at index {index}");
            }
            Verdict::Undecided => {
                metrics.count(Counter::StoreNumContentDifferences);
                tracing::error!(target: "store", "copies differ at index {index}, and no content is held by a majority: {:?}", comparison.copies);
            }
            Verdict::Differ { right, wrong } => {
                metrics.count(Counter::StoreNumContentDifferences);
                tracing::error!(target: "store", "the copies of {} differ from the majority's at index {index}", wrong.join(", "));
                let own = self.0.local.raft_id();
                if wrong.iter().any(|id| id == own)
                    && let HashReport::Done(hash) = self.hash_at(index)
                {
                    self.differs(index, hash, *right);
                    if let Err(e) = opened.consensus.transfer_leadership(None).await {
                        tracing::warn!(target: "store", "transferring leadership: {e}");
                    }
                }
            }
        }
    }

    fn differs(&self, index: u64, own: ContentHash, right: ContentHash) {
        let difference = Difference { index, own, right };
        let mut known = self.0.comparison.difference.lock();
        if known.as_ref() != Some(&difference) {
            tracing::error!(
                target: "store",
                "this node's copy differs from the majority's at index {index}: it is not ready, and joins again with an empty directory as soon as the others have a quorum without it"
            );
            *known = Some(difference);
        }
    }

    /// The difference of this node's copy from the majority's, if any.
    pub fn difference(&self) -> Option<Difference> {
        self.0.comparison.difference.lock().clone()
    }

    /// The last comparison that this node made as leader.
    pub fn last_comparison(&self) -> Option<Comparison> {
        self.0.comparison.last.lock().clone()
    }

    /// As leader: the decision on a member's copy at an index.
    ///
    /// # Errors
    /// This node does not lead.
    pub fn copy_decision(&self, index: u64, requester: &str) -> Result<CopyDecision, StoreError> {
        let opened = self.open()?;
        if !opened.consensus.leads() {
            return Err(StoreError::NotLeader);
        }
        let right = self.last_comparison().and_then(|last| match last.verdict {
            Verdict::Differ { right, .. } if last.index == index => Some(right),
            Verdict::Equal if last.index == index => last.copies.iter().find_map(|copy| copy.hash),
            _ => None,
        });
        let members = opened.consensus.healthy_members();
        let addresses = opened
            .consensus
            .members()
            .into_iter()
            .filter(|(id, ..)| id.0.as_ref() != requester)
            .map(|(_, member, _)| member.raft_addr)
            .collect();
        Ok(CopyDecision {
            right,
            may_leave: may_leave(&members, requester),
            addresses,
        })
    }

    /// Resolves when this node has decided to park its copy: the process must restart.
    pub async fn parks_copy(&self) {
        self.0.comparison.leave.cancelled().await;
    }

    /// Checks this node's own copy once, as follower.
    async fn check_own_copy(&self, settled: &mut u64) -> Result<(), String> {
        let opened = self.open().map_err(|e| e.to_string())?;
        let difference = self.difference();
        let Some((position, Hashing::Done(own))) = opened.db.hashing() else {
            return Ok(());
        };
        let index = difference.as_ref().map_or(position.index, |d| d.index);
        if (difference.is_none() && index <= *settled) || opened.consensus.is_mine() {
            return Ok(());
        }
        let Some(address) = opened.consensus.leadership().addr else {
            return Err("no leader to ask".into());
        };
        let request = PeerRequest::CopyDecision { index };
        let decision = match self.0.peers.call(&address, &request, REQUEST_LIMIT).await {
            Ok(PeerResponse::CopyDecision(decision)) => decision.map_err(|e| e.to_string())?,
            Ok(_) => return Err(format!("{address} does not know the request")),
            Err(e) => return Err(e.to_string()),
        };
        match (&difference, decision.right) {
            (Some(_), _) => {}
            (None, None) => return Err("not decided yet".into()),
            (None, Some(right)) if right == own => {
                *settled = index;
                return Ok(());
            }
            (None, Some(right)) => self.differs(index, own, right),
        }
        if !decision.may_leave {
            return Err("the others have no quorum without this node yet".into());
        }
        self.park_copy(index, decision.addresses)
    }

    fn park_copy(&self, index: u64, addresses: Vec<String>) -> Result<(), String> {
        let cluster = self.0.local.cluster().ok_or("not in a cluster")?;
        let rejoin = Rejoin {
            reason: format!(
                "the copy of node {} differs from the majority's at index {index}",
                self.name()
            ),
            index,
            cluster,
            addresses,
        };
        rejoin::request(&self.0.settings.data_dir, &rejoin).map_err(|e| e.to_string())?;
        tracing::warn!(target: "store", "parking this copy: the node restarts and joins with an empty directory");
        self.0.comparison.leave.cancel();
        Ok(())
    }
}

/// Watches this node's own copy and, as leader, compares all copies every `interval` (zero: only on request),
/// until stopped.
pub async fn watch_copies(store: Store, interval: Duration, stop: CancellationToken) {
    let store = Arc::new(store);
    let (mut settled, mut pause_until) = (0, None::<Instant>);
    let mut compared = Instant::now();
    while stop
        .run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL))
        .await
        .is_some()
    {
        if pause_until.is_none_or(|until| until <= Instant::now()) {
            pause_until = None;
            if let Err(why) = store.check_own_copy(&mut settled).await {
                tracing::debug!(target: "store", "this node's copy: {why}");
                pause_until = Some(Instant::now() + RETRY_PAUSE);
            }
        }
        if interval.is_zero() || compared.elapsed() < interval || !store.is_leader() {
            continue;
        }
        compared = Instant::now();
        let comparing = Arc::clone(&store);
        tokio::spawn(async move {
            if let Err(e) = comparing.compare_as_leader(PERIODIC_LIMIT).await {
                tracing::warn!(target: "store", "comparing the copies: {e}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(of: u8) -> ContentHash {
        ContentHash([of; 32])
    }

    fn copy(id: &str, voter: bool, of: Option<u8>) -> MemberCopy {
        MemberCopy {
            id: id.into(),
            voter,
            hash: of.map(hash),
            note: String::new(),
        }
    }

    #[test]
    fn the_majority_of_all_voters_is_right() {
        let differ = |wrong: &[&str]| Verdict::Differ {
            right: hash(1),
            wrong: wrong.iter().map(|id| (*id).to_owned()).collect(),
        };
        let v = |id, of| copy(id, true, of);
        for (name, copies, want) in [
            (
                "equal",
                vec![v("a", Some(1)), v("b", Some(1))],
                Verdict::Equal,
            ),
            (
                "one known",
                vec![v("a", Some(1)), v("b", None)],
                Verdict::Equal,
            ),
            ("nothing known", vec![v("a", None)], Verdict::Equal),
            (
                "one wrong",
                vec![v("a", Some(1)), v("b", Some(2)), v("c", Some(1))],
                differ(&["b"]),
            ),
            (
                "two against one that is not all",
                vec![v("a", Some(1)), v("b", Some(2)), v("c", None)],
                Verdict::Undecided,
            ),
            (
                "one against one",
                vec![v("a", Some(1)), v("b", Some(2))],
                Verdict::Undecided,
            ),
            (
                "a read-only node has no say",
                vec![
                    v("a", Some(1)),
                    copy("r", false, Some(2)),
                    copy("s", false, Some(2)),
                ],
                differ(&["r", "s"]),
            ),
            (
                "three kinds",
                vec![v("a", Some(1)), v("b", Some(2)), v("c", Some(3))],
                Verdict::Undecided,
            ),
        ] {
            assert_eq!(find_majority(&copies), want, "{name}");
        }
    }

    #[test]
    fn nobody_leaves_who_is_needed_for_a_quorum() {
        let of = |states: &[(bool, bool)]| -> Vec<(String, bool, bool)> {
            let numbered = states.iter().enumerate();
            numbered
                .map(|(at, (voter, healthy))| (at.to_string(), *voter, *healthy))
                .collect()
        };
        for (name, states, want) in [
            ("three healthy", &[(true, true); 3][..], true),
            (
                "another is away",
                &[(true, true), (true, true), (true, false)],
                false,
            ),
            ("one of two", &[(true, true); 2], false),
            ("alone", &[(true, true)], false),
            ("a read-only node", &[(false, true), (true, true)], true),
        ] {
            assert_eq!(may_leave(&of(states), "0"), want, "{name}");
        }
    }

    #[test]
    fn what_a_node_says_of_its_hash() {
        let done = Some((5, Hashing::Done(hash(1))));
        assert_eq!(hash_report(done.clone(), 5), HashReport::Done(hash(1)));
        assert_eq!(hash_report(done.clone(), 6), HashReport::Pending);
        assert!(matches!(hash_report(done, 4), HashReport::Unavailable(_)));
        assert_eq!(
            hash_report(Some((5, Hashing::Running)), 5),
            HashReport::Pending
        );
        assert_eq!(hash_report(None, 5), HashReport::Pending);
        assert!(matches!(
            hash_report(Some((5, Hashing::Failed("x".into()))), 5),
            HashReport::Unavailable(_)
        ));
    }
}
