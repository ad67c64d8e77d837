//! Reads certificate files into ureq's TLS settings. Everything is checked here, so that a bad file is
//! reported at the start and not in the middle of a session.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

mod connector;

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

/// The agent with these settings, whose [`config`] has been read from the same files.
pub(crate) fn agent(settings: Config, files: &TlsFiles) -> Result<Agent> {
    let Some(path) = files.ca_cert.as_deref().filter(|_| !files.insecure) else {
        return Ok(settings.new_agent());
    };
    let given = certificates(path)?;
    let given = given
        .iter()
        .map(|one| CertificateDer::from(one.der().to_vec()));
    let pair = match (&files.client_cert, &files.client_key) {
        (Some(cert), Some(key)) => Some(pair(cert, key)?),
        _ => None,
    };
    let config =
        connector::client(given.collect(), pair).with_context(|| path.display().to_string())?;
    Ok(connector::agent(settings, config))
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
    // ureq does not check that the pair matches, and panics later if it does not.
    pair(cert, key)?;
    let private = PrivateKey::from_pem(&read(key)?).map_err(|error| no_key(key, &error))?;
    Ok(ClientCert::new_with_certs(&certificates(cert)?, private))
}

/// A client certificate and its key, which belong together.
fn pair(cert: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = certificates(cert)?;
    let chain: Vec<_> = chain
        .iter()
        .map(|one| CertificateDer::from(one.der().to_vec()))
        .collect();
    let private =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| no_key(key, &error))?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider)
        .with_context(|| format!("{} is not the key of {}", key.display(), cert.display()))?;
    Ok((chain, private))
}

fn no_key(path: &Path, error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow!("{}: no usable private key: {error}", path.display())
}

/// Says what a failed handshake means, and what to change.
pub(crate) fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    let text = match error {
        Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => {
                "the server's certificate is not of an authority that is trusted here: give the authority's with --ca-cert"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "the server's certificate is for another name: connect with --host by a name that it has"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => "the server's certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet; is a clock wrong?"
            }
            Bad::Revoked => "the server's certificate has been revoked",
            _ => "the server's certificate is not accepted",
        },
        Error::AlertReceived(Alert::CertificateRequired | Alert::HandshakeFailure) => {
            "the server requires a client certificate: give --client-cert and --client-key"
        }
        Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::UnsupportedCertificate,
        ) => "the server does not accept the client certificate",
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the server says that the client certificate has expired or is not valid yet"
        }
        Error::AlertReceived(Alert::ProtocolVersion) => {
            "the server speaks no version of TLS that is supported (1.2, 1.3)"
        }
        Error::InvalidMessage(_) => "the server does not speak TLS at this port: use --scheme http",
        _ => "the TLS connection failed",
    };
    format!("{text} ({error})")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_to_change() {
        use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
        let bad = Error::InvalidCertificate;
        for (error, what) in [
            (bad(CertificateError::UnknownIssuer), "--ca-cert"),
            (bad(CertificateError::NotValidForName), "another name"),
            (bad(CertificateError::Expired), "has expired"),
            (bad(CertificateError::NotValidYet), "not valid yet"),
            (
                bad(CertificateError::BadSignature),
                "not accepted (invalid peer certificate",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "--client-cert",
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "does not accept the client certificate",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "--scheme http",
            ),
            (Error::DecryptError, "failed"),
        ] {
            let text = explain(&error);
            assert!(text.contains(what), "{text}");
        }
    }

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
