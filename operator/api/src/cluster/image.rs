//! The container image of the nodes.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A container image. Parts that are not given are taken from the operator's default image.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.repository) || has(self.tag) || has(self.digest)").message("a repository of your own needs a tag or a digest: add image.tag or image.digest"))]
pub struct Image {
    /// Registry and name without tag, such as registry.example.com/rqlite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\s@]+$"))]
    pub repository: Option<String>,
    /// Tag of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"))]
    pub tag: Option<String>,
    /// Digest of the image. Takes precedence over the tag, which is then only informative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[a-f0-9]{64}$"))]
    pub digest: Option<String>,
    /// When the image is pulled. Defaults to IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Secrets in the cluster's namespace with credentials for the registry; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<PullSecret>,
}

/// When an image is pulled.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Whenever a container starts.
    Always,
    /// Only if the Kubernetes node does not have it.
    IfNotPresent,
    /// Never: the Kubernetes node must already have it.
    Never,
}

/// Reference to a Secret by name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
