//! Checks whether the Secrets that a Job's pod needs exist and have the needed keys. If a mounted Secret is
//! missing, the pod does not start, and only an event says why.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PodSpec, Secret},
};
use kube::{Api, Client};

use crate::error::Error;

/// Names of Secrets, and the keys needed of each.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// The Secrets and keys that a pod needs.
fn needs(pod: &PodSpec) -> Needs {
    let mut all = Needs::new();
    let mut add = |secret: &str, key: &str| {
        let keys = all.entry(secret.to_owned()).or_default();
        keys.insert(key.to_owned());
    };
    for env in pod.containers.iter().flat_map(|c| c.env.iter().flatten()) {
        let from = env.value_from.as_ref();
        let selected = from.and_then(|from| from.secret_key_ref.as_ref());
        if let Some(selected) = selected.filter(|one| one.optional != Some(true)) {
            add(&selected.name, &selected.key);
        }
    }
    let volumes = pod.volumes.iter().flatten();
    let secrets = volumes.filter_map(|volume| volume.secret.as_ref());
    for secret in secrets.filter(|secret| secret.optional != Some(true)) {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        for item in secret.items.iter().flatten() {
            add(name, &item.key);
        }
    }
    all
}

/// What a Secret with these keys lacks, as text; `keys` is `None` if the Secret does not exist.
fn lacks(name: &str, needed: &BTreeSet<String>, keys: Option<&BTreeSet<String>>) -> Option<String> {
    let list = |keys: &mut dyn Iterator<Item = &String>| {
        let keys: Vec<&str> = keys.map(String::as_str).collect();
        keys.join(", ")
    };
    let Some(keys) = keys else {
        return Some(format!(
            "there is no Secret {name} in this namespace: create it with the key {}",
            list(&mut needed.iter())
        ));
    };
    let mut missing = needed.difference(keys).peekable();
    missing.peek()?;
    Some(format!(
        "the Secret {name} has no key {}: add it",
        list(&mut missing)
    ))
}

/// What is missing for this Job's pod. Only the names of keys are read. If the operator may not read a
/// Secret, it counts as complete, and the pod will show what is missing.
///
/// # Errors
/// A request to the API server failed.
pub async fn missing(client: &Client, job: &Job) -> Result<Option<String>, Error> {
    let spec = job.spec.as_ref();
    let Some(pod) = spec.and_then(|spec| spec.template.spec.as_ref()) else {
        return Ok(None);
    };
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for (name, needed) in needs(pod) {
        let found = match api.get_opt(&name).await {
            Ok(found) => found,
            Err(kube::Error::Api(status)) if status.code == 403 => continue,
            Err(error) => return Err(Error::kubernetes(format!("reading Secret {name}"))(error)),
        };
        let keys = found.map(|secret| -> BTreeSet<String> {
            let data = secret.data.unwrap_or_default();
            data.into_keys().collect()
        });
        if let Some(wrong) = lacks(&name, &needed, keys.as_ref()) {
            return Ok(Some(wrong));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use operator_api::{
        cluster::KeySelector,
        store::{S3, SecretName, StoreTarget},
    };

    use super::*;
    use crate::{
        backups::{base, pod},
        stores::access,
    };

    #[test]
    fn variables_and_files_are_named_by_their_keys() {
        let target = StoreTarget {
            s3: Some(S3 {
                bucket: "bkt".to_owned(),
                credentials_secret: Some(SecretName {
                    name: "keys".to_owned(),
                }),
                ..S3::default()
            }),
            ..StoreTarget::default()
        };
        let mut store = access(&target, "", "archive");
        let key = KeySelector {
            name: "crypt".to_owned(),
            key: "k".to_owned(),
        };
        store.file("archive-key", &key, "keys");
        let pod = pod::spec(pod::Parts {
            base: base::unknown(false),
            container: "backup",
            args: Vec::new(),
            store,
            account: None,
            resources: None,
            scratch: (pod::on_the_machine("tmp", None), "/tmp"),
        });
        let set = |keys: &[&str]| -> BTreeSet<String> {
            keys.iter().map(|key| (*key).to_owned()).collect()
        };
        let needed = needs(&pod);
        let both = set(&["access-key-id", "secret-access-key"]);
        assert_eq!(needed["keys"], both);
        assert_eq!(needed["crypt"], set(&["k"]));
        let said = |keys: Option<&[&str]>| lacks("keys", &both, keys.map(set).as_ref());
        assert_eq!(
            said(Some(&["access-key-id", "secret-access-key", "x"])),
            None
        );
        let none = said(None).unwrap();
        assert!(none.contains("no Secret keys"), "{none}");
        assert!(none.contains("access-key-id, secret-access-key"), "{none}");
        let one = said(Some(&["access-key-id", "secret_access_key"])).unwrap();
        assert!(one.contains("no key secret-access-key: add"), "{one}");
    }
}
