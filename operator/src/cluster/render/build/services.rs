//! Services: the headless one that names every pod, one for clients, one for the leader, one for read
//! replicas.
use k8s_openapi::{
    api::core::v1::{ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig},
    apimachinery::pkg::util::intstr::IntOrString,
};
use operator_api::{
    cluster::{IpFamily, IpFamilyPolicy, ServiceKind, ServiceSettings, SessionAffinity},
    names,
    status::Pool,
};

use super::common::{has_readers, labels, metadata, selecting};
use crate::cluster::facts::view::View;

pub(super) fn all(view: &View<'_>) -> Vec<Service> {
    let wanted = view.spec.services.clone().unwrap_or_default();
    let mut all = vec![headless(view), client(view)];
    let leads = wanted.leader.unwrap_or_default();
    if leads.enabled {
        all.push(leader(view, leads));
    }
    let reads = wanted.read.unwrap_or_default();
    if has_readers(view) && reads.enabled {
        all.push(read(view, reads));
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

/// A port of the pods. Service meshes treat it by `appProtocol`: the names are part of SRV records and do not
/// follow their conventions.
fn port(name: &str, number: i32) -> ServicePort {
    let protocol = if name == "http" { "http" } else { "tcp" };
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}

fn families(all: &[IpFamily]) -> Option<Vec<String>> {
    let all = all.iter().map(|family| family.as_str().to_owned());
    let all: Vec<String> = all.collect();
    (!all.is_empty()).then_some(all)
}

fn policy(policy: Option<IpFamilyPolicy>) -> Option<String> {
    policy.map(|policy| policy.as_str().to_owned())
}

/// Both pools, ready or not: nodes must find each other before any of them is ready. The names of the ports
/// are part of SRV records.
fn headless(view: &View<'_>) -> Service {
    let wanted = view.spec.services.clone().unwrap_or_default();
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        selector: Some(selecting(view, None)),
        ports: Some(vec![
            port("http", names::HTTP_PORT),
            port("raft", names::RAFT_PORT),
        ]),
        ip_families: families(&wanted.ip_families),
        ip_family_policy: policy(wanted.ip_family_policy),
        ..ServiceSpec::default()
    };
    let mut service = service(view, names::headless(view.name), spec);
    let user = wanted.headless.unwrap_or_default();
    service.metadata.annotations = (!user.annotations.is_empty()).then_some(user.annotations);
    let mut all = user.labels;
    all.extend(labels(view));
    service.metadata.labels = Some(all);
    service
}

/// A Service for clients with the user's settings.
fn of_clients(
    view: &View<'_>,
    name: String,
    select: std::collections::BTreeMap<String, String>,
    user: ServiceSettings,
) -> Service {
    let common = view.spec.services.clone().unwrap_or_default();
    let mut http = port("http", user.port.unwrap_or(names::HTTP_PORT));
    http.node_port = user.node_port;
    let own_families = families(&user.ip_families);
    let sticky = user
        .session_affinity_seconds
        .filter(|_| user.session_affinity == Some(SessionAffinity::ClientIp));
    let ranges = user.load_balancer_source_ranges;
    let spec = ServiceSpec {
        type_: user.kind.map(|kind| kind.as_str().to_owned()),
        selector: Some(select),
        ports: Some(vec![http]),
        load_balancer_class: user.load_balancer_class,
        load_balancer_source_ranges: (!ranges.is_empty()).then_some(ranges),
        allocate_load_balancer_node_ports: user.allocate_load_balancer_node_ports,
        health_check_node_port: user.health_check_node_port,
        external_traffic_policy: user.external_traffic_policy.map(|p| p.as_str().to_owned()),
        internal_traffic_policy: user.internal_traffic_policy.map(|p| p.as_str().to_owned()),
        traffic_distribution: user.traffic_distribution,
        session_affinity: user.session_affinity.map(|a| a.as_str().to_owned()),
        session_affinity_config: sticky.map(|seconds| SessionAffinityConfig {
            client_ip: Some(ClientIPConfig {
                timeout_seconds: Some(seconds),
            }),
        }),
        ip_families: own_families.or_else(|| families(&common.ip_families)),
        ip_family_policy: policy(user.ip_family_policy.or(common.ip_family_policy)),
        ..ServiceSpec::default()
    };
    let mut service = service(view, name, spec);
    service.metadata.annotations = (!user.annotations.is_empty()).then_some(user.annotations);
    let mut all = user.labels;
    all.extend(labels(view));
    service.metadata.labels = Some(all);
    service
}

/// Voters that are ready and are not about to be removed.
fn client(view: &View<'_>) -> Service {
    let wanted = view.spec.services.clone().unwrap_or_default();
    let mut user = wanted.client.unwrap_or_default();
    user.kind.get_or_insert(ServiceKind::ClusterIP);
    let mut select = selecting(view, Some(Pool::Voter));
    select.insert(names::SERVING_LABEL.to_owned(), "true".to_owned());
    of_clients(view, names::client(view.name), select, user)
}

fn leader(view: &View<'_>, user: ServiceSettings) -> Service {
    let mut select = selecting(view, Some(Pool::Voter));
    select.insert(names::ROLE_LABEL.to_owned(), "leader".to_owned());
    of_clients(view, names::leader(view.name), select, user)
}

fn read(view: &View<'_>, user: ServiceSettings) -> Service {
    of_clients(
        view,
        names::read(view.name),
        selecting(view, Some(Pool::Read)),
        user,
    )
}
