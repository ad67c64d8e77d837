//! What is asked for; exchanging certificates is walked through in `operator/tests/certificates.rs`, with
//! real ones.
use operator_api::cluster::{CertificateSource, ClientTls, ClientTlsMode, NodeTls, Tls};

use super::*;
use crate::cluster::{facts::view::View, fixture::Fixture};

fn given(name: &str) -> Option<CertificateSource> {
    Some(CertificateSource {
        secret_name: Some(name.to_owned()),
        issuer_ref: None,
    })
}

fn issuer() -> Option<CertificateSource> {
    Some(CertificateSource {
        secret_name: None,
        issuer_ref: Some(IssuerRef {
            name: "corp".to_owned(),
            ..IssuerRef::default()
        }),
    })
}

#[test]
fn a_new_cluster_gets_an_authority_and_two_certificates() {
    let mut fixture = Fixture::running(3, 0);
    (fixture.seen.voters, fixture.seen.cluster.status) = (None, None);
    fixture.seen.pods.clear();
    let plan = plan(&View::of(&fixture.seen));
    assert_eq!(plan.authority, Some(Next::Authority { cross: false }));
    for side in [plan.nodes.unwrap(), plan.clients.unwrap()] {
        assert_eq!(
            side.next,
            Some(Next::Leaf {
                trusted: Vec::new()
            })
        );
        assert_eq!(side.problem, None);
    }
}

#[test]
fn a_missing_secret_is_said_and_nothing_is_made() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.tls = Some(Tls {
        nodes: Some(NodeTls {
            mode: None,
            certificate: given("mine"),
        }),
        clients: Some(ClientTls {
            mode: Some(ClientTlsMode::Required),
            certificate: issuer(),
            ..ClientTls::default()
        }),
    });
    let name = "demo-rqlite-http-tls".to_owned();
    fixture
        .seen
        .issued
        .insert(name.clone(), "cert-manager is not installed".to_owned());
    let view = View::of(&fixture.seen);
    let planned = plan(&view);
    let nodes = planned.nodes.unwrap();
    assert_eq!(nodes.next, None);
    let problem = nodes.problem.unwrap();
    assert_eq!(problem.reason, "CertificateMissing");
    assert!(
        problem
            .text
            .contains("the Secret mine does not exist: create it"),
        "{}",
        problem.text
    );
    let problem = planned.clients.unwrap().problem.unwrap();
    assert_eq!(problem.reason, "CertificateNotIssued");
    assert!(problem.text.contains("not installed"), "{}", problem.text);
    let requests = requests(&view);
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (&requests[0].name, &*requests[0].secret),
        (&name, "demo-rqlite-http-tls-issued")
    );
    assert!(
        requests[0]
            .names
            .contains(&"demo-client.shop.svc".to_owned())
    );
}
