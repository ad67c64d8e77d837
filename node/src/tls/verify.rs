//! Verification of the other side's certificate.
use std::{error::Error as StdError, fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::facts::{self, Purpose, Validity};

/// Certificates that are trusted: authorities, and certificates that may be presented as they are.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// Those of a file; empty for the system's.
    given: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    /// What to change if there are none.
    if_none: String,
}

impl Trusted {
    /// The certificates of a file.
    ///
    /// # Errors
    /// One of them cannot be used as an authority.
    pub fn given(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for (at, certificate) in certificates.iter().enumerate() {
            roots
                .add(certificate.clone())
                .map_err(|e| format!("certificate {} cannot be trusted: {e}", at + 1))?;
        }
        Ok(Self {
            given: certificates,
            roots: Arc::new(roots),
            if_none: String::new(),
        })
    }

    /// The system's authorities, which may be none. `flag` would name others.
    pub fn of_system(flag: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self {
            given: Vec::new(),
            roots: Arc::new(roots),
            if_none: format!(
                "this system has no certificate authorities, so no certificate is trusted; give {flag}"
            ),
        }
    }

    /// There is not one authority.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// What to change if [`Self::is_empty`].
    pub fn if_none(&self) -> &str {
        &self.if_none
    }

    /// SHA-256 of each given certificate, in hex.
    pub fn sha256(&self) -> Vec<String> {
        let given = self.given.iter();
        given
            .map(|certificate| facts::sha256_hex(certificate))
            .collect()
    }

    /// Verifies servers. `name` replaces the dialed name.
    ///
    /// # Errors
    /// Not for valid certificates.
    pub fn verifier_of_servers(
        &self,
        provider: &Arc<CryptoProvider>,
        name: Option<ServerName<'static>>,
    ) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let inner = (!self.is_empty())
            .then(|| {
                WebPkiServerVerifier::builder_with_provider(
                    Arc::clone(&self.roots),
                    Arc::clone(provider),
                )
                .build()
            })
            .transpose()
            .map_err(|e| format!("certificate authorities: {e}"))?;
        Ok(Arc::new(OfServers {
            trusted: self.clone(),
            inner,
            name,
            algorithms: provider.signature_verification_algorithms,
        }))
    }

    /// Requires and verifies certificates of clients, and their common name unless it is empty.
    ///
    /// # Errors
    /// Not for valid certificates.
    pub fn verifier_of_clients(
        &self,
        provider: &Arc<CryptoProvider>,
        common_name: &str,
    ) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let inner = (!self.is_empty())
            .then(|| {
                let builder = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(&self.roots),
                    Arc::clone(provider),
                );
                // The system's authorities are too many to be listed in each handshake.
                if self.given.is_empty() {
                    builder.clear_root_hint_subjects().build()
                } else {
                    builder.build()
                }
            })
            .transpose()
            .map_err(|e| format!("certificate authorities: {e}"))?;
        Ok(Arc::new(OfClients {
            trusted: self.clone(),
            inner,
            common_name: common_name.to_owned(),
            algorithms: provider.signature_verification_algorithms,
        }))
    }

    /// The presented certificate is itself among the given ones. webpki refuses an authority's certificate as
    /// a server's own, but whoever made one self-signed certificate for everything has said that he trusts
    /// it.
    fn is_given(&self, end_entity: &CertificateDer<'_>) -> bool {
        self.given.iter().any(|given| given == end_entity)
    }
}

/// Checks of a certificate that is trusted itself: all but the chain.
fn check_given(
    end_entity: &CertificateDer<'_>,
    purpose: Purpose,
    now: UnixTime,
) -> Result<(), Error> {
    let validity = Validity::of(end_entity).map_err(|_| CertificateError::BadEncoding)?;
    let moment = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if moment < validity.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if moment > validity.not_after {
        return Err(CertificateError::Expired.into());
    }
    match facts::wrong_purpose(end_entity, purpose) {
        Some(why) => Err(refusal(why)),
        None => Ok(()),
    }
}

fn check_key(end_entity: &CertificateDer<'_>) -> Result<(), Error> {
    facts::weak_key(end_entity).map_or(Ok(()), |why| Err(refusal(why)))
}

/// A reason in words.
#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Reason {}

fn refusal(why: impl Into<String>) -> Error {
    CertificateError::Other(OtherError(Arc::new(Reason(why.into())))).into()
}

#[derive(Debug)]
struct OfServers {
    trusted: Trusted,
    inner: Option<Arc<WebPkiServerVerifier>>,
    name: Option<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialed: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = self.name.as_ref().unwrap_or(dialed);
        check_key(end_entity)?;
        if self.trusted.is_given(end_entity) {
            check_given(end_entity, Purpose::Server, now)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let Some(inner) = &self.inner else {
            return Err(refusal(self.trusted.if_none()));
        };
        inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct OfClients {
    trusted: Trusted,
    inner: Option<Arc<dyn ClientCertVerifier>>,
    common_name: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for OfClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner
            .as_ref()
            .map_or(&[], |inner| inner.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_key(end_entity)?;
        if self.trusted.is_given(end_entity) {
            check_given(end_entity, Purpose::Client, now)?;
        } else {
            let Some(inner) = &self.inner else {
                return Err(refusal(self.trusted.if_none()));
            };
            inner.verify_client_cert(end_entity, intermediates, now)?;
        }
        let expected = self.common_name.as_str();
        if !expected.is_empty() && facts::common_name(end_entity).as_deref() != Some(expected) {
            return Err(refusal(format!(
                "client did not provide any valid certificate that matches CN {expected:?}"
            )));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts any certificate of a server that has its key.
pub fn unverified(provider: &CryptoProvider) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Unverified(provider.signature_verification_algorithms))
}

#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _dialed: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
