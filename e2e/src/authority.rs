//! A certificate authority for tests: good leaves, and every kind of bad one.
//!
//! ```no_run
//! # use e2e::authority::{Authority, Leaf};
//! # fn main() -> anyhow::Result<()> {
//! # let dir = std::path::Path::new("/tmp");
//! let authority = Authority::new("ca")?;
//! let pair = authority.issue(&Leaf::for_loopback("node"))?.write(dir, "node")?;
//! let ca = authority.write(dir, "ca")?;
//! # Ok(()) }
//! ```
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate with its private key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Pair {
    /// `-<prefix>-cert <file> -<prefix>-key <file>`.
    pub fn flags(&self, prefix: &str) -> [String; 4] {
        [
            format!("-{prefix}-cert"),
            self.cert.display().to_string(),
            format!("-{prefix}-key"),
            self.key.display().to_string(),
        ]
    }
}

/// A certificate with its private key, as PEM texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Issued {
    /// Writes `<name>.crt` and `<name>.key`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<Pair> {
        let pair = Pair {
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        fs::write(&pair.cert, &self.cert).context("write a certificate")?;
        fs::write(&pair.key, &self.key).context("write a key")?;
        Ok(pair)
    }
}

/// Kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// ECDSA P-256, in PKCS#8.
    P256,
    /// RSA with so many bits, in PKCS#1; made by `openssl`.
    Rsa(u32),
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Common name.
    pub common_name: String,
    /// Subject alternative names: hosts and addresses.
    pub names: Vec<String>,
    /// It begins to be valid so long ago; negative by `begins_in`.
    pub begun: Duration,
    /// It begins to be valid only after so long.
    pub begins_in: Duration,
    /// It has been valid until so long ago.
    pub expired: Option<Duration>,
    /// It is valid for so long from now.
    pub lasts: Duration,
    /// It may be presented by a server.
    pub of_server: bool,
    /// It may be presented by a client.
    pub of_client: bool,
    /// Its key.
    pub key: Key,
}

impl Leaf {
    /// For any use, with these names, for 30 days.
    pub fn new(common_name: &str, names: &[&str]) -> Self {
        Self {
            common_name: common_name.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            begun: DAY,
            begins_in: Duration::ZERO,
            expired: None,
            lasts: 30 * DAY,
            of_server: true,
            of_client: true,
            key: Key::P256,
        }
    }

    /// Names: `localhost`, `127.0.0.1`, `::1`.
    pub fn for_loopback(common_name: &str) -> Self {
        Self::new(common_name, &["localhost", "127.0.0.1", "::1"])
    }

    /// Expired an hour ago.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expired = Some(Duration::from_secs(3600));
        self
    }

    /// Valid from tomorrow on.
    #[must_use]
    pub fn not_yet_valid(mut self) -> Self {
        self.begun = Duration::ZERO;
        self.begins_in = DAY;
        self
    }

    /// Valid for this long from now.
    #[must_use]
    pub fn lasting(mut self, lasts: Duration) -> Self {
        self.lasts = lasts;
        self
    }

    /// With another kind of key.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }

    /// Only for clients: a server must not present it.
    #[must_use]
    pub fn only_for_clients(mut self) -> Self {
        self.of_server = false;
        self
    }

    /// Only for servers: a client must not present it.
    #[must_use]
    pub fn only_for_servers(mut self) -> Self {
        self.of_client = false;
        self
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::new(self.names.clone())?;
        params
            .distinguished_name
            .push(DnType::CommonName, &self.common_name);
        let now = SystemTime::now();
        params.not_before = match self.begins_in {
            Duration::ZERO => now - self.begun,
            later => now + later,
        }
        .into();
        params.not_after = match self.expired {
            Some(ago) => now - ago,
            None => now + self.begins_in + self.lasts,
        }
        .into();
        let usages = [
            (self.of_server, ExtendedKeyUsagePurpose::ServerAuth),
            (self.of_client, ExtendedKeyUsagePurpose::ClientAuth),
        ];
        let given = usages.into_iter().filter(|(given, _)| *given);
        params.extended_key_usages = given.map(|(_, usage)| usage).collect();
        Ok(params)
    }
}

/// A certificate authority; two with the same name do not trust each other.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Issued,
}

impl Authority {
    /// A new one with a new key.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new(common_name: &str) -> Result<Self> {
        let leaf = Leaf::for_loopback(common_name);
        let key = KeyPair::generate()?;
        let mut params = leaf.params()?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages.clear();
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let own = Issued {
            cert: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Ok(Self {
            issuer: Issuer::new(params, key),
            own,
        })
    }

    /// Its own certificate with its key, which names `localhost`, `127.0.0.1` and `::1`: to be used directly
    /// by a server, as careless people do.
    pub fn own(&self) -> &Issued {
        &self.own
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.own.cert
    }

    /// Writes its certificate to `<name>.crt`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        let path = dir.join(format!("{name}.crt"));
        fs::write(&path, self.pem()).context("write the authority's certificate")?;
        Ok(path)
    }

    /// Signs a new certificate.
    ///
    /// # Errors
    /// No key can be made (RSA needs `openssl`).
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued> {
        let params = leaf.params()?;
        match leaf.key {
            Key::P256 => {
                let key = KeyPair::generate()?;
                Ok(Issued {
                    cert: params.signed_by(&key, &self.issuer)?.pem(),
                    key: key.serialize_pem(),
                })
            }
            Key::Rsa(bits) => {
                let bits = bits.to_string();
                let key = openssl(&["genrsa", "-traditional", &bits], "")?;
                let public = openssl(&["rsa", "-pubout"], &key)?;
                let public = SubjectPublicKeyInfo::from_pem(&public)?;
                Ok(Issued {
                    cert: params.signed_by(&public, &self.issuer)?.pem(),
                    key,
                })
            }
        }
    }
}

/// A certificate signed by nobody else, and no authority.
///
/// # Errors
/// No key can be made.
pub fn self_signed(leaf: &Leaf) -> Result<Issued> {
    let key = KeyPair::generate()?;
    Ok(Issued {
        cert: leaf.params()?.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A TLS client that trusts the certificates of this PEM text, and presents `identity`.
///
/// # Errors
/// A text is not in PEM form.
pub fn client_config(trusted: &str, identity: Option<&Issued>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(certificate?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.cert.as_bytes());
            let chain = chain.collect::<Result<_, _>>()?;
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes())?)?
        }
    };
    Ok(Arc::new(config))
}

fn openssl(args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start openssl")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "openssl {args:?}: {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}
