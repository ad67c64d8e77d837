//! Reads the Secrets of one cluster, each by `get` and by its name: none is ever listed or watched.
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Api, Client, ResourceExt};
use operator_api::{GROUP, RqliteCluster, names};
use parking_lot::Mutex;

use crate::{
    cluster::facts::{
        ownership::{Belonging, belonging},
        secrets::{self, ObservedSecret, SecretBytes, SecretOwner},
    },
    error::Error,
};

/// How long Secrets that were read are used again, so that reconciles in quick succession do not read them
/// again.
const FRESH: Duration = Duration::from_secs(5);

/// Secrets that exist, by name.
type Observed = BTreeMap<String, ObservedSecret>;

/// When Secrets were read, the requested names, and the result.
type Reading = (Instant, Vec<String>, Observed);

/// What was read last, by uid of the cluster.
#[derive(Debug, Default)]
pub struct SecretCache(Mutex<HashMap<String, Reading>>);

impl SecretCache {
    /// The Secrets of one cluster, at most a few seconds old.
    ///
    /// # Errors
    /// A request to the API server failed.
    pub async fn get(&self, client: &Client, cluster: &RqliteCluster) -> Result<Observed, Error> {
        let uid = cluster.uid().unwrap_or_default();
        let names: Vec<String> = secrets::names(cluster).all().into_iter().cloned().collect();
        if names.is_empty() {
            return Ok(Observed::new());
        }
        if let Some((at, of, known)) = self.0.lock().get(&uid)
            && at.elapsed() < FRESH
            && *of == names
        {
            return Ok(known.clone());
        }
        let at = Instant::now();
        let found = read(client, cluster).await?;
        let mut all = self.0.lock();
        all.insert(uid, (at, names, found.clone()));
        Ok(found)
    }

    /// Forgets what was read of one cluster: something was changed, or the cluster is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Reads the Secrets of one cluster.
///
/// # Errors
/// A request to the API server failed.
pub async fn read(client: &Client, cluster: &RqliteCluster) -> Result<Observed, Error> {
    let names = secrets::names(cluster);
    let api: Api<Secret> = Api::namespaced(
        client.clone(),
        cluster.namespace().unwrap_or_default().as_str(),
    );
    let all = names.all();
    let api = &api;
    let each = all.into_iter().map(|name| async move {
        let found = api.get_opt(name).await;
        let found = found.map_err(Error::kubernetes(format!("reading Secret {name}")))?;
        Ok::<_, Error>(found.map(|secret| (name.clone(), secret)))
    });
    let found = try_join_all(each).await?.into_iter().flatten();
    let converted = found.map(|(name, secret)| {
        let is_given = names.given.contains(&name);
        let observed = convert(secret, cluster, is_given);
        (name, observed)
    });
    Ok(converted.collect())
}

/// Converts a Secret. The contents of one that is not the cluster's are dropped unless the spec names it.
fn convert(secret: Secret, cluster: &RqliteCluster, is_given: bool) -> ObservedSecret {
    let uid = cluster.uid().unwrap_or_default();
    let owner = match belonging(&secret.metadata, &cluster.name_any(), &uid) {
        Belonging::Ours => SecretOwner::Ours,
        Belonging::Offered => SecretOwner::Offered,
        Belonging::Other { owner, former } => SecretOwner::Other { owner, former },
    };
    let visible = is_given || owner == SecretOwner::Ours;
    let data = secret.data.unwrap_or_default().into_iter();
    let data = data.map(|(key, value)| (key, SecretBytes::new(value.0)));
    let own = |key: &str| key.split('/').next() == Some(GROUP);
    let mut annotations = secret.metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| own(key));
    ObservedSecret {
        uid: secret.metadata.uid.unwrap_or_default(),
        resource_version: secret.metadata.resource_version.unwrap_or_default(),
        secret_type: secret.type_.unwrap_or_default(),
        immutable: secret.immutable == Some(true),
        deleting: secret.metadata.deletion_timestamp.is_some(),
        labels: secret.metadata.labels.unwrap_or_default(),
        changed_at: annotations
            .get(names::CHANGED_AT_ANNOTATION)
            .and_then(|at| at.parse().ok())
            .map(Time),
        annotations,
        data: if visible {
            data.collect()
        } else {
            BTreeMap::new()
        },
        owner,
    }
}

#[cfg(test)]
mod tests {
    use operator_api::RqliteClusterSpec;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_somebody_elses_secret_is_dropped_unless_the_spec_names_it() {
        let mut cluster = RqliteCluster::new("demo", RqliteClusterSpec::default());
        cluster.metadata.uid = Some("u".to_owned());
        let secret = |owner: serde_json::Value| -> Secret {
            serde_json::from_value(json!({
                "metadata": {"name": "s", "uid": "1", "resourceVersion": "7", "ownerReferences": owner,
                    "annotations": {"rqlite.dev/x": "y", "other/x": "z"}},
                "type": "Opaque", "data": {"password": "aHVudGVyMg=="}}))
            .unwrap()
        };
        let ours = json!([{"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "name": "demo",
            "uid": "u", "controller": true}]);
        for (owner, given, visible, is_ours) in [
            (ours.clone(), false, true, true),
            (json!([]), false, false, false),
            (json!([]), true, true, false),
        ] {
            let seen = convert(secret(owner), &cluster, given);
            let password = seen.get("password").and_then(SecretBytes::expose_text);
            assert_eq!(password, visible.then_some("hunter2"));
            assert_eq!(seen.is_ours(), is_ours);
            assert_eq!(
                seen.annotations,
                [("rqlite.dev/x".to_owned(), "y".to_owned())].into()
            );
        }
    }
}
