//! Makes keys and certificates: the authority of a cluster, and certificates that it signs. ECDSA with P-256,
//! which every TLS library accepts.
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

use crate::{
    cluster::facts::{
        certificates::{AUTHORITIES, AUTHORITY_KEY, CERTIFICATE, CROSS, KEY},
        secrets::{Contents, SecretBytes},
    },
    error::Error,
};

/// Certificates are valid from this long before they are made, for clocks that differ.
const SKEW: Duration = Duration::HOUR;
/// Validity of an authority in days. It is replaced after two thirds of it, with overlap; applications that
/// keep a copy of its certificate have at least the rest, a year, to get the next one.
const AUTHORITY_DAYS: i64 = 3 * 365;
/// Validity of a certificate in days: short, because it is renewed automatically.
const LEAF_DAYS: i64 = 90;

/// What a certificate is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf<'a> {
    /// Common name.
    pub(super) common_name: &'a str,
    /// DNS names and IP addresses.
    pub(super) names: &'a [String],
    /// Trusted authorities besides the signing one, in PEM.
    pub(super) trusted: &'a [String],
    /// When it is made, in seconds since 1970.
    pub(super) at: i64,
}

fn failed(error: rcgen::Error) -> Error {
    Error::Certificate(error.to_string())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn valid_for(params: &mut CertificateParams, at: i64, days: i64) {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::seconds(at);
    params.not_before = now - SKEW;
    params.not_after = now + Duration::days(days);
}

/// A new authority; a present one cross-signs it.
///
/// # Errors
/// No key could be made.
pub(super) fn authority(
    common_name: &str,
    before: Option<&Contents>,
    at: i64,
) -> Result<Contents, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    // It signs leaf certificates and, as a cross-signed intermediate, the next authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, at, AUTHORITY_DAYS);
    let own = params.self_signed(&key).map_err(failed)?;
    let mut all = Contents::new();
    all.insert(AUTHORITIES.to_owned(), SecretBytes::new(own.pem()));
    all.insert(
        AUTHORITY_KEY.to_owned(),
        SecretBytes::new(key.serialize_pem()),
    );
    if let Some(before) = before {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        let cross = params.signed_by(&key, &issuer(before)?).map_err(failed)?;
        all.insert(CROSS.to_owned(), SecretBytes::new(cross.pem()));
    }
    Ok(all)
}

/// The authority as an issuer.
fn issuer(authority: &Contents) -> Result<Issuer<'static, KeyPair>, Error> {
    let text = |key: &str| {
        let value = authority.get(key).and_then(SecretBytes::expose_text);
        value.ok_or_else(|| Error::Certificate(format!("the authority has no {key}")))
    };
    let key = KeyPair::from_pem(text(AUTHORITY_KEY)?).map_err(failed)?;
    Issuer::from_ca_cert_pem(text(AUTHORITIES)?, key).map_err(failed)
}

/// A new certificate for servers and clients; without names, for a client.
///
/// # Errors
/// No key could be made, or the authority cannot sign.
pub(super) fn leaf(authority: &Contents, wanted: &Leaf<'_>) -> Result<Contents, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::new(wanted.names.to_vec()).map_err(failed)?;
    params.distinguished_name = named(wanted.common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !wanted.names.is_empty() {
        params
            .extended_key_usages
            .insert(0, ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, wanted.at, LEAF_DAYS);
    let signed = params
        .signed_by(&key, &issuer(authority)?)
        .map_err(failed)?;
    let text = |key: &str| authority.get(key).and_then(SecretBytes::expose_text);
    // Includes the cross-signed certificate, for clients that trust only the former authority.
    let chain = [signed.pem(), text(CROSS).unwrap_or_default().to_owned()];
    let signer = text(AUTHORITIES).unwrap_or_default();
    let mut trusted = wanted.trusted.to_vec();
    if !trusted.iter().any(|one| same_certificate(one, signer)) {
        trusted.push(signer.to_owned());
    }
    let parts = [
        (CERTIFICATE, chain.concat()),
        (KEY, key.serialize_pem()),
        (AUTHORITIES, trusted.concat()),
    ];
    let parts = parts.map(|(key, text)| (key.to_owned(), SecretBytes::new(text)));
    Ok(parts.into())
}

/// Do two PEM texts hold the same? Line ends and widths differ between writers.
fn same_certificate(one: &str, other: &str) -> bool {
    let letters = |text: &str| -> String { text.split_whitespace().collect() };
    letters(one) == letters(other)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::cluster::facts::{
        certificates::{check, check_client, read_all, read_authority, read_pair, signer},
        secrets::{ObservedSecret, SecretOwner},
    };

    fn seen(data: &Contents) -> ObservedSecret {
        ObservedSecret {
            uid: "u".to_owned(),
            resource_version: "1".to_owned(),
            secret_type: "kubernetes.io/tls".to_owned(),
            owner: SecretOwner::Ours,
            immutable: false,
            deleting: false,
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
            changed_at: None,
            data: data.clone(),
        }
    }

    #[test]
    fn whoever_trusts_the_former_authority_accepts_certificates_of_the_next_one() {
        let now = Time(Timestamp::now());
        let at = now.0.as_second();
        let old = authority("first", None, at).unwrap();
        let new = authority("second", Some(&old), at).unwrap();
        let names = ["*.demo.svc".to_owned(), "::1".to_owned()];
        let wanted = Leaf {
            common_name: "demo",
            names: &names,
            trusted: &[],
            at,
        };
        let made = leaf(&new, &wanted).unwrap();
        let pair = read_pair(&seen(&made)).unwrap();
        assert_eq!(pair.leaf.names, names);
        assert_eq!(pair.leaf.common_name.as_deref(), Some("demo"));
        assert!(!pair.leaf.is_due(&now) && !pair.leaf.is_authority);
        let reached = ["a.demo.svc".to_owned(), "::1".to_owned()];
        for (authority, trusts) in [(&old, true), (&new, true)] {
            let root = read_authority(&seen(authority), &now).unwrap();
            let verdict = check(&pair, std::slice::from_ref(&root), &reached, true, &now);
            assert_eq!(verdict.is_ok(), trusts, "{verdict:?}");
            assert!(signer(&pair, &[root], &now).is_some());
        }
        let other = authority("other", None, at).unwrap();
        let other = read_all(other[AUTHORITIES].expose()).unwrap();
        assert!(check(&pair, &other, &reached, true, &now).is_err());
        assert!(signer(&pair, &other, &now).is_none());
        assert_eq!(pair.trusted.len(), 1);
    }

    #[test]
    fn one_without_names_is_a_clients_only() {
        let now = Time(Timestamp::now());
        let at = now.0.as_second();
        let old = authority("first", None, at).unwrap();
        let new = authority("second", Some(&old), at).unwrap();
        let wanted = Leaf {
            common_name: "rqlite-backup",
            names: &[],
            trusted: &[],
            at,
        };
        let pair = read_pair(&seen(&leaf(&new, &wanted).unwrap())).unwrap();
        for authority in [&old, &new] {
            let root = read_authority(&seen(authority), &now).unwrap();
            let trusted = std::slice::from_ref(&root);
            assert_eq!(check_client(&pair, trusted, &now), Ok(()));
            assert!(check(&pair, trusted, &[], false, &now).is_err());
        }
    }
}
