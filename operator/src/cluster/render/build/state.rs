//! The state file: what a data directory may become. It is a file, not an argument, so that pods need no
//! restart when it changes.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use node_contract::{
    FormingPhase, Lineage as NodeLineage, PLAN_FILE, STATE_FILE, StateFile, parked::ParkedPolicy,
};
use operator_api::{
    cluster::MAX_READ_REPLICAS,
    names,
    status::{Pool, Target},
};
use serde::Serialize;

use super::common::{has_readers, metadata};
use crate::cluster::{
    deciders::{recovery, replace},
    facts::view::View,
};

/// The state file's content; None until the cluster has an id.
pub fn state(view: &View<'_>, target: &Target) -> Option<StateFile> {
    let lineage = view.status.lineage.clone().unwrap_or_default();
    let voters = names::voters(view.name);
    let mut members: Vec<String> = (0..target.replicas)
        .map(|o| names::pod(&voters, o))
        .collect();
    // A member that is being removed may restart while it is in the configuration: its vote may be needed for
    // its own removal.
    let live = view.set(Pool::Voter).map_or(0, |set| set.replicas);
    members.extend(
        (target.replicas..live)
            .map(|o| names::pod(&voters, o))
            .filter(|name| view.member(name).is_some()),
    );
    if has_readers(view) {
        let readers = view.wanted_readers().unwrap_or(MAX_READ_REPLICAS);
        members.extend((0..readers).map(|o| names::pod(&names::readers(view.name), o)));
    }
    let mut park: BTreeMap<String, String> = members
        .iter()
        .filter_map(|name| {
            let claim = view.claim(name)?;
            let retired = &view.status.retired_claims;
            let retired = retired.iter().find(|r| r.uid == claim.uid)?;
            let token = format!("{}-{}", retired.uid, retired.retired_at.0.as_second());
            Some((name.clone(), token))
        })
        .collect();
    park.extend(replace::park_tokens(view));
    Some(StateFile {
        cluster_id: view.status.cluster_id.clone()?,
        lineage: NodeLineage::from(&lineage),
        phase: if view.recovering().is_some() {
            FormingPhase::Recovering
        } else if view.is_formed() {
            FormingPhase::Formed
        } else {
            FormingPhase::Forming
        },
        members,
        expect: target.bootstrap_replicas,
        park,
        parked: view.spec.storage.parked.as_ref().map(|parked| {
            let default = ParkedPolicy::default();
            let age = parked.max_age.as_ref().and_then(|age| age.duration().ok());
            ParkedPolicy {
                keep: parked
                    .keep
                    .and_then(|keep| u32::try_from(keep).ok())
                    .unwrap_or(default.keep),
                max_age_seconds: age.map_or(default.max_age_seconds, |age| age.as_secs()),
            }
        }),
    })
}

pub(super) fn config_map(view: &View<'_>, target: &Target) -> Option<ConfigMap> {
    file(
        view,
        names::state(view.name),
        STATE_FILE,
        &state(view, target)?,
    )
}

/// The plan of a recovery, which pods see next to the state file.
pub(super) fn plan(view: &View<'_>) -> Option<ConfigMap> {
    let plan = recovery::plan_file(view)?;
    file(view, names::recovery(view.name), PLAN_FILE, &plan)
}

fn file(view: &View<'_>, name: String, key: &str, content: &impl Serialize) -> Option<ConfigMap> {
    // This type always serializes.
    let text = serde_json::to_string_pretty(content).ok()?;
    Some(ConfigMap {
        metadata: metadata(view, name),
        data: Some(BTreeMap::from([(key.to_owned(), text)])),
        ..ConfigMap::default()
    })
}
