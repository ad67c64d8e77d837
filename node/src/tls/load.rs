//! From files to rustls's configurations.
use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, InconsistentKeys, ServerConfig, WantsVerifier,
    client::danger::ServerCertVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};

use super::{
    facts::{self, Validity},
    pem::{self, Source},
    port::Port,
    verify::{self, Trusted},
};
use crate::config::Tls;

/// The files of one side.
#[derive(Clone, Debug)]
pub(super) struct Files {
    port: Port,
    cert: Source,
    key: Source,
    ca: Option<Source>,
    tls: Tls,
}

/// What the files held at one moment.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

/// Configurations of new connections, and what is reported of them.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) server: Arc<ServerConfig>,
    /// Only between nodes: the HTTP port opens no connections.
    pub(super) client: Option<Arc<ClientConfig>>,
    /// Verifies certificates of clients of this port; `None` if none are requested.
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
    /// Verifies certificates of other nodes that are dialed; `None` if none are dialed or verified.
    pub(super) servers: Option<Arc<dyn ServerCertVerifier>>,
    pub(super) leaf_sha256: String,
    pub(super) validity: Validity,
    pub(super) trusted_sha256: Vec<String>,
    /// A setting that works, but probably not as intended.
    pub(super) warning: Option<String>,
    /// Of the files.
    pub(super) digest: [u8; 32],
}

impl Files {
    /// # Errors
    /// TLS is not configured.
    pub(super) fn new(port: Port, tls: &Tls) -> Result<Self, String> {
        let flag = |name: &str| format!("-{}-{name}", port.prefix());
        let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
            return Err(format!("TLS needs {} and {}", flag("cert"), flag("key")));
        };
        Ok(Self {
            port,
            cert: Source::new(flag("cert"), cert),
            key: Source::new(flag("key"), key),
            ca: tls
                .ca_cert
                .as_ref()
                .map(|path| Source::new(flag("ca-cert"), path)),
            tls: tls.clone(),
        })
    }

    pub(super) fn settings(&self) -> &Tls {
        &self.tls
    }

    /// The file of the certificate, for messages.
    pub(super) fn cert(&self) -> &Source {
        &self.cert
    }

    /// # Errors
    /// Which file cannot be read.
    pub(super) fn read(&self) -> Result<Contents, String> {
        Ok(Contents {
            cert: self.cert.read()?,
            key: self.key.read()?,
            ca: self.ca.as_ref().map(Source::read).transpose()?,
        })
    }

    /// # Errors
    /// Which file holds what cannot be used, and what to change.
    pub(super) fn build(&self, contents: &Contents) -> Result<Material, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = pem::certificates(&contents.cert).map_err(|e| self.cert.error(&e))?;
        let key = pem::private_key(&contents.key).map_err(|e| self.key.error(&e))?;
        let leaf = chain.first().ok_or_else(|| self.cert.error(&"is empty"))?;
        self.check_pair(&provider, &chain, &key)?;
        let trusted = self.trusted(contents)?;
        let warning = self
            .needs_authorities(&trusted)
            .then(|| trusted.if_none().to_owned());
        let clients = self
            .tls
            .verify_client
            .then(|| trusted.verifier_of_clients(&provider, &self.tls.verify_common_name));
        let dials = self.port == Port::Node && !self.tls.no_verify;
        let servers = dials.then(|| trusted.verifier_of_servers(&provider, None));
        let (clients, servers) = (clients.transpose()?, servers.transpose()?);
        Ok(Material {
            leaf_sha256: facts::sha256_hex(leaf),
            validity: Validity::of(leaf).map_err(|e| self.cert.error(&e))?,
            trusted_sha256: trusted.sha256(),
            warning,
            digest: contents.digest(),
            server: Arc::new(self.server(
                &provider,
                chain.clone(),
                key.clone_key(),
                clients.clone(),
            )?),
            client: match self.port {
                Port::Http => None,
                Port::Node => Some(Arc::new(self.client(
                    &provider,
                    chain,
                    key,
                    servers.clone(),
                )?)),
            },
            clients,
            servers,
        })
    }

    fn trusted(&self, contents: &Contents) -> Result<Trusted, String> {
        match (&self.ca, &contents.ca) {
            (Some(source), Some(ca)) => pem::certificates(ca)
                .and_then(Trusted::given)
                .map_err(|e| source.error(&e)),
            _ => Ok(Trusted::of_system(&format!(
                "-{}-ca-cert",
                self.port.prefix()
            ))),
        }
    }

    fn needs_authorities(&self, trusted: &Trusted) -> bool {
        let verifies_servers = self.port == Port::Node && !self.tls.no_verify;
        trusted.is_empty() && (self.tls.verify_client || verifies_servers)
    }

    /// The certificate and the key are usable and belong together.
    fn check_pair(
        &self,
        provider: &CryptoProvider,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<(), String> {
        let Some(leaf) = chain.first() else {
            return Err(self.cert.error(&"is empty"));
        };
        if facts::is_version_1(leaf) {
            return Err(self.cert.error(
                &"the certificate has X.509 version 1, so it names no hosts; make one with the extension subjectAltName",
            ));
        }
        if let Some(weak) = facts::weak_key(leaf) {
            return Err(self.cert.error(&weak));
        }
        let matches = |certificate: &CertificateDer<'static>| {
            CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), provider)
        };
        match matches(leaf) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let owner = chain.iter().position(|one| matches(one).is_ok());
                Err(self.key.error(&match owner {
                    Some(at) => format!(
                        "this key belongs to certificate {} of {}; the node's own certificate must come first, then those that sign it",
                        at + 1,
                        self.cert.path.display()
                    ),
                    None => format!(
                        "this key does not belong to the certificate in {}",
                        self.cert.path.display()
                    ),
                }))
            }
            Err(rustls::Error::General(why)) => Err(self.key.error(&format!(
                "this key cannot be used ({why}); use RSA with 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519"
            ))),
            Err(why) => Err(self.cert.error(&why)),
        }
    }

    fn server(
        &self,
        provider: &Arc<CryptoProvider>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = match clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|e| self.cert.error(&e))?;
        config.alpn_protocols = self.port.alpn();
        if self.tls.verify_client || self.port == Port::Node {
            // A resumed session is not verified again, so a certificate that has expired since would go on.
            // Nodes keep their connections, and do not resume any.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }

    fn client(
        &self,
        provider: &Arc<CryptoProvider>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        servers: Option<Arc<dyn ServerCertVerifier>>,
    ) -> Result<ClientConfig, String> {
        let verifier = servers.unwrap_or_else(|| verify::unverified(provider));
        let mut config = client_builder(Arc::clone(provider))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key)
            .map_err(|e| self.cert.error(&e))?;
        config.alpn_protocols = self.port.alpn();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// TLS 1.2 and 1.3.
///
/// # Errors
/// Not with ring.
pub(crate) fn client_builder(
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())
}

impl Contents {
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        for part in [Some(&self.cert), Some(&self.key), self.ca.as_ref()] {
            all.update(part.map_or(0, |part| part.len() as u64).to_le_bytes());
            all.update(part.map_or(&[][..], Vec::as_slice));
        }
        all.finalize().into()
    }
}
