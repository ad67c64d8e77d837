//! The TLS that a cluster should have: modes, stages, names, and the stages of its pods.
use crate::cluster::facts::{
    addresses::pod_domain,
    stages::{PodTls, goal},
    view::View,
};
use operator_api::{
    cluster::{CertificateSource, ClientTlsMode, NodeTlsMode},
    names,
    status::{Pool, TlsMode, TlsSide, TlsStage, TlsStatus},
};

/// One of the two kinds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Between nodes.
    Nodes,
    /// Of clients.
    Clients,
}

impl Side {
    /// Its name in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "tls.nodes",
            Self::Clients => "tls.clients",
        }
    }

    /// Its part of a status.
    pub fn of(self, tls: &TlsStatus) -> &TlsSide {
        match self {
            Self::Nodes => &tls.nodes,
            Self::Clients => &tls.clients,
        }
    }

    /// Its part of a status, to change it.
    pub fn of_mut(self, tls: &mut TlsStatus) -> &mut TlsSide {
        match self {
            Self::Nodes => &mut tls.nodes,
            Self::Clients => &mut tls.clients,
        }
    }

    /// Its part of a pod.
    pub fn of_pod(self, tls: PodTls) -> TlsStage {
        match self {
            Self::Nodes => tls.nodes,
            Self::Clients => tls.clients,
        }
    }
}

/// Where the spec says that a side's certificate is from; None: the cluster's own authority.
pub fn source<'a>(view: &View<'a>, side: Side) -> Option<&'a CertificateSource> {
    let tls = view.spec.tls.as_ref()?;
    match side {
        Side::Nodes => tls.nodes.as_ref()?.certificate.as_ref(),
        Side::Clients => tls.clients.as_ref()?.certificate.as_ref(),
    }
}

/// Must clients present a certificate?
pub fn asks_clients(view: &View<'_>) -> bool {
    let tls = view.spec.tls.as_ref();
    let clients = tls.and_then(|tls| tls.clients.as_ref());
    clients.is_some_and(|clients| clients.require_client_certificate)
}

/// The modes that the spec names. A certificate without a mode asks for TLS.
fn given(view: &View<'_>) -> (Option<TlsMode>, Option<TlsMode>) {
    let tls = view.spec.tls.clone().unwrap_or_default();
    let nodes = tls.nodes.unwrap_or_default();
    let clients = tls.clients.unwrap_or_default();
    let by_nodes = nodes.mode.map(|mode| match mode {
        NodeTlsMode::Required => TlsMode::Required,
        NodeTlsMode::Disabled => TlsMode::Disabled,
    });
    let by_clients = clients.mode.map(|mode| match mode {
        ClientTlsMode::Optional => TlsMode::Optional,
        ClientTlsMode::Required => TlsMode::Required,
        ClientTlsMode::Disabled => TlsMode::Disabled,
    });
    (
        by_nodes.or(nodes.certificate.map(|_| TlsMode::Required)),
        by_clients.or(clients.certificate.map(|_| TlsMode::Optional)),
    )
}

/// The recorded TLS, with the modes to reach. What neither the spec nor the record says is decided here,
/// once: a new cluster gets the secure defaults, an existing one stays as it is.
pub fn resolved(view: &View<'_>) -> TlsStatus {
    let (nodes, clients) = given(view);
    if let Some(mut known) = view.status.tls.clone() {
        known.nodes.mode = nodes.unwrap_or(known.nodes.mode);
        known.clients.mode = clients.unwrap_or(known.clients.mode);
        return known;
    }
    let is_new = view.status.cluster_id.is_none();
    let mut tls = TlsStatus::default();
    // If the status was lost while the cluster kept running, its pods show the stage.
    let running = view.set(Pool::Voter).map(|set| set.tls);
    if let Some(running) = running.filter(|_| is_new) {
        tls.nodes.stage = running.nodes;
        tls.checks_common_name = running.checks_name;
        tls.clients.stage = running.clients;
        let mode = |stage: TlsStage, other: TlsMode| match stage {
            TlsStage::Plain => TlsMode::Disabled,
            TlsStage::Require => TlsMode::Required,
            TlsStage::Accept | TlsStage::Use | TlsStage::Other(_) => other,
        };
        tls.nodes.mode = nodes.unwrap_or(mode(running.nodes, TlsMode::Required));
        tls.clients.mode = clients.unwrap_or(mode(running.clients, TlsMode::Optional));
        return tls;
    }
    let default = |secure| if is_new { secure } else { TlsMode::Disabled };
    tls.nodes.mode = nodes.unwrap_or(default(TlsMode::Required));
    tls.clients.mode = clients.unwrap_or(default(TlsMode::Optional));
    if is_new {
        // A new cluster starts at the goal: all its pods begin with the same stage.
        tls.nodes.stage = goal(tls.nodes.mode);
        tls.clients.stage = goal(tls.clients.mode);
        let given = source(view, Side::Nodes).is_some_and(|source| source.secret_name.is_some());
        tls.checks_common_name = tls.nodes.stage == TlsStage::Require && !given;
    }
    tls
}

