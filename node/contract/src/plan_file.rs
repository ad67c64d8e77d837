//! The plan file: how `rqlited prepare` recovers a cluster that lost its quorum. The operator writes it into
//! a ConfigMap beside the state file.
use serde::{Deserialize, Serialize};

use crate::{Lineage, LogPosition, directory_name_rule, is_directory_name};

/// Name of the file: the key in its ConfigMap, and the file's name in the pod.
pub const PLAN_FILE: &str = "plan.json";

/// The content of the plan file. Unknown fields are refused: a plan that is not understood completely must
/// not be followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Names the plan, and the directory in which other data is parked: letters, digits, `-`, `_` and `.`.
    pub plan_id: String,
    /// The cluster to recover.
    pub cluster_id: String,
    /// Lineage of the seed's data.
    pub from_lineage: Lineage,
    /// Lineage that the plan begins.
    pub to_lineage: Lineage,
    /// Name of the node whose data is kept.
    pub seed: String,
    /// What must hold for the seed's data.
    pub expect: SeedExpectation,
    /// Members from now on, as in `peers.json`.
    pub peers: Vec<Peer>,
    /// What happens to the other nodes.
    pub others: Others,
}

impl PlanFile {
    /// Checks everything that does not depend on the peers.
    ///
    /// # Errors
    /// What is wrong with the plan.
    pub fn check(&self) -> Result<(), String> {
        if !is_directory_name(&self.plan_id) {
            return Err(format!(
                "plan_id {:?} is not {}",
                self.plan_id,
                directory_name_rule()
            ));
        }
        let (from, to) = (&self.from_lineage, &self.to_lineage);
        if to.epoch <= from.epoch || to.id == from.id {
            return Err(
                "to_lineage must have another id and a greater epoch than from_lineage".into(),
            );
        }
        Ok(())
    }
}

/// What must hold for the seed's data before a plan is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedExpectation {
    /// Incarnation of the data directory that the operator inspected.
    pub incarnation: String,
    /// The log reaches at least this position.
    pub min_last_log: LogPosition,
}

/// A member, as rqlite's `peers.json` lists it. Unknown fields are refused, as in the plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The node's name (`-node-id`).
    #[serde(default)]
    pub id: String,
    /// Its Raft address from now on, `host:port`.
    #[serde(default)]
    pub address: String,
    /// It does not vote. Defaults to false.
    #[serde(default)]
    pub non_voter: bool,
}

/// What happens to the nodes that are not the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Others {
    /// Their data is parked and they join as new members.
    Park,
    /// Those listed as peers follow the plan with their own data: all voters exist, only their addresses
    /// changed.
    Recover,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../tests/golden/plan.json");

    #[test]
    fn the_files_bytes_are_those_on_record() {
        let plan: PlanFile = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(serde_json::to_string_pretty(&plan).unwrap(), GOLDEN);
        assert_eq!((plan.seed.as_str(), plan.others), ("demo-2", Others::Park));
        let at = LogPosition {
            term: 3,
            index: 100,
        };
        assert_eq!(plan.expect.min_last_log, at);
        assert_eq!((plan.from_lineage.epoch, plan.to_lineage.epoch), (0, 1));
        assert_eq!(plan.check(), Ok(()));
    }

    #[test]
    fn unknown_fields_are_refused() {
        for (field, with_more) in [
            ("\"plan_id\"", "\"surprise\": 1, \"plan_id\""),
            ("\"incarnation\"", "\"surprise\": 1, \"incarnation\""),
            ("\"address\"", "\"surprise\": 1, \"address\""),
        ] {
            let text = GOLDEN.replace(field, with_more);
            assert!(serde_json::from_str::<PlanFile>(&text).is_err(), "{text}");
        }
    }
}
