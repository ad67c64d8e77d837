//! Every kind of bad certificate, and what is said of it.
use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::cluster::facts::secrets::{SecretBytes, SecretOwner};

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "test authority");
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { params, key, pem }
}

fn params(names: &[&str], from: i64, to: i64) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let epoch = OffsetDateTime::UNIX_EPOCH;
    params.not_before = epoch + Duration::seconds(from);
    params.not_after = epoch + Duration::seconds(to);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn signed(by: &Authority, params: &CertificateParams) -> [(&'static str, String); 3] {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&by.params, &by.key);
    let pem = params.signed_by(&key, &issuer).unwrap().pem();
    [
        (CERTIFICATE, pem),
        (KEY, key.serialize_pem()),
        (AUTHORITIES, by.pem.clone()),
    ]
}

fn secret(parts: &[(&'static str, String)]) -> ObservedSecret {
    let data = parts.iter();
    let data = data.map(|(key, text)| ((*key).to_owned(), SecretBytes::new(text.as_bytes())));
    ObservedSecret {
        uid: "u".to_owned(),
        resource_version: "1".to_owned(),
        secret_type: "kubernetes.io/tls".to_owned(),
        owner: SecretOwner::Ours,
        immutable: false,
        deleting: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        changed_at: None,
        data: data.collect(),
    }
}

fn verdict(parts: &[(&'static str, String)]) -> Result<(), String> {
    let pair = read_pair(&secret(parts))?;
    let names = ["demo-0.demo.svc".to_owned()];
    check(&pair, &pair.trusted, &names, true, &at(NOW)).map_err(|fault| fault.to_string())
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let ours = authority();
    let day = 86_400;
    let good = params(&["*.demo.svc"], NOW - day, NOW + day);
    assert_eq!(verdict(&signed(&ours, &good)), Ok(()));
    let fails = |parts: &[(&'static str, String)], expected: &str| {
        let said = verdict(parts).unwrap_err();
        assert!(said.contains(expected), "{said} instead of {expected}");
    };
    let of = |from, to| signed(&ours, &params(&["*.demo.svc"], from, to));
    fails(&of(NOW - 2 * day, NOW - day), "expired: renew it");
    fails(
        &of(NOW + day, NOW + 2 * day),
        "not valid yet: check the clocks",
    );
    let other = params(&["*.other.svc"], NOW - day, NOW + day);
    fails(&signed(&ours, &other), "not for the name demo-0.demo.svc");
    let mut server = good.clone();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    fails(&signed(&ours, &server), "extended key usage");
    let good = signed(&ours, &good);
    let with = |key: &'static str, text: &str| {
        let mut parts = good.clone().to_vec();
        parts.retain(|(known, _)| *known != key);
        parts.push((key, text.to_owned()));
        parts
    };
    let key = KeyPair::generate().unwrap().serialize_pem();
    fails(&with(KEY, &key), "not the key of the first certificate");
    fails(&with(KEY, "garbage"), "no private key in PEM");
    fails(&with(KEY, ""), "no key tls.key: add it");
    fails(
        &with(CERTIFICATE, "garbage"),
        "tls.crt: it holds no certificate",
    );
    fails(&with(AUTHORITIES, ""), "no key ca.crt: add it");
    fails(
        &with(AUTHORITIES, &authority().pem),
        "signed it: add its authority",
    );
    let broken = good[0].1.replace("MII", "MIJ");
    fails(
        &with(CERTIFICATE, &broken),
        "tls.crt: a certificate cannot be read",
    );
}

#[test]
fn the_last_certificate_of_a_chain_stands_in_for_a_missing_authority() {
    let ours = authority();
    let [mut leaf, key, _] = signed(&ours, &params(&["*.demo.svc"], NOW - 9, NOW + 9));
    leaf.1.push_str(&ours.pem);
    assert_eq!(verdict(&[leaf, key]), Ok(()));
}

#[test]
fn certificates_are_read_and_written_as_they_are() {
    let ours = authority();
    let parts = signed(
        &ours,
        &params(&["*.demo.svc", "::1", "10.0.0.1"], NOW - 30, NOW + 60),
    );
    let pair = read_pair(&secret(&parts)).unwrap();
    assert_eq!(pair.leaf.names, ["*.demo.svc", "::1", "10.0.0.1"]);
    let again = read_all(pair.leaf.pem().as_bytes()).unwrap();
    assert_eq!(again, std::slice::from_ref(&pair.leaf));
    assert!(pair.trusted[0].is_authority);
    let same = signer(&pair, &pair.trusted, &at(NOW + 9999)).map(|one| &one.sha256);
    assert_eq!(
        same,
        Some(&pair.trusted[0].sha256),
        "also once it has expired"
    );
}

#[test]
fn renewal_is_due_after_two_thirds_at_the_latest() {
    let ours = authority();
    let life = 90 * 86_400;
    let parts = signed(&ours, &params(&["*.demo.svc"], NOW, NOW + life));
    let leaf = read_pair(&secret(&parts)).unwrap().leaf;
    assert!(leaf.is_due(&at(NOW + life / 3 * 2)));
    assert!(!leaf.is_due(&at(NOW + life / 3 * 2 - life / 20 - 1)));
    assert!(!leaf.is_pressing(&at(NOW + life / 3 * 2)));
    assert!(leaf.is_pressing(&at(NOW + life / 100 * 91)));
}