/// Is TLS of this side in use, or about to be?
pub fn is_on(view: &View<'_>, tls: &TlsStatus, side: Side) -> bool {
    let one = side.of(tls);
    let mut pods = view.seen.pods.iter();
    one.mode != TlsMode::Disabled
        || one.stage != TlsStage::Plain
        || pods.any(|pod| side.of_pod(pod.tls) != TlsStage::Plain)
}

/// Identifies TLS in the pod template; None without TLS.
pub fn template_key(view: &View<'_>) -> Option<String> {
    let tls = resolved(view);
    let plain = TlsStage::Plain;
    if (tls.nodes.stage, tls.clients.stage) == (plain, plain) {
        return None;
    }
    let verify = asks_clients(view) && tls.clients.stage == TlsStage::Require;
    Some(format!(
        "nodes={},names={},clients={},verify={verify}",
        tls.nodes.stage.as_str(),
        tls.checks_common_name,
        tls.clients.stage.as_str()
    ))
}

fn namespace<'a>(view: &View<'a>) -> &'a str {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    namespace.unwrap_or("default")
}

/// Common name of the nodes' certificate: only this cluster's has it.
pub fn common_name(view: &View<'_>) -> String {
    let recorded = view.status.cluster_id.as_deref();
    // As a cluster gets its id: see `bootstrap::identity`.
    let found = view
        .seen
        .state
        .as_ref()
        .map(|state| state.cluster_id.as_str());
    let adopted = view.annotation(names::ADOPT_ANNOTATION);
    let adopted = adopted.and_then(|text| text.split('/').next());
    let id = recorded
        .or(found)
        .or(adopted)
        .unwrap_or(&view.seen.fresh_id);
    format!("rqlite-{id}")
}

/// The names that a certificate of this side is made for.
pub fn certificate_names(view: &View<'_>, side: Side) -> Vec<String> {
    let (domain, namespace) = (view.cluster_domain(), namespace(view));
    let full = pod_domain(view);
    let headless = names::headless(view.name);
    let mut all = vec![
        format!("*.{full}"),
        full,
        format!("*.{headless}.{namespace}.svc"),
        format!("*.{headless}.{namespace}"),
    ];
    if side == Side::Nodes {
        return all;
    }
    let services = [
        names::client(view.name),
        names::leader(view.name),
        names::read(view.name),
    ];
    for service in services {
        all.extend([
            format!("{service}.{namespace}.svc.{domain}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}"),
            service,
        ]);
    }
    all.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let tls = view.spec.tls.clone().unwrap_or_default();
    let extra = tls.clients.unwrap_or_default().extra_names;
    for name in extra {
        // The same address has several notations.
        let name = name
            .parse::<std::net::IpAddr>()
            .map_or(name, |ip| ip.to_string());
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The names that a given certificate must have: those by which nodes, the operator and clients reach the
/// cluster.
pub fn needed_names(view: &View<'_>, side: Side) -> Vec<String> {
    let domain = pod_domain(view);
    let voters = view.spec.replicas.max(1);
    let readers = view.wanted_readers().unwrap_or(1);
    let mut all: Vec<String> = view.seen.pods.iter().map(|p| p.name.clone()).collect();
    let named = |pool: Pool, count: i32| {
        let set = view.set_name(pool);
        (0..count).map(move |ordinal| names::pod(&set, ordinal))
    };
    all.extend(named(Pool::Voter, voters));
    all.extend(named(Pool::Read, readers));
    all.sort();
    all.dedup();
    let mut all: Vec<String> = all.iter().map(|pod| format!("{pod}.{domain}")).collect();
    if side == Side::Clients {
        let client = names::client(view.name);
        all.push(format!("{client}.{}.svc", namespace(view)));
    }
    all
}

#[cfg(test)]
mod tests;
