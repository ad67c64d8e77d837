//! Who may use the HTTP API: as the spec says, and otherwise as was decided once for this cluster.
use std::collections::BTreeMap;

use operator_api::{
    RqliteClusterSpec,
    cluster::{ClientAccess, ServiceKind, ServiceSettings},
    status::{DefaultClients, NetworkDefaults},
};

use crate::cluster::facts::view::View;

/// Services that the spec opens to clients from outside the Kubernetes cluster: their field and type.
pub fn exposed(spec: &RqliteClusterSpec) -> Vec<(&'static str, ServiceKind)> {
    let services = spec.services.clone().unwrap_or_default();
    let kind = |settings: Option<ServiceSettings>| settings.filter(|s| s.enabled)?.kind;
    let all = [
        ("client", kind(services.client)),
        ("leader", kind(services.leader)),
        ("read", kind(services.read)),
    ];
    let outside = |kind: &ServiceKind| *kind != ServiceKind::ClusterIP;
    all.into_iter()
        .filter_map(|(field, kind)| Some((field, kind.filter(outside)?)))
        .collect()
}

/// The defaults of a cluster that gets its identity now. One that existed before (its status was lost) keeps
/// those of its NetworkPolicy.
pub fn of_new(view: &View<'_>, existed: bool) -> NetworkDefaults {
    let clients = match (existed, view.seen.default_clients) {
        (true, Some(found)) => found,
        (true, None) => DefaultClients::Everywhere,
        (false, _) => DefaultClients::Namespace,
    };
    NetworkDefaults {
        clients,
        exposed_before: false,
        newer: BTreeMap::new(),
    }
}

/// What to record. `is_exposed`: whether there is a Service to the outside that would be refused today. One
/// from before is tolerated while it exists.
pub fn recorded(
    view: &View<'_>,
    before: Option<NetworkDefaults>,
    is_exposed: bool,
) -> NetworkDefaults {
    let before = before.unwrap_or_else(|| defaults(view));
    NetworkDefaults {
        exposed_before: before.exposed_before && is_exposed,
        ..before
    }
}

/// The recorded defaults; for a cluster from before they were recorded, those that it has.
pub fn defaults(view: &View<'_>) -> NetworkDefaults {
    let recorded = view.status.network.clone();
    let exists = view.status.cluster_id.is_some();
    recorded.unwrap_or_else(|| NetworkDefaults {
        exposed_before: exists && !exposed(view.spec).is_empty(),
        ..of_new(view, exists)
    })
}

/// Who may use the HTTP API.
pub fn clients(view: &View<'_>) -> ClientAccess {
    let asked = view.spec.network_policy.clone().unwrap_or_default();
    let default = || match defaults(view).clients {
        _ if !asked.client_from.is_empty() => ClientAccess::Listed,
        _ if !exposed(view.spec).is_empty() => ClientAccess::Everywhere,
        DefaultClients::Everywhere => ClientAccess::Everywhere,
        // The value of a newer operator is unknown, so the strictest one applies.
        DefaultClients::Namespace | DefaultClients::Other(_) => ClientAccess::Namespace,
    };
    asked.clients.unwrap_or_else(default)
}

#[cfg(test)]
mod tests {
    use operator_api::cluster::Services;
    use serde_json::json;

    use super::*;
    use crate::cluster::fixture::Fixture;

    #[test]
    fn the_spec_comes_first_then_what_was_decided_once() {
        use ClientAccess::{Everywhere, Listed, Namespace};
        let peer = json!([{"podSelector": {}}]);
        let balancer = json!({"client": {"type": "LoadBalancer"}});
        let cases = [
            (json!(null), json!(null), [Namespace, Everywhere]),
            (json!({"clientFrom": peer}), json!(null), [Listed, Listed]),
            (
                json!({"clientFrom": peer}),
                balancer.clone(),
                [Listed, Listed],
            ),
            (
                json!({"clients": "Namespace", "clientFrom": peer}),
                json!(null),
                [Namespace; 2],
            ),
            (json!({"clients": "Listed"}), json!(null), [Listed; 2]),
            (
                json!({"clients": "Everywhere"}),
                json!(null),
                [Everywhere; 2],
            ),
            (json!(null), balancer.clone(), [Everywhere; 2]),
            (json!({"clients": "Namespace"}), balancer, [Namespace; 2]),
            (
                json!(null),
                json!({"client": {"type": "ClusterIP"}}),
                [Namespace, Everywhere],
            ),
            (
                json!(null),
                json!({"leader": {"type": "NodePort", "enabled": false}}),
                [Namespace, Everywhere],
            ),
        ];
        for (policy, services, expected) in cases {
            let found = [DefaultClients::Namespace, DefaultClients::Everywhere].map(|default| {
                let mut fixture = Fixture::running(3, 0);
                let cluster = &mut fixture.seen.cluster;
                cluster.spec.network_policy = serde_json::from_value(policy.clone()).unwrap();
                cluster.spec.services = serde_json::from_value(services.clone()).unwrap();
                let status = cluster.status.as_mut().unwrap();
                status.network.as_mut().unwrap().clients = default;
                clients(&View::of(&fixture.seen))
            });
            assert_eq!(found, expected, "{policy} {services}");
        }
    }

    #[test]
    fn a_new_cluster_is_closed_and_one_of_before_stays_as_it_is() {
        let mut fixture = Fixture::running(3, 0);
        let of = |fixture: &Fixture| fixture.status().network.unwrap().clients;
        assert_eq!(of(&fixture), DefaultClients::Namespace);
        // An earlier operator's.
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.network = None;
        fixture.reconcile();
        assert_eq!(of(&fixture), DefaultClients::Everywhere);
        // The status is lost.
        for (found, expected) in [
            (None, DefaultClients::Everywhere),
            (Some(DefaultClients::Namespace), DefaultClients::Namespace),
        ] {
            fixture.seen.cluster.status = None;
            fixture.seen.default_clients = found;
            fixture.reconcile();
            assert_eq!(of(&fixture), expected);
        }
    }

    #[test]
    fn which_services_are_exposed() {
        let services: Services = serde_json::from_value(json!({
            "client": {"type": "NodePort"}, "leader": {"type": "LoadBalancer", "enabled": false},
            "read": {"type": "LoadBalancer"},
        }))
        .unwrap();
        let spec = RqliteClusterSpec {
            services: Some(services),
            ..RqliteClusterSpec::default()
        };
        let expected = [
            ("client", ServiceKind::NodePort),
            ("read", ServiceKind::LoadBalancer),
        ];
        assert_eq!(exposed(&spec), expected);
        assert_eq!(exposed(&RqliteClusterSpec::default()), []);
    }
}
