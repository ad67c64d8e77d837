//! Removes the finalizers of backups: without an operator they would block the deletion of backups and of
//! their namespaces. The files stay. An operator that is installed later adds the finalizers again.
use std::collections::BTreeMap;

use anyhow::Context as _;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use operator_api::{RqliteBackup, names};
use serde_json::{Value, json};

use crate::backups::backup::FINALIZER;

/// Attempts to write one object.
const ATTEMPTS: usize = 3;

/// The clusters by namespace and name, and whether they were this installation's.
pub(super) type Known = BTreeMap<(String, String), bool>;

/// Removes the finalizer of this installation's backups; says of how many.
///
/// # Errors
/// They cannot be listed. Those that cannot be written are reported.
pub(super) async fn let_go(client: &Client, known: &Known, class: &str) -> anyhow::Result<String> {
    // Untyped, so that fields of another version stay.
    let resource = ApiResource::erase::<RqliteBackup>(&());
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let backups = match all.list(&ListParams::default()).await {
        Ok(backups) => backups.items,
        // The definitions were uninstalled as well.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(String::new()),
        Err(error) => return Err(error).context("listing RqliteBackups"),
    };
    let mut said = String::new();
    let mut count = 0_usize;
    for backup in backups {
        let namespace = backup.namespace().unwrap_or_default();
        if !is_own(&namespace, &backup.data, known, class) {
            continue;
        }
        let name = backup.name_any();
        let api = Api::namespaced_with(client.clone(), &namespace, &resource);
        match remove(&api, backup).await {
            Ok(removed) => count += usize::from(removed),
            Err(error) => said.push_str(&format!("RqliteBackup {namespace}/{name}: {error:#}\n")),
        }
    }
    if count > 0 {
        said.push_str(&format!(
            "{count} RqliteBackups can be deleted without an operator; their files then stay in the store\n"
        ));
    }
    Ok(said)
}

/// Whether this installation handled a backup. If the cluster is deleted, the recorded class decides.
fn is_own(namespace: &str, backup: &Value, known: &Known, class: &str) -> bool {
    let cluster = backup["spec"]["clusterRef"]["name"].as_str();
    let key = (namespace.to_owned(), cluster.unwrap_or_default().to_owned());
    let recorded = backup["status"]["operatorClass"].as_str();
    let recorded = recorded.unwrap_or(names::DEFAULT_CLASS);
    known.get(&key).copied().unwrap_or(recorded == class)
}

async fn remove(api: &Api<DynamicObject>, mut backup: DynamicObject) -> anyhow::Result<bool> {
    let (name, uid) = (backup.name_any(), backup.uid());
    for _ in 0..ATTEMPTS {
        let mut left = backup.finalizers().to_vec();
        left.retain(|one| one != FINALIZER);
        if left.len() == backup.finalizers().len() || backup.uid() != uid {
            return Ok(false);
        }
        let change = json!({"metadata": {"finalizers": left, "resourceVersion": backup.resource_version(),
            "uid": uid}});
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match api.patch(&name, &params, &Patch::Merge(&change)).await {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                backup = match api.get_opt(&name).await? {
                    Some(found) => found,
                    None => return Ok(false),
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("it changes all the time: is an operator running?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_of_other_installations_keep_waiting_for_them() {
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        let known: Known = [(key("ours"), true), (key("theirs"), false)].into();
        let cases = [
            ("ours", None, true),
            ("theirs", None, false),
            ("theirs", Some("second"), false),
            ("gone", Some("second"), true),
            ("gone", Some("third"), false),
            // From before classes were recorded: of the default class.
            ("gone", None, false),
        ];
        for (cluster, class, expected) in cases {
            let backup = json!({"spec": {"clusterRef": {"name": cluster}}, "status": {"operatorClass": class}});
            let is = is_own("shop", &backup, &known, "second");
            assert_eq!(is, expected, "{cluster} {class:?}");
        }
        let backup = json!({"spec": {"clusterRef": {"name": "ours"}}});
        assert!(!is_own("other", &backup, &known, "second"));
        assert!(is_own("other", &backup, &known, "default"));
    }
}
