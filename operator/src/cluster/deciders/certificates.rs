//! Plans the contents of the Secrets with certificates: the cluster's own authority, and for nodes and
//! clients one certificate each, with the authorities that are trusted beside it.
//!
//! A certificate of another authority is introduced in three steps, each once all nodes report the one
//! before: both authorities are trusted, the certificate is replaced, the former authority is no longer
//! trusted. Nodes read changed files by themselves, so no step restarts one. The source of a certificate (own
//! authority, cert-manager, a given Secret) makes no difference: pods always mount the same Secrets.
use operator_api::{
    cluster::IssuerRef,
    names,
    status::{TlsStage, TlsStatus},
};

use crate::cluster::facts::{
    certificates::{
        AUTHORITIES, AUTHORITY_KEY, CERTIFICATE, CROSS, Certificate, Fault, KEY, Pair, check,
        read_all, read_authority, read_pair, signer,
    },
    secrets::{Contents, ObservedSecret, SecretBytes},
    tls::{self, Side, resolved},
    view::View,
};

pub mod backup;

/// The planned contents of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// These contents.
    Given(Contents),
    /// A new authority. `cross`: the present one cross-signs it, so that those who trust the present one
    /// accept the new one's certificates.
    Authority {
        /// Is there a present one that can sign?
        cross: bool,
    },
    /// A new certificate of the cluster's own authority.
    Leaf {
        /// Further authorities to trust.
        trusted: Vec<Certificate>,
    },
}

/// A problem with certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub text: String,
}

/// The plan for one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidePlan {
    /// The planned contents of its Secret; None if there is nothing to put into it yet.
    pub next: Option<Next>,
    /// What is wrong.
    pub problem: Option<Problem>,
    /// What a rotation waits for.
    pub waits: Option<String>,
    /// The certificate that its Secret holds.
    pub leaf: Option<Certificate>,
    /// Authorities that its Secret will have, as far as they are known.
    pub trusted: Vec<Certificate>,
}

/// The plan for all certificates of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificatePlan {
    /// The own authority; None if none is needed.
    pub authority: Option<Next>,
    /// The present own authority.
    pub present: Option<Certificate>,
    /// For nodes; None: without TLS.
    pub nodes: Option<SidePlan>,
    /// For clients; None: without TLS.
    pub clients: Option<SidePlan>,
}

impl CertificatePlan {
    /// One side's part.
    pub fn side(&self, side: Side) -> Option<&SidePlan> {
        match side {
            Side::Nodes => self.nodes.as_ref(),
            Side::Clients => self.clients.as_ref(),
        }
    }

    /// Everything that is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let sides = self.nodes.iter().chain(&self.clients);
        sides.filter_map(|side| side.problem.as_ref())
    }
}

/// A certificate to request from cert-manager.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Request {
    /// Name of the Certificate.
    pub name: String,
    /// Name of the Secret that cert-manager creates.
    pub secret: String,
    /// Who issues it.
    pub issuer: IssuerRef,
    /// Common name.
    pub common_name: String,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
}

/// The certificates to request from cert-manager.
pub fn requests(view: &View<'_>) -> Vec<Request> {
    let tls = resolved(view);
    let sides = [Side::Nodes, Side::Clients].into_iter();
    let sides = sides.filter(|side| tls::is_on(view, &tls, *side));
    let all = sides.filter_map(|side| {
        let issuer = tls::source(view, side)?.issuer_ref.clone()?;
        let name = secret_name(view, side);
        Some(Request {
            secret: names::issued_secret(&name),
            name,
            issuer,
            common_name: tls::common_name(view),
            names: tls::certificate_names(view, side),
        })
    });
    all.collect()
}

/// Names of the Certificates that were requested and are no longer needed.
pub fn unwanted_requests(view: &View<'_>) -> Vec<String> {
    let Some(known) = &view.status.tls else {
        return Vec::new();
    };
    let wanted = requests(view);
    let sides = [Side::Nodes, Side::Clients].into_iter();
    let names = sides.filter_map(|side| {
        let name = secret_name(view, side);
        let asked = side.of(known).source.as_ref() == Some(&names::issued_secret(&name));
        asked.then_some(name)
    });
    names
        .filter(|name| wanted.iter().all(|one| one.name != *name))
        .collect()
}

