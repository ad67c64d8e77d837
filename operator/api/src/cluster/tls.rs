//! TLS: between the nodes, and for clients.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// TLS of a cluster. A new cluster whose spec says nothing gets TLS between its nodes, and a client port that
/// speaks both HTTPS and HTTP. What the spec leaves out is decided once and kept in status.tls: a cluster
/// from before TLS stays without it until its spec asks for it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Connections between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeTls>,
    /// Connections of clients: the HTTP API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientTls>,
}

/// TLS between the nodes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.mode) && self.mode == 'Disabled' && has(self.certificate))").message("tls.nodes.mode is Disabled, so that the certificate would not be used: remove tls.nodes.certificate, or set the mode to Required"))]
pub struct NodeTls {
    /// Required: nodes accept each other only with a certificate. Disabled: connections are not encrypted. A
    /// running cluster moves from one to the other by three rolling restarts, and serves meanwhile. Defaults
    /// to Required for new clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NodeTlsMode>,
    /// Where the nodes' certificate is from. Defaults to an authority of the cluster's own, which the
    /// operator keeps and renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSource>,
}

/// Are connections between nodes encrypted?
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum NodeTlsMode {
    /// They are, and both sides show a certificate.
    #[default]
    Required,
    /// They are not.
    Disabled,
}

/// TLS for clients.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.mode) && self.mode == 'Disabled' && has(self.certificate))").message("tls.clients.mode is Disabled, so that the certificate would not be used: remove tls.clients.certificate, or set the mode to Optional or Required"),
    validation = Rule::new("!self.requireClientCertificate || (has(self.mode) && self.mode == 'Required')").message("a client without TLS has no certificate to show: with requireClientCertificate, set tls.clients.mode to Required"),
    validation = Rule::new("!has(self.extraNames) || !has(self.certificate) || !has(self.certificate.secretName)").message("extraNames are for certificates that are made for this cluster; that of a given Secret has the names that it has: remove extraNames")
)]
pub struct ClientTls {
    /// Optional: the HTTP port accepts HTTPS and HTTP. Required: only HTTPS. Disabled: only HTTP. A change
    /// restarts the nodes one at a time. Defaults to Optional for new clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientTlsMode>,
    /// Where the certificate that clients see is from. Defaults to the cluster's own authority, whose
    /// certificate is in each connection Secret (ca.crt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSource>,
    /// Whether clients have to show a certificate of the authority that signed the server's, or of the
    /// cluster's own. Defaults to false.
    #[serde(default)]
    pub require_client_certificate: bool,
    /// Further DNS names or IP addresses by which clients reach the cluster, such as that of a load balancer;
    /// at most 32. The names of the Services and of the pods are always in the certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$|^[0-9a-f:.]+$")
        )
    )]
    pub extra_names: Vec<String>,
}

/// Do clients speak TLS?
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum ClientTlsMode {
    /// They may.
    #[default]
    Optional,
    /// They must.
    Required,
    /// They cannot.
    Disabled,
}

/// Where a certificate is from: cert-manager, or a Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.issuerRef) != has(self.secretName)").message("a certificate has one source: give either issuerRef (cert-manager) or secretName, or leave certificate out for the cluster's own authority"))]
pub struct CertificateSource {
    /// An issuer of cert-manager. The operator asks it for a certificate with the names that are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// Name of a Secret in the cluster's namespace with the keys tls.crt (certificate and intermediates),
    /// tls.key and ca.crt. It is checked before it is used, and followed when it changes. For the nodes, use
    /// an authority that signs nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub secret_name: Option<String>,
}

/// An issuer of cert-manager.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Issuer, ClusterIssuer, or a kind of another group. Defaults to Issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Its API group. Defaults to cert-manager.io.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub group: Option<String>,
}
