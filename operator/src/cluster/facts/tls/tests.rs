//! What is decided once, and the names of certificates.
use operator_api::cluster::{ClientTls, NodeTls, Tls};

use super::*;
use crate::cluster::fixture::Fixture;

fn modes(tls: &TlsStatus) -> [&str; 4] {
    let sides = [&tls.nodes, &tls.clients];
    let [nodes, clients] = sides.map(|side| [side.mode.as_str(), side.stage.as_str()]);
    [nodes, clients].concat().try_into().unwrap()
}

fn asks(fixture: &mut Fixture, nodes: Option<NodeTlsMode>, clients: Option<ClientTlsMode>) {
    let (nodes, clients) = (
        NodeTls {
            mode: nodes,
            ..NodeTls::default()
        },
        ClientTls {
            mode: clients,
            ..ClientTls::default()
        },
    );
    fixture.seen.cluster.spec.tls = Some(Tls {
        nodes: Some(nodes),
        clients: Some(clients),
    });
}

#[test]
fn new_clusters_are_secure_and_old_ones_stay_as_they_are() {
    let mut fixture = Fixture::running(3, 0);
    let mut new = Fixture::running(3, 0).seen;
    (new.voters, new.cluster.status) = (None, None);
    let decided = resolved(&View::of(&new));
    assert_eq!(
        modes(&decided),
        ["Required", "Require", "Optional", "Accept"]
    );
    assert!(decided.checks_common_name);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.tls = None;
    let old = |fixture: &Fixture| modes(&resolved(&View::of(&fixture.seen))).map(str::to_owned);
    assert_eq!(old(&fixture), ["Disabled", "Plain", "Disabled", "Plain"]);
    assert_eq!(template_key(&View::of(&fixture.seen)), None);
    asks(
        &mut fixture,
        Some(NodeTlsMode::Required),
        Some(ClientTlsMode::Required),
    );
    assert_eq!(
        old(&fixture),
        ["Required", "Plain", "Required", "Plain"],
        "not moved yet"
    );
    fixture.seen.cluster.spec.tls = Some(Tls {
        nodes: Some(NodeTls {
            mode: None,
            certificate: Some(CertificateSource {
                secret_name: Some("s".to_owned()),
                issuer_ref: None,
            }),
        }),
        clients: None,
    });
    let asked = old(&fixture);
    assert_eq!(
        asked[..2],
        ["Required", "Plain"],
        "a certificate asks for TLS"
    );
}

#[test]
fn what_was_decided_stays_when_the_spec_says_nothing_any_more() {
    let mut fixture = Fixture::running(3, 0);
    asks(&mut fixture, None, Some(ClientTlsMode::Disabled));
    for _ in 0..6 {
        fixture.reconcile();
    }
    let now = fixture.status().tls.unwrap();
    assert_eq!(modes(&now)[2], "Disabled");
    fixture.seen.cluster.spec.tls = None;
    fixture.reconcile();
    assert_eq!(modes(&fixture.status().tls.unwrap())[2], "Disabled");
}

#[test]
fn a_status_that_was_lost_is_read_from_the_pods() {
    let mut fixture = Fixture::running(3, 0);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    (status.tls, status.cluster_id) = (None, None);
    fixture.seen.voters.as_mut().unwrap().tls = PodTls {
        nodes: TlsStage::Use,
        clients: TlsStage::Plain,
        checks_name: false,
    };
    let found = resolved(&View::of(&fixture.seen));
    assert_eq!(modes(&found), ["Required", "Use", "Disabled", "Plain"]);
}

#[test]
fn names_by_which_a_cluster_is_reached() {
    let mut fixture = Fixture::running(3, 1);
    asks(&mut fixture, None, None);
    let clients = fixture
        .seen
        .cluster
        .spec
        .tls
        .as_mut()
        .unwrap()
        .clients
        .as_mut()
        .unwrap();
    clients.extra_names = ["db.example.com", "FD00::0001", "localhost"]
        .map(str::to_lowercase)
        .to_vec();
    let view = View::of(&fixture.seen);
    let nodes = certificate_names(&view, Side::Nodes);
    assert_eq!(nodes[0], "*.demo-headless.shop.svc.cluster.local");
    let clients = certificate_names(&view, Side::Clients);
    for name in [
        "*.demo-headless.shop.svc.cluster.local",
        "demo-client.shop.svc.cluster.local",
        "demo-leader.shop.svc",
        "demo-read.shop",
        "demo-client",
        "localhost",
        "127.0.0.1",
        "::1",
        "db.example.com",
        "fd00::1",
    ] {
        let count = clients.iter().filter(|one| *one == name).count();
        assert_eq!(count, 1, "{name}");
    }
    let needed = needed_names(&view, Side::Clients);
    for name in [
        "demo-2.demo-headless.shop.svc.cluster.local",
        "demo-ro-0.demo-headless.shop.svc.cluster.local",
        "demo-client.shop.svc",
    ] {
        assert!(needed.iter().any(|one| one == name), "{name} {needed:?}");
    }
}
