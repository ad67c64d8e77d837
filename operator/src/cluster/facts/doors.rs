//! Who has access without credentials: by joining, by SQL, from outside the Kubernetes cluster.
use operator_api::{
    cluster::{Permission, ServiceKind},
    status::{AuthenticationGoal, AuthenticationStage, TlsMode, TlsStage},
};

use crate::cluster::facts::{authentication, network, tls, view::View};

/// What a cluster requires of those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// Nodes must present a certificate.
    pub node_certificates: bool,
    /// Users are required, also for joining.
    pub users: bool,
    /// Clients without a user may read or write data.
    pub anonymous: bool,
    /// Clients must present a certificate.
    pub client_certificates: bool,
    /// Clients can use TLS.
    pub client_tls: bool,
}

impl Doors {
    /// What the spec requires.
    fn wanted(view: &View<'_>) -> Self {
        let tls = tls::resolved(view);
        Self {
            node_certificates: tls.nodes.mode == TlsMode::Required,
            users: authentication::resolved(view).mode == AuthenticationGoal::Required,
            anonymous: reaches_data(view),
            client_certificates: tls::asks_clients(view) && tls.clients.mode == TlsMode::Required,
            client_tls: tls.clients.mode != TlsMode::Disabled,
        }
    }

    /// What the pods require now: a move to TLS counts only once its last stage is reached.
    fn present(view: &View<'_>) -> Self {
        let tls = tls::resolved(view);
        Self {
            node_certificates: tls.nodes.stage == TlsStage::Require,
            users: authentication::resolved(view).stage == AuthenticationStage::Closed,
            anonymous: reaches_data(view),
            client_certificates: tls::asks_clients(view) && tls.clients.stage == TlsStage::Require,
            client_tls: tls.clients.stage != TlsStage::Plain,
        }
    }

    fn may_be_exposed(self) -> bool {
        self.client_tls && !self.may_query()
    }

    /// May everyone who reaches the port use SQL?
    fn may_query(self) -> bool {
        (!self.users || self.anonymous) && !self.client_certificates
    }

    /// Which access is open without credentials: reason and text; None if there is none.
    fn open(self, exposed: &[(&str, ServiceKind)]) -> Option<(&'static str, String)> {
        let services: Vec<String> = exposed.iter().map(|one| describe(*one)).collect();
        let joins = !self.node_certificates && !self.users;
        let queries = self.may_query();
        if !services.is_empty() && !self.may_be_exposed() {
            let what = if queries {
                "opens the database to everybody outside the Kubernetes cluster who reaches it"
            } else {
                "carries passwords that everybody on the way can read"
            };
            return Some((
                "ExposedToTheOutside",
                format!("{} {what}", services.join(" and ")),
            ));
        }
        match (joins, queries) {
            (true, true) => Some((
                "AnyoneMayJoin",
                "whoever reaches port 4002 of a pod may join as a voter and take the whole database, and whoever reaches port 4001 may read and write it".to_owned(),
            )),
            (true, false) => Some((
                "AnyoneMayJoin",
                "whoever reaches port 4002 of a pod may join as a voter and take the whole database".to_owned(),
            )),
            (false, true) if self.users => Some((
                "AnyoneMayUseSql",
                "authentication.anonymousPermissions lets whoever reaches port 4001 of a pod read or write data without a password".to_owned(),
            )),
            (false, true) => Some((
                "AnyoneMayUseSql",
                "whoever reaches port 4001 of a pod may read, write and replace the whole database".to_owned(),
            )),
            (false, false) => None,
        }
    }

    /// How access is protected, as text.
    fn closed(self) -> String {
        let joining = match (self.node_certificates, self.users) {
            (true, _) => "nodes join by certificate",
            (false, _) => {
                "nodes join by password, and what they send each other can be read on the way"
            }
        };
        let clients = match (self.users, self.client_tls) {
            (true, true) => "clients must log in with a user and a password",
            (true, false) => {
                "clients must log in with a user and a password, which are sent in clear text"
            }
            (false, _) => "clients must present a certificate",
        };
        format!("{joining}; {clients}")
    }
}

/// Does the spec let clients without a user read or write data?
fn reaches_data(view: &View<'_>) -> bool {
    let given = authentication::anonymous(view);
    given.iter().any(|permission| {
        !matches!(
            permission,
            Permission::Ready | Permission::Status | Permission::Ui
        )
    })
}

fn describe((field, kind): (&str, ServiceKind)) -> String {
    format!("services.{field} of type {}", kind.as_str())
}

/// How to close what is open.
const REMEDY: &str = "set tls.nodes.mode and authentication.mode to Required without anonymousPermissions for data, and tls.clients.mode to Optional or Required; pods are replaced one at a time";

/// The condition: whether access without credentials is open, which, and what to do.
pub fn condition(view: &View<'_>) -> (bool, &'static str, String) {
    let exposed = network::exposed(view.spec);
    let (present, wanted) = (Doors::present(view), Doors::wanted(view));
    match (present.open(&exposed), wanted.open(&exposed)) {
        (None, None) => (false, "Closed", present.closed()),
        (Some((reason, text)), Some(_)) => (true, reason, format!("{text}: {REMEDY}")),
        (Some((reason, text)), None) => (
            true,
            reason,
            format!("{text}, until the move to what the spec asks for is done"),
        ),
        (None, Some((_, text))) => (
            false,
            "Opening",
            format!(
                "{}; the spec asks for another state: {text}",
                present.closed()
            ),
        ),
    }
}

/// Services that are reachable from outside although the spec requires no users or no TLS. Those of clusters
/// from before this was refused are only reported by the condition.
pub fn mistakes(view: &View<'_>) -> Vec<String> {
    let exposed = network::exposed(view.spec);
    let tolerated = network::defaults(view).exposed_before;
    if exposed.is_empty() || tolerated || Doors::wanted(view).may_be_exposed() {
        return Vec::new();
    }
    let services: Vec<String> = exposed.into_iter().map(describe).collect();
    vec![format!(
        "{} would open the database to clients outside the Kubernetes cluster, which needs users and TLS: set authentication.mode to Required and tls.clients.mode to Required (or Optional), or use type ClusterIP",
        services.join(" and ")
    )]
}

/// Is a Service reachable from outside that should not be?
pub fn is_exposed(view: &View<'_>) -> bool {
    !network::exposed(view.spec).is_empty() && !Doors::wanted(view).may_be_exposed()
}

/// Advice about passwords that may be sent in clear text through a load balancer.
pub fn hint(view: &View<'_>) -> Option<String> {
    let exposed = network::exposed(view.spec);
    let optional = tls::resolved(view).clients.mode == TlsMode::Optional;
    let first = exposed.first().copied().filter(|_| optional)?;
    Some(format!(
        "{} also takes passwords without TLS: set tls.clients.mode to Required once all clients use https",
        describe(first)
    ))
}

#[cfg(test)]
mod tests;
