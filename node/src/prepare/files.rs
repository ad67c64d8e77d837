//! The two files that an operator gives to `prepare`: the cluster's state, and the plan of a recovery.
use std::{collections::BTreeMap, fs, io, io::Read, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    identity::{Cluster, Lineage},
    inspect::Entry,
    recovery::peers::{Peer, Peers},
};

/// Larger files are refused: a ConfigMap holds at most 1 MiB.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Longest plan id; it becomes a directory's name.
const MAX_PLAN_ID: usize = 64;

/// Where the cluster is in its life, as the operator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Phase {
    /// It has not formed yet: listed nodes with empty directories may form it.
    Forming,
    /// It has formed: an empty directory can only join.
    Formed,
    /// A quorum was lost and a plan is being followed: nobody else runs.
    Recovering,
}

/// The state file. Unknown fields are let pass, so that an operator may be newer than its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Drawn by the operator.
    pub cluster_id: String,
    /// The lineage that is in force.
    pub lineage: Lineage,
    /// Where the cluster is.
    pub phase: Phase,
    /// Names of the nodes that may form it.
    #[serde(default)]
    pub members: Vec<String>,
    /// Node to a token: its data is that of a member that was removed. It is moved aside once for each token.
    #[serde(default)]
    pub park: BTreeMap<String, String>,
}

impl State {
    /// The token under which a node's data is to be moved aside.
    ///
    /// # Errors
    /// It cannot be a directory's name.
    pub fn parking_of(&self, name: &str) -> Result<Option<&String>, String> {
        match self.park.get(name) {
            Some(token) if !is_file_name(token) => Err(format!(
                "park: {token:?} is not 1 to {MAX_PLAN_ID} letters, digits, '-', '_' or '.'"
            )),
            token => Ok(token),
        }
    }

    /// The cluster that a new directory is made for.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            id: self.cluster_id.clone(),
            lineage: self.lineage.clone(),
        }
    }
}

/// What must hold for the seed's data.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The incarnation that the operator has inspected.
    pub incarnation: String,
    /// Its log reached at least here.
    pub min_last_log: Entry,
}

/// What happens to the nodes that are not the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Others {
    /// Their data is moved aside and they join anew.
    Park,
    /// Those listed as peers follow the plan with their own data: all voters are there, only their addresses have changed.
    Recover,
}

/// The plan file. Unknown fields are refused: a plan that is not understood must not be followed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Names the plan; letters, digits, `-`, `_`, `.`.
    pub plan_id: String,
    /// The cluster to recover.
    pub cluster_id: String,
    /// What the seed's data is of.
    pub from_lineage: Lineage,
    /// What it becomes.
    pub to_lineage: Lineage,
    /// Name of the node whose data is kept.
    pub seed: String,
    /// What must hold for it.
    pub expect: Expect,
    /// Members from now on, as in `peers.json`.
    pub peers: Vec<Peer>,
    /// What becomes of the others.
    pub others: Others,
}

impl Plan {
    /// The peers, checked.
    ///
    /// # Errors
    /// What is wrong with the plan, for a person.
    pub fn checked(&self) -> Result<Peers, String> {
        if !is_file_name(&self.plan_id) {
            return Err(format!(
                "plan_id {:?} is not 1 to {MAX_PLAN_ID} letters, digits, '-', '_' or '.'",
                self.plan_id
            ));
        }
        if self.to_lineage.epoch <= self.from_lineage.epoch
            || self.to_lineage.id == self.from_lineage.id
        {
            return Err(
                "to_lineage must have another id and a greater epoch than from_lineage".into(),
            );
        }
        let peers = Peers::new(self.peers.clone()).map_err(|e| e.to_string())?;
        let seed_votes = peers.get(&self.seed).is_some_and(|peer| !peer.non_voter);
        if !seed_votes {
            return Err(format!(
                "the seed {} is not a voter among the peers",
                self.seed
            ));
        }
        if self.others == Others::Park && peers.members().len() > 1 {
            return Err("a plan that parks the others must list the seed alone: the others come back as new members".into());
        }
        Ok(peers)
    }
}

/// May this be the name of a directory below `parked`?
fn is_file_name(id: &str) -> bool {
    let named = id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    named && !id.is_empty() && id.len() <= MAX_PLAN_ID && !id.starts_with('.')
}

/// Reads one of the files.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(|e: io::Error| told(&e))?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(told(&format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    serde_json::from_slice(&content).map_err(|e| told(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked() {
        let state = |park: &str| -> State {
            let text = format!(
                r#"{{"cluster_id":"c","lineage":{{"id":"l","epoch":0}},"phase":"Formed","park":{park}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let fine = state(r#"{"a":"uid-1700000000"}"#);
        let token = "uid-1700000000".to_owned();
        assert_eq!(fine.parking_of("a"), Ok(Some(&token)));
        assert_eq!(fine.parking_of("b"), Ok(None));
        for bad in ["", "../x", ".x", "a/b"] {
            let state = state(&format!(r#"{{"a":"{bad}"}}"#));
            assert!(state.parking_of("a").is_err(), "{bad}");
        }
    }

    #[test]
    fn plans_are_checked() {
        let plan = |id: &str, epoch: u64, seed: &str, peers: &str, others: &str| {
            let text = format!(
                r#"{{"plan_id":"{id}","cluster_id":"c","from_lineage":{{"id":"l","epoch":1}},"to_lineage":{{"id":"m","epoch":{epoch}}},
                "seed":"{seed}","expect":{{"incarnation":"i","min_last_log":{{"term":1,"index":2}}}},"peers":{peers},"others":"{others}"}}"#
            );
            serde_json::from_str::<Plan>(&text)
                .unwrap()
                .checked()
                .map(|_| ())
        };
        let (one, two) = (
            r#"[{"id":"a","address":"a:1"}]"#,
            r#"[{"id":"a","address":"a:1"},{"id":"b","address":"b:1","non_voter":true}]"#,
        );
        assert_eq!(plan("p-1", 2, "a", one, "park"), Ok(()));
        assert_eq!(plan("p-1", 2, "a", two, "recover"), Ok(()));
        let cases = [
            (plan("", 2, "a", one, "park"), "plan_id"),
            (plan("../x", 2, "a", one, "park"), "plan_id"),
            (plan("..", 2, "a", one, "park"), "plan_id"),
            (plan("p", 1, "a", one, "park"), "to_lineage"),
            (plan("p", 2, "b", one, "park"), "the seed b"),
            (plan("p", 2, "b", two, "recover"), "the seed b"),
            (plan("p", 2, "a", two, "park"), "the seed alone"),
            (plan("p", 2, "a", "[]", "park"), "need at least one voter"),
        ];
        for (result, text) in cases {
            assert!(
                result.clone().is_err_and(|e| e.contains(text)),
                "{text}: {result:?}"
            );
        }
        assert!(serde_json::from_str::<Plan>(r#"{"plan_id":"p","surprise":1}"#).is_err());
    }

    #[test]
    fn the_operators_plan_is_read() {
        let golden = include_str!("../../../operator/tests/golden/plan.json");
        let plan: Plan = serde_json::from_str(golden).unwrap();
        plan.checked().unwrap();
        assert_eq!((plan.seed.as_str(), plan.others), ("demo-2", Others::Park));
        assert_eq!(
            plan.expect.min_last_log,
            Entry {
                term: 3,
                index: 100
            }
        );
        assert_eq!((plan.from_lineage.epoch, plan.to_lineage.epoch), (0, 1));
    }
}
