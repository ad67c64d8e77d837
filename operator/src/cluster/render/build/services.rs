//! Services: the headless one that names every pod, one for clients, one for the leader, one for read
//! replicas.
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use operator_api::{cluster::ServiceKind, names, status::Pool};

use super::common::{has_readers, metadata, selecting};
use crate::cluster::facts::view::View;

pub(super) fn all(view: &View<'_>) -> Vec<Service> {
    let wanted = view.spec.services.clone().unwrap_or_default();
    let mut all = vec![headless(view), client(view)];
    if wanted.leader.unwrap_or_default().enabled {
        all.push(leader(view));
    }
    if has_readers(view) {
        all.push(read(view));
    }
    all
}

fn service(view: &View<'_>, name: String, spec: ServiceSpec) -> Service {
    Service {
        metadata: metadata(view, name),
        spec: Some(spec),
        status: None,
    }
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// Both pools, ready or not: nodes must find each other before any of them is ready. The names of the ports
/// are part of SRV records.
fn headless(view: &View<'_>) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        selector: Some(selecting(view, None)),
        ports: Some(vec![
            port("http", names::HTTP_PORT),
            port("raft", names::RAFT_PORT),
        ]),
        ..ServiceSpec::default()
    };
    service(view, names::headless(view.name), spec)
}

/// Voters that are ready and are not about to be removed.
fn client(view: &View<'_>) -> Service {
    let wanted = view.spec.services.clone().unwrap_or_default();
    let wanted = wanted.client.unwrap_or_default();
    let kind = match wanted.kind.unwrap_or_default() {
        ServiceKind::ClusterIP => "ClusterIP",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::LoadBalancer => "LoadBalancer",
    };
    let mut select = selecting(view, Some(Pool::Voter));
    select.insert(names::SERVING_LABEL.to_owned(), "true".to_owned());
    let mut http = port("http", wanted.port.unwrap_or(names::HTTP_PORT));
    http.target_port = Some(IntOrString::String("http".to_owned()));
    let spec = ServiceSpec {
        type_: Some(kind.to_owned()),
        selector: Some(select),
        ports: Some(vec![http]),
        ..ServiceSpec::default()
    };
    let mut service = service(view, names::client(view.name), spec);
    if !wanted.annotations.is_empty() {
        service.metadata.annotations = Some(wanted.annotations);
    }
    service
}

fn leader(view: &View<'_>) -> Service {
    let mut select = selecting(view, Some(Pool::Voter));
    select.insert(names::ROLE_LABEL.to_owned(), "leader".to_owned());
    let spec = ServiceSpec {
        selector: Some(select),
        ports: Some(vec![port("http", names::HTTP_PORT)]),
        ..ServiceSpec::default()
    };
    service(view, names::leader(view.name), spec)
}

fn read(view: &View<'_>) -> Service {
    let spec = ServiceSpec {
        selector: Some(selecting(view, Some(Pool::Read))),
        ports: Some(vec![port("http", names::HTTP_PORT)]),
        ..ServiceSpec::default()
    };
    service(view, names::read(view.name), spec)
}
