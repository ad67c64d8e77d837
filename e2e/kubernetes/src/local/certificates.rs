//! Certificates, keys and kubeconfigs of the cluster's components.
use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::layout::{DOMAIN, Layout, node_name};

/// Names of the API server.
const API_NAMES: [&str; 4] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
];
/// `(file, common name, organization)` of the control plane's and the administrator's certificates.
const USERS: [(&str, &str, &str); 4] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
];

/// Writes all files for a cluster of this many nodes.
///
/// # Errors
/// If a file cannot be written.
pub fn write(layout: &Layout, nodes: u8) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = named("e2e-ca", "")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    layout.write(&layout.pki("ca.crt"), &params.self_signed(&key)?.pem())?;
    layout.write(&layout.pki("ca.key"), &key.serialize_pem())?;
    let authority = Issuer::new(params, key);

    let mut api = named("kube-apiserver", "")?;
    let full = format!("kubernetes.default.svc.{DOMAIN}");
    let networks = layout.family.networks().iter();
    let addresses = networks.flat_map(|network| [network.host, network.api_service]);
    for name in API_NAMES
        .into_iter()
        .chain(addresses)
        .chain([full.as_str()])
    {
        api.subject_alt_names.push(match name.parse() {
            Ok(address) => rcgen::SanType::IpAddress(address),
            Err(_) => rcgen::SanType::DnsName(name.try_into()?),
        });
    }
    sign(layout, &authority, "apiserver", api)?;
    for (file, name, organization) in USERS {
        user(layout, &authority, file, named(name, organization)?)?;
    }
    for number in 1..=nodes {
        let node = node_name(number);
        let params = named(&format!("system:node:{node}"), "system:nodes")?;
        user(layout, &authority, &node, params)?;
    }
    // Signs ServiceAccount tokens.
    let key = KeyPair::generate()?;
    layout.write(&layout.pki("sa.key"), &key.serialize_pem())?;
    layout.write(&layout.pki("sa.pub"), &key.public_key_pem())
}

fn named(name: &str, organization: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("an empty certificate")?;
    params.distinguished_name.push(DnType::CommonName, name);
    if !organization.is_empty() {
        let kind = DnType::OrganizationName;
        params.distinguished_name.push(kind, organization);
    }
    Ok(params)
}

fn sign(
    layout: &Layout,
    authority: &Issuer<'_, KeyPair>,
    file: &str,
    mut params: CertificateParams,
) -> Result<()> {
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    layout.write(&layout.pki(&format!("{file}.crt")), &certificate.pem())?;
    layout.write(&layout.pki(&format!("{file}.key")), &key.serialize_pem())
}

/// Writes a certificate and the kubeconfig that uses it.
fn user(
    layout: &Layout,
    authority: &Issuer<'_, KeyPair>,
    name: &str,
    params: CertificateParams,
) -> Result<()> {
    sign(layout, authority, name, params)?;
    let pki = |file: &str| layout.pki(file).display().to_string();
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "e2e",
        "clusters": [{ "name": "e2e", "cluster": {
            "server": format!("https://{}:6443", layout.primary().host_in_url()),
            "certificate-authority": pki("ca.crt"),
        }}],
        "users": [{ "name": name, "user": {
            "client-certificate": pki(&format!("{name}.crt")),
            "client-key": pki(&format!("{name}.key")),
        }}],
        "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": name } }],
    });
    layout.write(&layout.kubeconfig(name), &text.to_string())
}
