//! Reads the two files that an operator gives to `prepare`, the cluster's state and the plan of a recovery,
//! and checks a plan's peers.
use std::{fs, io, io::Read, path::Path};

use node_contract::{Others, PlanFile};
use serde::de::DeserializeOwned;

use crate::recovery::peers::Peers;

/// Larger files are refused: a ConfigMap holds at most 1 MiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Checks a plan and returns its peers.
///
/// # Errors
/// What is wrong with the plan.
pub fn checked_peers(plan: &PlanFile) -> Result<Peers, String> {
    plan.check()?;
    let peers = Peers::new(plan.peers.clone()).map_err(|e| e.to_string())?;
    let seed_votes = peers.get(&plan.seed).is_some_and(|peer| !peer.non_voter);
    if !seed_votes {
        return Err(format!(
            "the seed {} is not a voter among the peers",
            plan.seed
        ));
    }
    if plan.others == Others::Park && peers.members().len() > 1 {
        return Err("a plan that parks the others must list the seed alone: the others come back as new members".into());
    }
    Ok(peers)
}

/// Reads one of the files.
///
/// # Errors
/// The file cannot be read, is too large, or has the wrong format.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let with_path = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(|e: io::Error| with_path(&e))?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(with_path(&format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    serde_json::from_slice(&content).map_err(|e| with_path(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_checked() {
        let plan = |id: &str, epoch: u64, seed: &str, peers: &str, others: &str| {
            let text = format!(
                r#"{{"plan_id":"{id}","cluster_id":"c","from_lineage":{{"id":"l","epoch":1}},"to_lineage":{{"id":"m","epoch":{epoch}}},
                "seed":"{seed}","expect":{{"incarnation":"i","min_last_log":{{"term":1,"index":2}}}},"peers":{peers},"others":"{others}"}}"#
            );
            checked_peers(&serde_json::from_str(&text).unwrap()).map(|_| ())
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
        assert!(serde_json::from_str::<PlanFile>(r#"{"plan_id":"p","surprise":1}"#).is_err());
    }
}
