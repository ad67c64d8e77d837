//! Creates, repairs and deletes the Secrets of a plan. Each change is bound to the uid and the version that
//! were read, and a new Secret is created by a plain create: of two operators, or after a lost reply, one
//! gets a conflict and reads what the other has made.
use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PostParams, Preconditions},
};
use operator_api::{RqliteCluster, names};
use serde_json::{Value, json};

use super::{Applied, unknown};
use crate::{
    cluster::{
        facts::{
            observation::TakenName,
            ownership::owner_reference,
            secrets::{Contents, ObservedSecret, SecretOwner},
        },
        render::secrets::{PlannedSecret, UnwantedSecret},
    },
    error::Error,
    observe::now,
    secrets::Maker,
};

/// Creates or repairs all planned Secrets, in their order; returns whether anything was changed.
///
/// # Errors
/// The first refusal. Nothing after it is touched.
pub async fn apply_secrets(
    client: &Client,
    cluster: &RqliteCluster,
    seen: &BTreeMap<String, ObservedSecret>,
    wanted: &[PlannedSecret],
    applied: &mut Applied,
) -> Result<bool, Error> {
    let sender = Sender { client, cluster };
    let mut maker = Maker::new(seen);
    let mut changed = false;
    for one in wanted {
        let there = seen.get(&one.name);
        match there.map(|secret| &secret.owner) {
            Some(SecretOwner::Other { owner, former }) => {
                applied.taken.push(TakenName {
                    kind: "Secret".to_owned(),
                    name: one.name.clone(),
                    owner: owner.clone(),
                    former: *former,
                });
                continue;
            }
            Some(SecretOwner::Offered) => {
                unknown::find::<Secret>(client, cluster, &one.name).await?;
                applied.adopted.push(format!("Secret {}", one.name));
                // Its contents are read by the next reconcile.
                return Err(Error::Changed(format!("Secret {}", one.name)));
            }
            Some(SecretOwner::Ours) | None => {}
        }
        let contents = maker.make(one, there)?;
        changed |= sender.settle(one, there, &contents).await?;
        maker.note(&one.name, contents);
    }
    Ok(changed)
}

/// Deletes Secrets that are no longer needed.
///
/// # Errors
/// The first refusal.
pub async fn delete_secrets(
    client: &Client,
    cluster: &RqliteCluster,
    unwanted: &[UnwantedSecret],
) -> Result<(), Error> {
    let sender = Sender { client, cluster };
    for one in unwanted {
        sender.delete(&one.name, &one.uid).await?;
    }
    Ok(())
}

struct Sender<'a> {
    client: &'a Client,
    cluster: &'a RqliteCluster,
}

impl Sender<'_> {
    fn api(&self) -> Api<Secret> {
        let namespace = self.cluster.namespace().unwrap_or_default();
        Api::namespaced(self.client.clone(), &namespace)
    }

    /// Creates or changes one Secret if it differs; returns whether it did.
    async fn settle(
        &self,
        wanted: &PlannedSecret,
        there: Option<&ObservedSecret>,
        contents: &Contents,
    ) -> Result<bool, Error> {
        let Some(there) = there else {
            self.create(wanted, contents).await?;
            return Ok(true);
        };
        if there.deleting {
            return Err(Error::Changed(format!("Secret {}", wanted.name)));
        }
        let labels = labels(self.cluster);
        let labelled = labels
            .iter()
            .all(|(key, value)| there.labels.get(key) == Some(value));
        if there.secret_type != wanted.secret_type || (there.immutable && there.data != *contents) {
            // Neither can be changed.
            self.delete(&wanted.name, &there.uid).await?;
            self.create(wanted, contents).await?;
            return Ok(true);
        }
        let annotated = wanted
            .annotations
            .iter()
            .all(|(key, value)| there.annotations.get(key) == Some(value));
        let asked = there
            .annotations
            .contains_key(names::ROTATE_PASSWORDS_ANNOTATION);
        if there.data == *contents && labelled && annotated && !asked {
            return Ok(false);
        }
        self.change(wanted, there, contents).await?;
        Ok(true)
    }

    async fn create(&self, wanted: &PlannedSecret, contents: &Contents) -> Result<(), Error> {
        let name = &wanted.name;
        let data = contents.iter();
        let data = data.map(|(key, value)| (key.clone(), ByteString(value.expose().to_vec())));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: self.cluster.namespace(),
                labels: Some(labels(self.cluster)),
                annotations: Some(changed(wanted)),
                owner_references: Some(vec![owner_reference(self.cluster)]),
                ..ObjectMeta::default()
            },
            type_: Some(wanted.secret_type.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        tracing::info!("creates Secret {name}");
        let created = self.api().create(&params, &secret).await;
        created
            .map(drop)
            .map_err(Error::kubernetes(format!("creating Secret {name}")))
    }

    /// Writes the whole contents by a merge patch: server-side apply would leave keys that someone else has
    /// added, and this Secret decides who has access.
    async fn change(
        &self,
        wanted: &PlannedSecret,
        there: &ObservedSecret,
        contents: &Contents,
    ) -> Result<(), Error> {
        let name = &wanted.name;
        let mut annotations = json!(wanted.annotations);
        if there.data != *contents {
            annotations = json!(changed(wanted));
        }
        // What it asked for is done with this change.
        annotations[names::ROTATE_PASSWORDS_ANNOTATION] = Value::Null;
        let mut data = serde_json::Map::new();
        for key in there.data.keys() {
            data.insert(key.clone(), Value::Null);
        }
        for (key, value) in contents {
            let value = ByteString(value.expose().to_vec());
            data.insert(key.clone(), json!(value));
        }
        let change = json!({
            "metadata": {"uid": there.uid, "resourceVersion": there.resource_version,
                "labels": labels(self.cluster), "annotations": annotations},
            "data": data,
        });
        let differing = |key: &&String| there.data.get(*key) != contents.get(*key);
        let keys = contents.keys().filter(differing).collect::<Vec<_>>();
        tracing::info!(?keys, "changes Secret {name}");
        let (api, params) = (self.api(), unknown::params());
        let patched = api.patch(name, &params, &Patch::Merge(change)).await;
        let doing = format!("changing Secret {name}");
        patched.map(drop).map_err(Error::kubernetes(doing))
    }

    async fn delete(&self, name: &str, uid: &str) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        tracing::info!("deletes Secret {name}");
        match self.api().delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::kubernetes(format!("deleting Secret {name}"))(error)),
        }
    }
}

/// Annotations of a Secret whose contents change now.
fn changed(wanted: &PlannedSecret) -> BTreeMap<String, String> {
    let mut all = wanted.annotations.clone();
    all.insert(names::CHANGED_AT_ANNOTATION.to_owned(), now().0.to_string());
    all
}

fn labels(cluster: &RqliteCluster) -> BTreeMap<String, String> {
    let name = cluster.name_any();
    let all: [(&str, &str); 4] = [
        (names::APP_NAME_LABEL, names::APP_NAME),
        (names::INSTANCE_LABEL, &name),
        (names::MANAGED_BY_LABEL, names::MANAGED_BY),
        (names::CLUSTER_LABEL, &name),
    ];
    all.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
