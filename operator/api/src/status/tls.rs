//! What is decided and known of a cluster's TLS: modes, the stage of a move, certificates.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::open::open_enum;

/// TLS of the cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsStatus {
    /// Connections between nodes.
    #[serde(default)]
    pub nodes: TlsSide,
    /// Connections of clients.
    #[serde(default)]
    pub clients: TlsSide,
    /// The cluster's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<CertificateSummary>,
    /// Value of the annotation rqlite.dev/rotate-certificates that has been acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_request: Option<String>,
    /// Do nodes admit only the common name of the cluster's own certificate? Not with one of a given Secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checks_common_name: bool,
    /// SHA-256 of certificates that are to be replaced although they are valid, because a person asked for
    /// it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub replacing: Vec<String>,
    /// Fields that a newer operator wrote: kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub newer: BTreeMap<String, Value>,
}

/// TLS of one side.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSide {
    /// What is aimed at: Disabled, Optional or Required. Others are possible after a newer operator.
    #[serde(default)]
    pub mode: TlsMode,
    /// What the pods' template says: Plain, Accept (takes both, and nodes dial plain connections), Use (takes
    /// both, and nodes dial TLS) or Require. Others are possible after a newer operator.
    #[serde(default)]
    pub stage: TlsStage,
    /// The certificate in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSummary>,
    /// SHA-256 of the authorities' certificates that are trusted. More than one while another takes its
    /// place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub trusted: Vec<String>,
    /// Name of the Secret that the certificate is copied from; absent for the cluster's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A certificate.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSummary {
    /// SHA-256 of the certificate (DER), in hexadecimal digits.
    pub sha256: String,
    /// When it expires.
    pub not_after: Time,
}

open_enum! {
    /// What is aimed at.
    #[derive(Default)]
    pub enum TlsMode {
        /// No TLS.
        #[default]
        Disabled = "Disabled",
        /// TLS and plain connections.
        Optional = "Optional",
        /// Only TLS.
        Required = "Required",
    }
}

open_enum! {
    /// How far the pods' template is.
    #[derive(Default)]
    pub enum TlsStage {
        /// No TLS.
        #[default]
        Plain = "Plain",
        /// Takes TLS and plain connections; nodes dial plain ones.
        Accept = "Accept",
        /// Takes TLS and plain connections; nodes dial TLS.
        Use = "Use",
        /// Only TLS.
        Require = "Require",
    }
}
