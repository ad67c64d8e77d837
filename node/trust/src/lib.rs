//! Verifies servers by given certificates, which may be authorities' or may be presented themselves.
//!
//! `openssl req -x509` makes a certificate that is an authority's, and people use it as their server's own,
//! and as the authority to trust. rustls refuses it as a server's (`CaUsedAsEndEntity`); Go accepts it.
//! Whoever gives exactly this certificate has said that he trusts its key, with which any other could be
//! signed. So it is accepted within its time and for its names. All else is as rustls decides.
use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Verifies servers by the authorities in `roots`, and by `given` if one of them is presented itself.
///
/// # Errors
/// There is no authority.
pub fn verifier_of_servers(
    roots: RootCertStore,
    given: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierBuilderError> {
    let builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let inner = builder.build()?;
    Ok(Arc::new(OfServers { inner, given }))
}

/// Whether `presented` was refused for nothing but being an authority's, and is one of the `given`
/// certificates. Its time has been checked then, its names have not.
pub fn is_given_itself(
    refused: &Error,
    presented: &CertificateDer<'_>,
    given: &[CertificateDer<'_>],
) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = refused else {
        return false;
    };
    // webpki checks the time first, then this.
    let is_authority = matches!(
        why.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    );
    is_authority && given.iter().any(|one| one == presented)
}

#[derive(Debug)]
struct OfServers {
    inner: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(error) if is_given_itself(&error, end_entity, &self.given) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