/// Plans all certificates.
pub fn plan(view: &View<'_>) -> CertificatePlan {
    let tls = resolved(view);
    let on = |side| tls::is_on(view, &tls, side);
    if !on(Side::Nodes) && !on(Side::Clients) {
        return CertificatePlan::default();
    }
    let (next, present) = authority(view, &tls);
    let lasting = present
        .clone()
        .filter(|_| !matches!(next, Next::Authority { .. }));
    let of = |side| on(side).then(|| plan_side(view, &tls, side, lasting.as_ref()));
    CertificatePlan {
        nodes: of(Side::Nodes),
        clients: of(Side::Clients),
        authority: Some(next),
        present,
    }
}

/// Name of a side's Secret.
pub fn secret_name(view: &View<'_>, side: Side) -> String {
    match side {
        Side::Nodes => names::node_tls_secret(view.name),
        Side::Clients => names::http_tls_secret(view.name),
    }
}

fn own<'a>(view: &View<'a>, name: &str) -> Option<&'a ObservedSecret> {
    let found = view.seen.secrets.get(name);
    found.filter(|secret| secret.is_ours() && !secret.deleting)
}

fn authority(view: &View<'_>, tls: &TlsStatus) -> (Next, Option<Certificate>) {
    let secret = own(view, &names::authority_secret(view.name));
    let Some((secret, Ok(present))) = secret.map(|s| (s, read_authority(s, view.now()))) else {
        return (Next::Authority { cross: false }, None);
    };
    if present.is_due(view.now()) || tls.replacing.contains(&present.sha256) {
        return (Next::Authority { cross: true }, Some(present));
    }
    let keys = [AUTHORITIES, AUTHORITY_KEY, CROSS];
    let kept = keys.into_iter().filter_map(|key| {
        let value = secret
            .get(key)
            .filter(|v| key != CROSS || read_all(v.expose()).is_ok());
        Some((key.to_owned(), value?.clone()))
    });
    (Next::Given(kept.collect()), Some(present))
}

/// A certificate that a side may get next.
enum Offer {
    /// One to be issued by the cluster's own authority.
    Own,
    /// This one, with its intermediates and its key.
    Given(Pair, Contents),
}

fn plan_side(
    view: &View<'_>,
    tls: &TlsStatus,
    side: Side,
    authority: Option<&Certificate>,
) -> SidePlan {
    let secret = own(view, &secret_name(view, side));
    let there = secret.and_then(|secret| Some((secret, read_pair(secret).ok()?)));
    let there = there.filter(|(_, pair)| !is_unusable(view, side, pair));
    let mut plan = match offer(view, side) {
        Err(problem) => SidePlan {
            // The present contents stay in use.
            next: there.as_ref().map(|(s, pair)| {
                let trusted = known(tls, side, pair, &[]);
                Next::Given(contents(s, &trusted))
            }),
            trusted: there
                .as_ref()
                .map_or_else(Vec::new, |(_, pair)| known(tls, side, pair, &[])),
            problem: Some(problem),
            ..SidePlan::default()
        },
        Ok(Offer::Own) => own_certificate(view, tls, side, authority, there.as_ref()),
        Ok(Offer::Given(pair, data)) => {
            copied(view, tls, side, authority, (&pair, &data), there.as_ref())
        }
    };
    plan.leaf = there.map(|(_, pair)| pair.leaf);
    if plan.problem.is_none() {
        plan.problem = refused_by_nodes(view, side);
    }
    plan
}

/// Whether no node could use it: then there is nothing to protect.
fn is_unusable(view: &View<'_>, side: Side, pair: &Pair) -> bool {
    let verdict = check(
        pair,
        &pair.trusted,
        &tls::needed_names(view, side),
        is_client(view, side),
        view.now(),
    );
    // More replicas than the certificate has names for: it still works for the others, so it is not replaced.
    !matches!(verdict, Ok(()) | Err(Fault::Name(_)))
}

/// Is the certificate also used as a client's? Nodes present theirs to each other; if clients must present
/// one, the operator presents that of the HTTP port, which all nodes trust.
fn is_client(view: &View<'_>, side: Side) -> bool {
    side == Side::Nodes || tls::asks_clients(view)
}

