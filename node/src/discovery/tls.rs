//! TLS for Consul and etcd according to `tls_config`, with rustls and ring.
use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    client::danger::ServerCertVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
};
use serde::Deserialize;

use super::setting::Secret;
use crate::tls::{
    Trusted,
    pem::{self, Source},
    server_name, unverified,
};

/// Verification of the server, and this node's client certificate. All fields are optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsConfig {
    /// Name expected in the server's certificate, instead of the dialed one; a port is ignored.
    address: Option<String>,
    ca_file: Option<String>,
    ca_path: Option<String>,
    /// PEM in base64.
    ca_pem: Option<String>,
    cert_file: Option<String>,
    cert_pem: Option<String>,
    key_file: Option<String>,
    key_pem: Option<Secret>,
    insecure_skip_verify: Option<bool>,
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// For plain HTTP: no certificate is trusted.
pub(super) fn none() -> Result<ClientConfig, String> {
    Ok(
        crate::tls::client_builder(Arc::new(ring::default_provider()))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    )
}

impl TlsConfig {
    /// Reads the files. The system's certificate authorities are used only if no others are given.
    pub(super) fn client(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = self
            .verifier(&provider)
            .map_err(|e| format!("tls_config: {e}"))?;
        let builder = crate::tls::client_builder(provider)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.identity().map_err(|e| format!("tls_config: {e}"))? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| format!("tls_config: the client certificate and key: {e}"))?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, String> {
        if self.insecure_skip_verify.unwrap_or(false) {
            return Ok(unverified(provider));
        }
        let name = given(self.address.as_ref()).map(|address| {
            let host = address
                .rsplit_once(':')
                .filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
                .map_or(address, |(host, _)| host);
            server_name(host).map_err(|_| "address: expected a host name or IP".to_owned())
        });
        self.trusted()?
            .verifier_of_servers(provider, name.transpose()?)
    }

    fn trusted(&self) -> Result<Trusted, String> {
        let mut all = Vec::new();
        let mut add = |what: &str, content: &[u8]| {
            let found = pem::certificates(content).map_err(|e| format!("{what}: {e}"))?;
            all.extend(found);
            Ok::<(), String>(())
        };
        if let Some(path) = given(self.ca_file.as_ref()) {
            add("ca_file", &read("ca_file", path)?)?;
        }
        if let Some(folder) = given(self.ca_path.as_ref()) {
            add("ca_path", &certificates_below(folder)?)?;
        }
        if let Some(text) = given(self.ca_pem.as_ref()) {
            add("ca_pem", &decode("ca_pem", text)?)?;
        }
        if !all.is_empty() {
            return Trusted::given(all);
        }
        let system = Trusted::of_system("ca_file or ca_pem");
        if system.is_empty() {
            return Err(system.if_none().to_owned());
        }
        Ok(system)
    }

    /// This node's certificate chain and key.
    fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        let chain = either(
            ("cert_file", given(self.cert_file.as_ref())),
            ("cert_pem", given(self.cert_pem.as_ref())),
        )?;
        let key = either(
            ("key_file", given(self.key_file.as_ref())),
            (
                "key_pem",
                self.key_pem
                    .as_ref()
                    .map(Secret::reveal)
                    .filter(|pem| !pem.is_empty()),
            ),
        )?;
        let (chain, key) = match (chain, key) {
            (None, None) => return Ok(None),
            (Some(chain), Some(key)) => (chain, key),
            (Some(_), None) | (None, Some(_)) => {
                return Err("a client certificate and its key must be given together".into());
            }
        };
        let chain = pem::certificates(&chain).map_err(|e| format!("the client certificate {e}"))?;
        let key = pem::private_key(&key).map_err(|e| format!("the client key: {e}"))?;
        Ok(Some((chain, key)))
    }
}

fn either(
    (file_field, file): (&str, Option<&str>),
    (pem_field, pem): (&str, Option<&str>),
) -> Result<Option<Vec<u8>>, String> {
    match (file, pem) {
        (Some(_), Some(_)) => Err(format!("give either {file_field} or {pem_field}, not both")),
        (Some(path), None) => read(file_field, path).map(Some),
        (None, Some(pem)) => decode(pem_field, pem).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(field: &str, path: &str) -> Result<Vec<u8>, String> {
    Source::new(format!("{field}:"), path).read()
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text.trim())
        .map_err(|_| format!("{field}: expected PEM encoded in base64"))
}

/// The texts of all files in a directory that hold certificates.
fn certificates_below(folder: &str) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("ca_path: {folder}: {e}");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(Path::new(folder)).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            let content = std::fs::read(&path).map_err(failed)?;
            if pem::certificates(&content).is_ok() {
                all.extend(content);
                all.push(b'\n');
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
