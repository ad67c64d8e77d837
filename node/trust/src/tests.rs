//! Which certificates are accepted, as a table.
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use time::OffsetDateTime;

use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

/// What `openssl req -x509` makes, for a name.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "the same subject");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = at(NOW - 10 * DAY);
    params.not_after = at(NOW + 10 * DAY);
    params
}

fn leaf(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::NoCa;
    params.distinguished_name.push(DnType::CommonName, "a leaf");
    params
}

/// Presents a certificate to who was given others.
fn presented(
    certificate: &CertificateDer<'_>,
    given: &[&CertificateDer<'static>],
    name: &str,
    now: u64,
) -> Result<(), String> {
    let given: Vec<_> = given.iter().map(|one| (*one).clone()).collect();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(given.clone());
    let verifier = verifier_of_servers(roots, given, &Arc::new(default_provider())).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let verified = verifier.verify_server_cert(certificate, &[], &name, &[], now);
    verified.map(|_| ()).map_err(|error| format!("{error:?}"))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn only_the_given_certificate_within_its_time_and_for_its_names() {
    let (key, other_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let made = |params: CertificateParams, key: &KeyPair| params.self_signed(key).unwrap();
    let own = made(params("node.example"), &key);
    let own = own.der();
    // The same subject, name and key, and yet another certificate.
    let mut again = params("node.example");
    again.not_after = at(NOW + 11 * DAY);
    let same_key = made(again, &key);
    let same_subject = made(params("node.example"), &other_key);
    let issuer = Issuer::new(params("node.example"), &key);
    let signed = leaf("node.example").signed_by(&other_key, &issuer).unwrap();
    let signed_authority = params("node.example")
        .signed_by(&other_key, &issuer)
        .unwrap();
    let no_authority = made(leaf("node.example"), &key);
    let cases = [
        ("itself", own, vec![own], "node.example", NOW, "Ok"),
        (
            "among others",
            own,
            vec![same_subject.der(), own],
            "node.example",
            NOW,
            "Ok",
        ),
        (
            "another name",
            own,
            vec![own],
            "other.example",
            NOW,
            "NotValidForName",
        ),
        (
            "expired",
            own,
            vec![own],
            "node.example",
            NOW + 20 * DAY,
            "Expired",
        ),
        (
            "too early",
            own,
            vec![own],
            "node.example",
            NOW - 20 * DAY,
            "NotValidYet",
        ),
        (
            "the same key",
            same_key.der(),
            vec![own],
            "node.example",
            NOW,
            "CaUsedAsEndEntity",
        ),
        (
            "the same subject",
            same_subject.der(),
            vec![own],
            "node.example",
            NOW,
            "CaUsedAsEndEntity",
        ),
        (
            "another one",
            own,
            vec![same_subject.der()],
            "node.example",
            NOW,
            "CaUsedAsEndEntity",
        ),
        ("signed", signed.der(), vec![own], "node.example", NOW, "Ok"),
        (
            "signed, another name",
            signed.der(),
            vec![own],
            "other.example",
            NOW,
            "NotValidForName",
        ),
        (
            "signed as an authority",
            signed_authority.der(),
            vec![own],
            "node.example",
            NOW,
            "CaUsedAsEndEntity",
        ),
        (
            "signed by another",
            signed.der(),
            vec![same_key.der()],
            "node.example",
            NOW,
            "Ok",
        ),
        (
            "not signed",
            no_authority.der(),
            vec![own],
            "node.example",
            NOW,
            "UnknownIssuer",
        ),
    ];
    for (what, certificate, given, name, now, expected) in cases {
        let verdict = format!("{:?}", presented(certificate, &given, name, now));
        assert!(verdict.contains(expected), "{what}: {verdict}");
    }
}
