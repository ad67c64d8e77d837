//! Certificates as plain values: what a Secret holds, whether the key belongs, and whether nodes and clients
//! would accept it at a given time. Functions of bytes and a time.
use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use operator_api::status::CertificateSummary;
use rustls::{
    CertificateError, RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{ParsedCertificate, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::cluster::facts::secrets::ObservedSecret;

/// Key of the certificate and its intermediates.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of its private key.
pub const KEY: &str = "tls.key";
/// Key of the certificates of the authorities.
pub const AUTHORITIES: &str = "ca.crt";
/// Key of the authority's own private key.
pub const AUTHORITY_KEY: &str = "ca.key";
/// Key of the authority's certificate as cross-signed by its predecessor.
pub const CROSS: &str = "cross.crt";

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// DNS names and IP addresses that it is for.
    pub names: Vec<String>,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// May it sign certificates?
    pub is_authority: bool,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// As PEM.
    pub fn pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.der);
        let lines = text.as_bytes().chunks(64);
        let lines: Vec<_> = lines.map(String::from_utf8_lossy).collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    }

    /// As the status shows it.
    pub fn summary(&self) -> CertificateSummary {
        CertificateSummary {
            sha256: self.sha256.clone(),
            not_after: Time(Timestamp::from_second(self.not_after).unwrap_or_default()),
        }
    }

    /// Its first eight hexadecimal digits, for people.
    pub fn short(&self) -> &str {
        self.sha256.get(..8).unwrap_or_default()
    }

    /// Is it due for renewal? After two thirds of its life, and up to a twentieth of it earlier, so that
    /// not all certificates that were made together are renewed together.
    pub fn is_due(&self, now: &Time) -> bool {
        let life = self.not_after - self.not_before;
        let digits = self.sha256.get(..4).unwrap_or_default();
        let jitter = i64::from_str_radix(digits, 16).unwrap_or(0);
        let early = life / 20 * jitter / 0xffff;
        now.0.as_second() >= self.not_before + life / 3 * 2 - early
    }

    /// Is less than a tenth of its life left?
    pub fn is_pressing(&self, now: &Time) -> bool {
        let life = self.not_after - self.not_before;
        now.0.as_second() >= self.not_after - life / 10
    }
}

/// A certificate with its intermediates, and the authorities that are trusted beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub leaf: Certificate,
    /// Further certificates that are sent with it.
    pub intermediates: Vec<Certificate>,
    /// Authorities.
    pub trusted: Vec<Certificate>,
}

/// Parses certificates in PEM.
///
/// # Errors
/// What is wrong.
pub fn read_all(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let ders = CertificateDer::pem_slice_iter(pem);
    let all: Vec<_> = ders
        .map(|der| {
            let der = der.map_err(|e| format!("it is not PEM: {e}"))?;
            read_one(der)
        })
        .collect::<Result<_, String>>()?;
    if all.is_empty() {
        return Err("it holds no certificate in PEM".to_owned());
    }
    Ok(all)
}

fn read_one(der: CertificateDer<'static>) -> Result<Certificate, String> {
    let (_, parsed) = X509Certificate::from_der(&der)
        .map_err(|e| format!("a certificate cannot be read: {e}"))?;
    let common_name = parsed.subject().iter_common_name().next();
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter());
    let names = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    });
    let names = names.collect();
    let common_name = common_name.and_then(|name| name.as_str().ok().map(str::to_owned));
    let validity = parsed.validity();
    let (not_before, not_after) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let is_authority = parsed.is_ca();
    let digest = Sha256::digest(&der);
    Ok(Certificate {
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        common_name,
        names,
        not_before,
        not_after,
        is_authority,
        der: der.into_owned(),
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(sixteen).to_string())
}

/// A Secret's certificate, key and authorities. Without `ca.crt`, the last certificate that is sent along is
/// taken for the authority.
///
/// # Errors
/// What is missing or does not fit, and what to do.
pub fn read_pair(secret: &ObservedSecret) -> Result<Pair, String> {
    let value = |key: &str| {
        let value = secret.get(key);
        value.ok_or_else(|| format!("it has no key {key}: add it"))
    };
    let chain = value(CERTIFICATE)?;
    let chain = read_all(chain.expose()).map_err(|e| format!("{CERTIFICATE}: {e}"))?;
    belongs(&chain, value(KEY)?.expose())?;
    let mut chain = chain.into_iter();
    let Some(leaf) = chain.next() else {
        return Err(format!("{CERTIFICATE} holds no certificate"));
    };
    let intermediates: Vec<_> = chain.collect();
    let trusted = match secret.get(AUTHORITIES) {
        Some(pem) => read_all(pem.expose()).map_err(|e| format!("{AUTHORITIES}: {e}"))?,
        None => {
            let last = intermediates.last().filter(|one| one.is_authority);
            vec![last.cloned().ok_or_else(|| {
                format!("it has no key {AUTHORITIES}: add it with the certificate of the authority that signed {CERTIFICATE}")
            })?]
        }
    };
    Ok(Pair {
        leaf,
        intermediates,
        trusted,
    })
}

