//! Which clusters this installation manages, as their last reconciles found. Nodes of other clusters are not
//! queried.
use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

/// Clusters, by namespace and name. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Managed(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Managed {
    /// Notes whether this installation manages a cluster.
    pub fn note(&self, namespace: &str, name: &str, ours: bool) {
        let cluster = (namespace.to_owned(), name.to_owned());
        let mut clusters = self.0.lock();
        if ours {
            clusters.insert(cluster);
        } else {
            clusters.remove(&cluster);
        }
    }

    /// Does this installation manage the cluster?
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        let cluster = (namespace.to_owned(), name.to_owned());
        self.0.lock().contains(&cluster)
    }
}
