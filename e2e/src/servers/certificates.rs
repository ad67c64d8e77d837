//! Certificates for servers under test: a certificate authority, a server certificate for loopback, a client
//! certificate.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// A certificate with its private key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key (PKCS#8).
    pub key: PathBuf,
}

/// A certificate authority and the certificates it signed; the files are deleted when the value is dropped.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's own certificate.
    pub ca: PathBuf,
    /// Server certificate for `localhost`, `127.0.0.1` and `::1`.
    pub server: Pair,
    /// Client certificate with the common name `e2e-client`.
    pub client: Pair,
    _dir: TempDir,
}

impl Certificates {
    /// Creates new certificates; those of different values do not trust each other.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("rq-certs-")
            .tempdir()
            .context("create a directory for certificates")?;
        let ca_key = KeyPair::generate()?;
        let mut params = named(&[], "e2e-ca")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, params.self_signed(&ca_key)?.pem())
            .context("write the authority's certificate")?;
        let issuer = Issuer::new(params, ca_key);
        let server = named(&["localhost", "127.0.0.1", "::1"], "e2e-server")?;
        let client = named(&[], "e2e-client")?;
        Ok(Self {
            server: sign(&issuer, dir.path(), "server", server)?,
            client: sign(&issuer, dir.path(), "client", client)?,
            ca,
            _dir: dir,
        })
    }
}

fn named(subjects: &[&str], common_name: &str) -> Result<CertificateParams> {
    let subjects: Vec<String> = subjects.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(subjects)?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(params)
}

fn sign(
    issuer: &Issuer<'_, KeyPair>,
    dir: &Path,
    name: &str,
    mut params: CertificateParams,
) -> Result<Pair> {
    // Both usages in both certificates: etcd's gateway connects to its own server with the server's
    // certificate.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let pair = Pair {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    fs::write(&pair.cert, params.signed_by(&key, issuer)?.pem()).context("write a certificate")?;
    fs::write(&pair.key, key.serialize_pem()).context("write a key")?;
    Ok(pair)
}