/// Checks that the private key belongs to the first certificate.
fn belongs(chain: &[Certificate], key: &[u8]) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|e| format!("{KEY} holds no private key in PEM (without a password): {e}"))?;
    let chain = chain.iter().map(|one| one.der.clone()).collect();
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(format!(
            "{KEY} is not the key of the first certificate in {CERTIFICATE}: replace one of them"
        )),
        Err(error) => Err(format!("{KEY} cannot be used: {error}")),
    }
}

/// The authority that a Secret holds with its key.
///
/// # Errors
/// Why it cannot sign.
pub fn read_authority(secret: &ObservedSecret, now: &Time) -> Result<Certificate, String> {
    let value = |key: &str| secret.get(key).ok_or_else(|| format!("{key} is missing"));
    let all = read_all(value(AUTHORITIES)?.expose())?;
    belongs(&all, value(AUTHORITY_KEY)?.expose())?;
    let Some(first) = all.into_iter().next() else {
        return Err(format!("{AUTHORITIES} is empty"));
    };
    if !first.is_authority {
        return Err(format!("{AUTHORITIES} may not sign certificates"));
    }
    if first.not_after <= now.0.as_second() {
        return Err(format!("{AUTHORITIES} has expired"));
    }
    Ok(first)
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It lacks this name.
    Name(String),
    /// None of the trusted authorities signed it.
    Untrusted,
    /// It may not be used for this purpose, or another fault.
    Other(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Expired => write!(f, "it has expired: renew it"),
            Self::NotYet => write!(
                f,
                "it is not valid yet: check the clocks, or use another one"
            ),
            Self::Name(name) => write!(
                f,
                "it is not for the name {name}: add it to the subject alternative names"
            ),
            Self::Untrusted => write!(
                f,
                "none of the authorities in {AUTHORITIES} signed it: add its authority, or the intermediate certificates to {CERTIFICATE}"
            ),
            Self::Other(text) => write!(f, "{text}"),
        }
    }
}

/// Would a peer that trusts these authorities accept the certificate as a server of each of these names, and,
/// if `as_client`, as a client?
///
/// # Errors
/// The first reason why not.
pub fn check(
    pair: &Pair,
    trusted: &[Certificate],
    names: &[String],
    as_client: bool,
    now: &Time,
) -> Result<(), Fault> {
    let roots = roots(trusted)?;
    let at = unix(now);
    let others: Vec<_> = pair.intermediates.iter().map(|i| i.der.clone()).collect();
    let broken = |e: &dyn std::fmt::Display| Fault::Other(e.to_string());
    let parsed = ParsedCertificate::try_from(&pair.leaf.der).map_err(|e| broken(&e))?;
    let algorithms = provider().signature_verification_algorithms.all;
    let verdict =
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &others, at, algorithms);
    verdict.map_err(|error| fault(error, ""))?;
    for name in names {
        let subject = ServerName::try_from(name.as_str()).map_err(|e| broken(&e))?;
        let verdict = verify_server_name(&parsed, &subject);
        verdict.map_err(|error| fault(error, name))?;
    }
    if as_client {
        check_client(pair, trusted, now)?;
    }
    Ok(())
}

/// Would a server that trusts these authorities accept the certificate of a client?
///
/// # Errors
/// The first reason why not.
pub fn check_client(pair: &Pair, trusted: &[Certificate], now: &Time) -> Result<(), Fault> {
    let client = WebPkiClientVerifier::builder_with_provider(roots(trusted)?, provider().into());
    let client = client.build().map_err(|e| Fault::Other(e.to_string()))?;
    let others: Vec<_> = pair.intermediates.iter().map(|i| i.der.clone()).collect();
    let verdict = client.verify_client_cert(&pair.leaf.der, &others, unix(now));
    verdict.map(drop).map_err(|error| fault(error, ""))
}

fn roots(trusted: &[Certificate]) -> Result<Arc<RootCertStore>, Fault> {
    let mut roots = RootCertStore::empty();
    for one in trusted {
        roots
            .add(one.der.clone())
            .map_err(|e| Fault::Other(format!("{AUTHORITIES} cannot be used: {e}")))?;
    }
    if roots.is_empty() {
        return Err(Fault::Untrusted);
    }
    Ok(Arc::new(roots))
}

fn unix(now: &Time) -> UnixTime {
    let seconds = u64::try_from(now.0.as_second()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

fn fault(error: rustls::Error, name: &str) -> Fault {
    let rustls::Error::InvalidCertificate(error) = error else {
        return Fault::Other(error.to_string());
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Fault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Fault::NotYet,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Fault::Name(name.to_owned())
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::Untrusted,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Fault::Other("its extended key usage does not allow this use: it needs server and, between nodes, client authentication".to_owned())
        }
        other => Fault::Other(format!("it cannot be used: {other}")),
    }
}

/// Which of these authorities signed it?
pub fn signer<'a>(pair: &Pair, of: &'a [Certificate], now: &Time) -> Option<&'a Certificate> {
    of.iter().find(|one| {
        let alone = std::slice::from_ref(*one);
        // Expiry is checked elsewhere; here only the signature matters.
        matches!(
            check(pair, alone, &[], false, now),
            Ok(()) | Err(Fault::Expired | Fault::NotYet)
        )
    })
}

#[cfg(test)]
mod tests;
