//! The target, images, templates that worked, updates that were rolled back, and plans that wait for a
//! person.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the operator is currently working towards. Changes of the spec take effect here only between two
/// operations.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Current target number of voters. Differs from spec.replicas while members are added or removed one at
    /// a time.
    #[serde(default)]
    pub replicas: i32,
    /// Number of voters with which the cluster formed. Kept, because it is part of the nodes' command line.
    #[serde(default)]
    pub bootstrap_replicas: i32,
    /// Image of the pods' template.
    #[serde(default)]
    pub image: String,
    /// Hash of those parts of the spec that affect the voter pods.
    #[serde(default)]
    pub input_hash: String,
    /// Hash of the voters' pod template.
    #[serde(default)]
    pub template_hash: String,
    /// Hash of the read replicas' pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_template_hash: Option<String>,
    /// The parts of the spec that the pods' template is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<TemplateInputs>,
    /// When all pods had this template, and all members took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worked_at: Option<Time>,
    /// Fields that a newer operator wrote: kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub newer: BTreeMap<String, Value>,
}

/// What a pod template is made of, so that it can be made again.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateInputs {
    /// The spec without the parts that do not affect pods.
    #[schemars(with = "AnyObject")]
    pub spec: Value,
    /// The annotation rqlite.dev/restarted-at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<String>,
    /// What the template has of TLS, by the stage in status.tls. Never put back by a rollback: nodes of
    /// stages that are apart do not understand each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
}

/// Schema of an object with any fields.
pub(crate) struct AnyObject;

impl schemars::JsonSchema for AnyObject {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyObject".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// An image, and what it was resolved from.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedImage {
    /// The image.
    pub reference: String,
    /// What spec.image gave of it: repository, tag and digest. The rest is from the operator's default image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub requested: String,
    /// Value of the annotation rqlite.dev/update-image that has been acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_request: Option<String>,
}

/// An update that was rolled back.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolledBack {
    /// Why: Requested, UpdateStalled or DowngradeRefused.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// When it was decided.
    pub at: Time,
    /// Image that is not used.
    pub image: String,
    /// Hash of the parts of the spec that are not carried out.
    pub input_hash: String,
    /// The annotation rqlite.dev/restarted-at at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<String>,
    /// The target that is kept instead.
    pub instead: Target,
}

/// Something that the operator would do.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProposedPlan {
    /// Its id. Another plan has another one, also if it does the same at another time.
    pub id: String,
    /// What it does to what.
    pub key: String,
    /// The same for people.
    pub text: String,
    /// Since when it is proposed, or approved.
    pub since: Time,
}