/// The certificate that the spec asks for.
fn offer(view: &View<'_>, side: Side) -> Result<Offer, Problem> {
    let Some(source) = tls::source(view, side) else {
        return Ok(Offer::Own);
    };
    let name = source_name(view, side).unwrap_or_default();
    let issued = source.issuer_ref.is_some();
    let what = format!("{}.certificate: the Secret {name}", side.name());
    let Some(secret) = view.seen.secrets.get(&name) else {
        return Err(if issued {
            not_issued(view, side)
        } else {
            let text = format!(
                "{what} does not exist: create it with the keys {CERTIFICATE}, {KEY} and {AUTHORITIES}"
            );
            Problem {
                reason: "CertificateMissing",
                text,
            }
        });
    };
    let pair = read_pair(secret).map_err(|text| Problem {
        reason: "CertificateUnusable",
        text: format!("{what} cannot be used: {text}"),
    })?;
    let names = tls::needed_names(view, side);
    check(
        &pair,
        &pair.trusted,
        &names,
        is_client(view, side),
        view.now(),
    )
    .map_err(|fault| {
        let mut text = format!("{what} cannot be used: {fault}");
        if let Fault::Name(_) = fault {
            let wildcard = tls::certificate_names(view, side).into_iter().next();
            text = format!("{text}, or {} for all pods", wildcard.unwrap_or_default());
        }
        let reason = match fault {
            Fault::Expired => "CertificateExpired",
            Fault::Name(_) => "CertificateNamesMissing",
            _ => "CertificateUnusable",
        };
        Problem { reason, text }
    })?;
    let keys = [CERTIFICATE, KEY];
    let data = keys
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), secret.get(key)?.clone())));
    Ok(Offer::Given(pair, data.collect()))
}

/// Name of the Secret that a certificate is copied from.
pub fn source_name(view: &View<'_>, side: Side) -> Option<String> {
    let source = tls::source(view, side)?;
    let given = source.secret_name.clone();
    given.or_else(|| Some(names::issued_secret(&secret_name(view, side))))
}

fn not_issued(view: &View<'_>, side: Side) -> Problem {
    let about = view.seen.issued.get(&secret_name(view, side));
    let text = about.map_or_else(
        || "cert-manager has not been asked yet".to_owned(),
        Clone::clone,
    );
    Problem {
        reason: "CertificateNotIssued",
        text: format!("{}.certificate: {text}", side.name()),
    }
}

/// The trusted authorities of a Secret that are recorded, and these. An authority that a person has added by
/// hand is dropped.
fn known(tls: &TlsStatus, side: Side, pair: &Pair, and: &[&Certificate]) -> Vec<Certificate> {
    let recorded = &side.of(tls).trusted;
    let mut all: Vec<Certificate> = pair
        .trusted
        .iter()
        .filter(|one| recorded.is_empty() || recorded.contains(&one.sha256))
        .cloned()
        .collect();
    for one in and {
        if !all.iter().any(|known| known.sha256 == one.sha256) {
            all.push((*one).clone());
        }
    }
    all
}

/// Authorities that nodes may still trust, if this side's Secret is gone: the other side's.
fn remembered(view: &View<'_>, tls: &TlsStatus, side: Side) -> Vec<Certificate> {
    let other = match side {
        Side::Nodes => Side::Clients,
        Side::Clients => Side::Nodes,
    };
    let pair = own(view, &secret_name(view, other)).and_then(|s| read_pair(s).ok());
    let recorded = &side.of(tls).trusted;
    let all = pair
        .map(|pair| pair.trusted)
        .unwrap_or_default()
        .into_iter();
    all.filter(|one| recorded.contains(&one.sha256)).collect()
}

fn contents(secret: &ObservedSecret, trusted: &[Certificate]) -> Contents {
    let keys = [CERTIFICATE, KEY].into_iter();
    let mut all: Contents = keys
        .filter_map(|key| Some((key.to_owned(), secret.get(key)?.clone())))
        .collect();
    all.insert(AUTHORITIES.to_owned(), bundle(trusted));
    all
}

fn bundle(trusted: &[Certificate]) -> SecretBytes {
    let pem: String = trusted.iter().map(Certificate::pem).collect();
    SecretBytes::new(pem)
}

