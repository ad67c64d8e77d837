//! Reads certificate files into ureq's TLS settings. Everything is checked here, so that a bad file is
//! reported at the start and not in the middle of a session.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// TLS options of the command line.
#[derive(Debug, Default)]
pub(crate) struct TlsFiles {
    /// Accept any server certificate.
    pub(crate) insecure: bool,
    /// PEM file of the accepted authorities; the operating system's when absent.
    pub(crate) ca_cert: Option<PathBuf>,
    /// PEM file shown to a server that asks for a certificate; needs the key as well.
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub(crate) client_key: Option<PathBuf>,
}

/// Reads the files. Fails on an unreadable file, one without certificate or key, or a key of another
/// certificate.
pub(crate) fn config(files: &TlsFiles) -> Result<TlsConfig> {
    let roots = match &files.ca_cert {
        Some(path) => RootCerts::from(certificates(path)?.into_iter()),
        None => RootCerts::PlatformVerifier,
    };
    let client = match (&files.client_cert, &files.client_key) {
        (Some(cert), Some(key)) => Some(client_certificate(cert, key)?),
        (None, None) => None,
        _ => bail!("a client certificate and its key must be given together"),
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(client)
        .disable_verification(files.insecure)
        .build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) =
            item.with_context(|| path.display().to_string())?
        {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("{}: no certificate found", path.display());
    }
    Ok(found)
}

fn client_certificate(cert: &Path, key: &Path) -> Result<ClientCert> {
    let chain = certificates(cert)?;
    let pem = read(key)?;
    let no_key = |error: &dyn std::fmt::Display| {
        anyhow!("{}: no usable private key: {error}", key.display())
    };
    let private = PrivateKey::from_pem(&pem).map_err(|error| no_key(&error))?;
    // ureq does not check that the pair matches, and panics later if it does not.
    let der = chain
        .iter()
        .map(|c| CertificateDer::from(c.der().to_vec()))
        .collect();
    let der_key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| no_key(&error))?;
    rustls::sign::CertifiedKey::from_der(der, der_key, &rustls::crypto::ring::default_provider())
        .with_context(|| format!("{} is not the key of {}", key.display(), cert.display()))?;
    Ok(ClientCert::new_with_certs(&chain, private))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files_are_named_before_any_connection() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let missing = dir.path().join("missing.pem");

        let error = |files: TlsFiles| config(&files).unwrap_err().to_string();
        assert_eq!(
            error(TlsFiles {
                ca_cert: Some(empty.clone()),
                ..TlsFiles::default()
            }),
            format!("{}: no certificate found", empty.display())
        );
        assert_eq!(
            error(TlsFiles {
                ca_cert: Some(missing.clone()),
                ..TlsFiles::default()
            }),
            missing.display().to_string()
        );
        assert_eq!(
            error(TlsFiles {
                client_cert: Some(empty),
                ..TlsFiles::default()
            }),
            "a client certificate and its key must be given together"
        );
    }
}
