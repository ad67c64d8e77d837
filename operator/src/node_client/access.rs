//! How the nodes of each cluster are reached: by TLS or in clear text, with which trusted authorities, as
//! which user. Updated from the cluster's Secrets and pods in each reconcile.
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use operator_api::{RqliteCluster, names};
use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{PemObject as _, SliceIter},
    },
};

use crate::cluster::facts::{
    authentication::{OPERATOR_USER, PASSWORD},
    secrets::{ObservedSecret, SecretBytes},
};

/// Keys of a Secret with a certificate.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// Secrets by name.
type Secrets = BTreeMap<String, ObservedSecret>;

/// The kind of connection to a node.
#[derive(Clone, Debug)]
pub(super) enum Channel {
    /// In clear text: it has no certificate for clients.
    Plain,
    /// By TLS: its certificate must be valid for this name.
    Tls(Arc<ClientConfig>, ServerName<'static>),
    /// By TLS, but the trusted authorities are not known: the reason.
    Unusable(String),
}

/// How a node is reached.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// The kind of connection.
    pub(super) channel: Channel,
    /// Passwords of the operator's user, to be tried in this order; empty if the node requires none.
    pub(super) passwords: Vec<SecretBytes>,
}

impl Access {
    /// Access to a node without TLS and users.
    fn open() -> Self {
        Self {
            channel: Channel::Plain,
            passwords: Vec::new(),
        }
    }
}

/// Access to the nodes of all clusters.
#[derive(Clone, Default)]
pub struct Accesses(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    /// By address: the uid of the cluster, and the access.
    nodes: HashMap<String, (String, Arc<Access>)>,
    /// The operator's present and former password, by uid of the cluster.
    passwords: HashMap<String, Vec<SecretBytes>>,
}

impl fmt::Debug for Accesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accesses({} nodes)", self.0.lock().nodes.len())
    }
}

impl Accesses {
    /// Access to the node at an address.
    pub(super) fn get(&self, address: &str) -> Arc<Access> {
        let all = self.0.lock();
        let known = all.nodes.get(address);
        known.map_or_else(
            || Arc::new(Access::open()),
            |(_, access)| Arc::clone(access),
        )
    }

    /// Records how the nodes of a cluster are reached now. An address that no pod of the cluster has any more
    /// is removed, because another pod may get it.
    pub fn note(
        &self,
        cluster: &RqliteCluster,
        domain: &str,
        pods: &[(String, Arc<Pod>)],
        secrets: &Secrets,
    ) {
        let uid = cluster.uid().unwrap_or_default();
        let config = config(cluster, secrets);
        let mut all = self.0.lock();
        let present = secrets.get(&names::operator_secret(&cluster.name_any()));
        let present = present.filter(|secret| secret.is_ours());
        if let Some(present) = present.and_then(|secret| secret.get(PASSWORD)) {
            let known = all.passwords.entry(uid.clone()).or_default();
            known.retain(|password| password != present);
            known.insert(0, present.clone());
            // Nodes that have not read the new file yet accept the former password.
            known.truncate(2);
        }
        let passwords = all.passwords.get(&uid).cloned().unwrap_or_default();
        all.nodes.retain(|_, (of, _)| *of != uid);
        for (address, pod) in pods {
            let channel = match (has_flag(pod, "-http-cert="), &config) {
                (false, _) => Channel::Plain,
                (true, Err(why)) => Channel::Unusable(why.clone()),
                (true, Ok(config)) => match server_name(cluster, domain, pod) {
                    Some(name) => Channel::Tls(Arc::clone(config), name),
                    None => Channel::Unusable("its name is no DNS name".to_owned()),
                },
            };
            let passwords = match has_flag(pod, "-auth=") {
                true => passwords.clone(),
                false => Vec::new(),
            };
            let access = Arc::new(Access { channel, passwords });
            all.nodes.insert(address.clone(), (uid.clone(), access));
        }
    }

    /// Removes a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.nodes.retain(|_, (of, _)| of != uid);
        all.passwords.remove(uid);
    }
}

/// The value of the header `Authorization` of the operator's user.
pub(super) fn authorization(password: &SecretBytes) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut login = format!("{OPERATOR_USER}:").into_bytes();
    login.extend(password.expose());
    format!("Basic {}", STANDARD.encode(login))
}

/// Was a pod's node started with this flag? The present spec may differ.
fn has_flag(pod: &Pod, flag: &str) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut flags = containers
        .filter(|container| container.name == "rqlited")
        .flat_map(|container| container.args.iter().flatten());
    flags.any(|one| one.starts_with(flag))
}

/// The pod's DNS name, which certificates contain whatever address the pod has.
fn server_name(cluster: &RqliteCluster, domain: &str, pod: &Pod) -> Option<ServerName<'static>> {
    let name = format!(
        "{}.{}.{}.svc.{}",
        pod.name_any(),
        names::headless(&cluster.name_any()),
        pod.namespace().unwrap_or_default(),
        cluster.domain(domain)
    );
    ServerName::try_from(name).ok()
}

fn certificates(pem: Option<&SecretBytes>) -> Vec<CertificateDer<'static>> {
    let pem = pem.map(SecretBytes::expose).unwrap_or_default();
    let all: SliceIter<'_, CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem);
    all.filter_map(Result::ok).collect()
}

/// TLS configuration for the nodes of a cluster: trusts its authorities, and presents the operator's
/// certificate if there is one.
fn config(cluster: &RqliteCluster, secrets: &Secrets) -> Result<Arc<ClientConfig>, String> {
    let name = cluster.name_any();
    let own = |secret: String| secrets.get(&secret).filter(|secret| secret.is_ours());
    let secret_name = names::http_tls_secret(&name);
    let server = own(secret_name.clone()).ok_or_else(|| {
        format!("the Secret {secret_name}, which says whom to trust, is not there")
    })?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(server.get(AUTHORITIES)));
    if added == 0 {
        return Err(format!(
            "the Secret {secret_name} has no certificate in ca.crt"
        ));
    }
    let provider = Arc::new(default_provider());
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = Verifier {
        chain: chain.build().map_err(|error| error.to_string())?,
        leaf: certificates(server.get(CERTIFICATE)).into_iter().next(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    // Otherwise that of the HTTP port, whose authority the nodes trust in any case.
    let shown = [names::operator_secret(&name), secret_name];
    let shown = shown.into_iter().filter_map(own).find_map(identity);
    let config = match shown {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| error.to_string())?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn identity(
    secret: &ObservedSecret,
) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = certificates(secret.get(CERTIFICATE));
    let key = PrivateKeyDer::from_pem_slice(secret.get(KEY)?.expose()).ok()?;
    (!chain.is_empty()).then_some((chain, key))
}

/// Checks the chain, the time and the name. The certificate in the cluster's Secret itself is also accepted
/// without the pod's name: one that a person provides need not name each pod.
#[derive(Debug)]
struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    leaf: Option<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let is_own = self.leaf.as_ref().is_some_and(|leaf| leaf == end_entity);
        match verified {
            // The name is checked last, so everything else is valid.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if is_own => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
