//! TLS for Consul and etcd according to `tls_config`, with rustls and ring.
use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde::Deserialize;

use super::setting::Secret;

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
    Ok(with_versions(Arc::new(ring::default_provider()))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn with_versions(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())
}

impl TlsConfig {
    /// Reads the files. The system's certificate authorities are used only if no others are given.
    pub(super) fn client(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = self
            .verifier(&provider)
            .map_err(|e| format!("tls_config: {e}"))?;
        let builder = with_versions(provider)?
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
            return Ok(Arc::new(Unverified(Arc::clone(provider))));
        }
        let inner = WebPkiServerVerifier::builder_with_provider(
            Arc::new(self.roots()?),
            Arc::clone(provider),
        )
        .build()
        .map_err(|e| format!("certificate authorities: {e}"))?;
        let Some(address) = given(self.address.as_ref()) else {
            return Ok(inner);
        };
        let host = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
            .map_or(address, |(host, _)| host)
            .trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| "address: expected a host name or IP".to_owned())?;
        Ok(Arc::new(Named { inner, name }))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let mut add = |what: &str, certificates: Vec<CertificateDer<'static>>| {
            if certificates.is_empty() {
                return Err(format!("{what}: holds no certificate in PEM form"));
            }
            for certificate in certificates {
                roots.add(certificate).map_err(|e| format!("{what}: {e}"))?;
            }
            Ok(())
        };
        let mut any = false;
        if let Some(path) = given(self.ca_file.as_ref()) {
            any = true;
            add("ca_file", certificates_in(&read("ca_file", path)?)?)?;
        }
        if let Some(folder) = given(self.ca_path.as_ref()) {
            any = true;
            add("ca_path", certificates_below(folder)?)?;
        }
        if let Some(pem) = given(self.ca_pem.as_ref()) {
            any = true;
            add("ca_pem", certificates_in(&decode("ca_pem", pem)?)?)?;
        }
        if !any {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            if roots.is_empty() {
                return Err(
                    "this system has no certificate authorities; give ca_file or ca_pem".into(),
                );
            }
        }
        Ok(roots)
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
        let chain = certificates_in(&chain)?;
        if chain.is_empty() {
            return Err("the client certificate is not in PEM form".into());
        }
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| "the client key is not in PEM form".to_owned())?;
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
    std::fs::read(path).map_err(|e| format!("{field}: {path}: {e}"))
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text.trim())
        .map_err(|_| format!("{field}: expected PEM encoded in base64"))
}

fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("a certificate is not in PEM form: {e}"))
}

/// The certificates of all files in a directory; other files are ignored.
fn certificates_below(folder: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |e: std::io::Error| format!("ca_path: {folder}: {e}");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(Path::new(folder)).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            all.extend(certificates_in(&std::fs::read(&path).map_err(failed)?).unwrap_or_default());
        }
    }
    Ok(all)
}

/// Expects this name in the certificate instead of the dialed one.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialed: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// `insecure_skip_verify`: accepts any certificate, if the server has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _dialed: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
