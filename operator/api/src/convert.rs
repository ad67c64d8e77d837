//! Conversions between what a custom resource's status records and what the nodes' files and reports say
//! (`node-contract`): Kubernetes' integers are signed.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{lineage::Lineage, recovery::LogPosition};

impl Lineage {
    /// A lineage as nodes report it, in force since `since`.
    pub fn of_node(lineage: &node_contract::Lineage, since: Option<Time>) -> Self {
        Self {
            id: lineage.id.clone(),
            epoch: signed(lineage.epoch),
            since,
        }
    }
}

impl From<&Lineage> for node_contract::Lineage {
    fn from(lineage: &Lineage) -> Self {
        Self {
            id: lineage.id.clone(),
            epoch: unsigned(lineage.epoch),
        }
    }
}

impl From<LogPosition> for node_contract::LogPosition {
    fn from(at: LogPosition) -> Self {
        Self {
            term: unsigned(at.term),
            index: unsigned(at.index),
        }
    }
}

impl From<node_contract::LogPosition> for LogPosition {
    fn from(at: node_contract::LogPosition) -> Self {
        Self {
            term: signed(at.term),
            index: signed(at.index),
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Negative numbers, which only an edit by hand can bring about, count as 0.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
