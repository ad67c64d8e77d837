//! HTTPS by rustls with ring, and the trusted certificate authorities. The default of `object_store` would
//! add a second TLS provider.
use std::{path::Path, sync::Arc, time::Duration};

use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::json::ConfigError;

/// Limit of establishing a connection; after it the endpoint counts as unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time without a byte from a server. A part's upload is one such time, so its 8 MiB must be sent
/// within it.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// The HTTP client for a store. `ca_file` replaces the system's certificate authorities, as `SSL_CERT_FILE`
/// does.
///
/// # Errors
/// The file cannot be read, or has no valid certificate.
pub(crate) fn client(ca_file: &str) -> Result<reqwest::Client, ConfigError> {
    let mut roots = RootCertStore::empty();
    // Those of the file, one of which may be the server's own.
    let mut given = Vec::new();
    if ca_file.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let failed = |why: String| ConfigError(format!("sub.ca_file: {ca_file}: {why}"));
        let pem = std::fs::read(Path::new(ca_file)).map_err(|e| failed(e.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| failed("not a certificate in PEM".into()))?;
            roots
                .add(certificate.clone())
                .map_err(|e| failed(e.to_string()))?;
            given.push(certificate);
        }
        if roots.is_empty() {
            return Err(failed("no certificate in PEM".into()));
        }
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| ConfigError(e.to_string()))?;
    let tls = if given.is_empty() {
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let verifier = node_trust::verifier_of_servers(roots, given, &provider)
            .map_err(|e| ConfigError(format!("sub.ca_file: {ca_file}: {e}")))?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth()
    };
    // No redirects: credentials and data are sent to the configured address only.
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(IDLE_LIMIT)
        .http1_only()
        .build()
        .map_err(|e| ConfigError(format!("no HTTP client: {e}")))
}

/// Gives `object_store` this client.
#[derive(Debug)]
pub(crate) struct Connector(pub(crate) reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}