/// The certificate is of the cluster's own authority; None for one that this plan makes.
fn own_certificate(
    view: &View<'_>,
    tls: &TlsStatus,
    side: Side,
    authority: Option<&Certificate>,
    there: Option<&(&ObservedSecret, Pair)>,
) -> SidePlan {
    let Some((secret, pair)) = there else {
        let mut trusted = remembered(view, tls, side);
        trusted.extend(authority.cloned());
        return SidePlan {
            next: Some(Next::Leaf {
                trusted: trusted.clone(),
            }),
            trusted,
            ..SidePlan::default()
        };
    };
    let kept = |trusted: Vec<Certificate>, waits: Option<String>| SidePlan {
        next: Some(Next::Given(contents(secret, &trusted))),
        trusted,
        waits,
        ..SidePlan::default()
    };
    let Some(authority) = authority else {
        // The next step is decided once the new authority exists.
        return kept(known(tls, side, pair, &[]), None);
    };
    let trusted = known(tls, side, pair, &[authority]);
    let is_signed = signer(pair, std::slice::from_ref(authority), view.now()).is_some();
    let wanted = tls::certificate_names(view, side);
    let fits = is_signed
        && pair.leaf.names == wanted
        && pair.leaf.common_name.as_deref() == Some(&tls::common_name(view))
        && !pair.leaf.is_due(view.now())
        && !tls.replacing.contains(&pair.leaf.sha256);
    let is_trusted = pair
        .trusted
        .iter()
        .any(|one| one.sha256 == authority.sha256);
    if !fits && is_trusted {
        let waits = if is_signed {
            None
        } else {
            untrusting(view, side, &[authority])
        };
        let waits = waits.or_else(|| checking(view, side, tls::common_name(view)));
        if waits.is_none() || pair.leaf.is_pressing(view.now()) {
            return SidePlan {
                next: Some(Next::Leaf {
                    trusted: trusted.clone(),
                }),
                trusted,
                ..SidePlan::default()
            };
        }
        return kept(trusted, waits);
    }
    retire(view, side, pair, trusted, &[authority], fits, kept)
}

/// The plan for a side whose certificate is given or issued by cert-manager: it is copied.
fn copied(
    view: &View<'_>,
    tls: &TlsStatus,
    side: Side,
    authority: Option<&Certificate>,
    (offered, data): (&Pair, &Contents),
    there: Option<&(&ObservedSecret, Pair)>,
) -> SidePlan {
    // The operator's own certificate is of the cluster's authority.
    let ours = authority.filter(|_| side == Side::Clients && tls::asks_clients(view));
    let wanted: Vec<&Certificate> = offered.trusted.iter().chain(ours).collect();
    let copy = |trusted: Vec<Certificate>| {
        let mut data = data.clone();
        data.insert(AUTHORITIES.to_owned(), bundle(&trusted));
        SidePlan {
            next: Some(Next::Given(data)),
            trusted,
            problem: expiring(view, side, &offered.leaf),
            ..SidePlan::default()
        }
    };
    let Some((secret, pair)) = there else {
        let mut trusted = remembered(view, tls, side);
        trusted.retain(|one| !wanted.iter().any(|w| w.sha256 == one.sha256));
        trusted.extend(wanted.into_iter().cloned());
        return copy(trusted);
    };
    let kept = |trusted: Vec<Certificate>, waits: Option<String>| SidePlan {
        next: Some(Next::Given(contents(secret, &trusted))),
        trusted,
        waits,
        problem: expiring(view, side, &offered.leaf),
        ..SidePlan::default()
    };
    let trusted = known(tls, side, pair, &wanted);
    let is_trusted = |one: &&&Certificate| pair.trusted.iter().any(|t| t.sha256 == one.sha256);
    let all_trusted = wanted.iter().all(|one| is_trusted(&one));
    let same = data
        .iter()
        .all(|(key, value)| secret.get(key) == Some(value));
    if !same && all_trusted {
        let waits = untrusting(view, side, &wanted);
        let name = offered.leaf.common_name.clone().unwrap_or_default();
        let waits = waits.or_else(|| checking(view, side, name));
        if waits.is_none() || pair.leaf.is_pressing(view.now()) {
            return copy(trusted);
        }
        return kept(trusted, waits);
    }
    retire(view, side, pair, trusted, &wanted, same, kept)
}

