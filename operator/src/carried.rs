//! State that is carried in memory from one reconcile to the next and that no Kubernetes object holds. After
//! a restart of the operator it is empty, which costs only repeated work.
use std::collections::{BTreeMap, HashMap, HashSet};

use kube::ResourceExt;
use node_contract::RestoreState;
use operator_api::RqliteCluster;
use parking_lot::Mutex;

use crate::{
    cluster::facts::{
        observation::{DatabaseCheck, Edit, LeaderSeen, TakenName},
        secrets::ObservedSecret,
    },
    error::{Class, Error},
};

/// The carried state of one cluster, as input of an observation.
#[derive(Clone, Debug, Default)]
pub struct CarriedState {
    /// Whether the namespace is being deleted.
    pub namespace_ends: bool,
    /// What the API server refused in the last reconcile.
    pub refused: Option<String>,
    /// Results of database checks, by pod.
    pub checks: BTreeMap<String, DatabaseCheck>,
    /// The leader's reports about restores in place, by id of the request.
    pub restores: BTreeMap<String, RestoreState>,
    /// Recent external edits of the operator's objects.
    pub edits: Vec<Edit>,
    /// Objects of others that have names of the cluster's.
    pub taken: Vec<TakenName>,
    /// The leader as last confirmed.
    pub leader_seen: Option<LeaderSeen>,
    /// The Secrets of the cluster and those that its spec names, which no watch shows.
    pub secrets: BTreeMap<String, ObservedSecret>,
    /// What cert-manager reports about certificates that it has not issued.
    pub issued: BTreeMap<String, String>,
}

/// The leader as last confirmed, by uid of the cluster.
#[derive(Debug, Default)]
pub struct Leaders(Mutex<HashMap<String, LeaderSeen>>);

impl Leaders {
    /// The leader of one cluster.
    pub fn get(&self, uid: &str) -> Option<LeaderSeen> {
        let all = self.0.lock();
        all.get(uid).cloned()
    }

    /// Stores what an observation showed.
    pub fn note(&self, uid: &str, seen: Option<LeaderSeen>) {
        let mut all = self.0.lock();
        match seen {
            Some(seen) => all.insert(uid.to_owned(), seen),
            None => all.remove(uid),
        };
    }
}

/// Results of database checks, by uid of the cluster and pod.
#[derive(Debug, Default)]
pub struct Checks(Mutex<HashMap<String, BTreeMap<String, DatabaseCheck>>>);

impl Checks {
    /// Stores the result of a check.
    pub fn note(&self, cluster: &RqliteCluster, pod: &str, checked: DatabaseCheck) {
        let mut all = self.0.lock();
        let of_cluster = all.entry(cluster.uid().unwrap_or_default()).or_default();
        of_cluster.insert(pod.to_owned(), checked);
    }

    /// The checks of one cluster, by pod.
    pub fn get(&self, uid: &str) -> BTreeMap<String, DatabaseCheck> {
        let all = self.0.lock();
        all.get(uid).cloned().unwrap_or_default()
    }

    /// Removes the results of a deleted cluster or a finished recovery.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.remove(uid);
    }
}

/// Leaders' reports about restores in place, by uid of the cluster and id of the request.
#[derive(Debug, Default)]
pub struct Restores(Mutex<HashMap<String, BTreeMap<String, RestoreState>>>);

/// Requests whose outcome is remembered for each cluster.
const MAX_RESTORES: usize = 32;

impl Restores {
    /// Stores a leader's report.
    pub fn note(&self, uid: &str, id: &str, state: RestoreState) {
        let mut all = self.0.lock();
        let of_cluster = all.entry(uid.to_owned()).or_default();
        if of_cluster.len() >= MAX_RESTORES {
            of_cluster.clear();
        }
        of_cluster.insert(id.to_owned(), state);
    }

    /// The reports, by id of the request.
    pub fn get(&self, uid: &str) -> BTreeMap<String, RestoreState> {
        let all = self.0.lock();
        all.get(uid).cloned().unwrap_or_default()
    }

    /// Removes the reports about a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.remove(uid);
    }
}

/// Uids of clusters whose namespace is being deleted, which nothing can take back.
#[derive(Debug, Default)]
pub struct Ending(Mutex<HashSet<String>>);

impl Ending {
    /// Whether the namespace of this cluster is being deleted.
    pub fn get(&self, uid: &str) -> bool {
        let all = self.0.lock();
        all.contains(uid)
    }

    /// Stores what an error says.
    pub fn note(&self, uid: &str, error: &Error) {
        if error.namespace_ends() {
            let mut all = self.0.lock();
            all.insert(uid.to_owned());
        }
    }

    /// Removes a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.remove(uid);
    }
}

/// What the API server refused in the last reconcile, by uid of the cluster.
#[derive(Debug, Default)]
pub struct Refused(Mutex<HashMap<String, String>>);

impl Refused {
    /// What was refused in the last reconcile of one cluster.
    pub fn get(&self, uid: &str) -> Option<String> {
        let all = self.0.lock();
        all.get(uid).cloned()
    }

    /// Stores the result of a reconcile. Transient errors are ignored.
    pub fn note(&self, uid: &str, result: Result<(), &Error>) {
        let mut all = self.0.lock();
        match result {
            Ok(()) => {
                all.remove(uid);
            }
            Err(error) if error.class() == Class::Refused && !error.namespace_ends() => {
                all.insert(uid.to_owned(), error.to_string());
            }
            Err(_) => {}
        }
    }

    /// Removes the entry of a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.remove(uid);
    }
}

/// Objects of others that have names of a cluster's, by uid of the cluster.
#[derive(Debug, Default)]
pub struct Taken(Mutex<HashMap<String, Vec<TakenName>>>);

impl Taken {
    /// Those that the last reconcile has found.
    pub fn get(&self, uid: &str) -> Vec<TakenName> {
        let all = self.0.lock();
        all.get(uid).cloned().unwrap_or_default()
    }

    /// Stores what a reconcile has found; returns whether that is another result than before.
    pub fn note(&self, uid: &str, taken: &[TakenName]) -> bool {
        let mut all = self.0.lock();
        let before = if taken.is_empty() {
            all.remove(uid)
        } else {
            all.insert(uid.to_owned(), taken.to_vec())
        };
        before.unwrap_or_default() != taken
    }

    /// Removes the entry of a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.remove(uid);
    }
}