/// The last step: stops trusting authorities of which no certificate is in use.
fn retire(
    view: &View<'_>,
    side: Side,
    pair: &Pair,
    trusted: Vec<Certificate>,
    wanted: &[&Certificate],
    is_last: bool,
    kept: impl Fn(Vec<Certificate>, Option<String>) -> SidePlan,
) -> SidePlan {
    let is_wanted = |one: &Certificate| wanted.iter().any(|w| w.sha256 == one.sha256);
    if !is_last || trusted.iter().all(is_wanted) {
        return kept(trusted, None);
    }
    match not_using(view, side, &pair.leaf) {
        Some(waits) => kept(trusted, Some(waits)),
        None => kept(trusted.into_iter().filter(is_wanted).collect(), None),
    }
}

/// Names of pods whose nodes use TLS on this side and do not report the required files. A pod that has no
/// machine or cannot run reads the files when it starts.
fn lagging<'a>(
    view: &View<'a>,
    side: Side,
    reports: impl Fn(&node_contract::status::TlsStatus) -> bool,
) -> Vec<&'a str> {
    let pods = view.seen.pods.iter();
    let pods = pods.filter(|pod| pod.machine.is_some() && pod.stuck.is_none());
    let pods = pods.filter(|pod| side.of_pod(pod.tls) != TlsStage::Plain);
    let late = pods.filter(|pod| {
        let node = view.node(&pod.name);
        let security = node.and_then(|node| node.security.as_ref());
        let tls = security.and_then(|security| match side {
            Side::Nodes => security.node_tls.as_ref(),
            Side::Clients => security.http_tls.as_ref(),
        });
        !tls.is_some_and(&reports)
    });
    late.map(|pod| pod.name.as_str()).collect()
}

fn untrusting(view: &View<'_>, side: Side, authorities: &[&Certificate]) -> Option<String> {
    let late = lagging(view, side, |tls| {
        let mut all = authorities.iter();
        all.all(|one| tls.trusted_sha256.contains(&one.sha256))
    });
    (!late.is_empty()).then(|| format!("until {} trust the new authority", late.join(", ")))
}

fn not_using(view: &View<'_>, side: Side, leaf: &Certificate) -> Option<String> {
    let late = lagging(view, side, |tls| tls.leaf_sha256 == leaf.sha256);
    (!late.is_empty()).then(|| format!("until {} use the new certificate", late.join(", ")))
}

/// Pods that admit only the common name of the cluster's certificate, if the next one has another.
fn checking(view: &View<'_>, side: Side, next: String) -> Option<String> {
    if side == Side::Clients || next == tls::common_name(view) {
        return None;
    }
    let pods = view.seen.pods.iter().filter(|pod| pod.tls.checks_name);
    let names: Vec<_> = pods.map(|pod| pod.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "until {} have restarted and admit a certificate of another common name",
            names.join(", ")
        )
    })
}

fn refused_by_nodes(view: &View<'_>, side: Side) -> Option<Problem> {
    view.seen.pods.iter().find_map(|pod| {
        let security = view.node(&pod.name)?.security.as_ref()?;
        let tls = match side {
            Side::Nodes => security.node_tls.as_ref(),
            Side::Clients => security.http_tls.as_ref(),
        };
        let error = tls?.last_error.as_ref()?;
        Some(Problem {
            reason: "CertificateRefused",
            text: format!(
                "{} keeps its former certificate ({}): {error}",
                pod.name,
                side.name()
            ),
        })
    })
}

/// Warns of a given certificate that expires soon and was not renewed.
fn expiring(view: &View<'_>, side: Side, leaf: &Certificate) -> Option<Problem> {
    leaf.is_pressing(view.now()).then(|| Problem {
        reason: "CertificateExpiring",
        text: format!(
            "{}.certificate: the certificate in the Secret {} expires at {}: renew it",
            side.name(),
            source_name(view, side).unwrap_or_default(),
            leaf.summary().not_after.0
        ),
    })
}

#[cfg(test)]
mod tests;
