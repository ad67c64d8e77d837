//! Moves a running cluster to TLS and back, by rolling restarts: each stage is recorded before the first pod
//! changes, and the next one only when all pods have the one before. Nodes of neighbouring stages can
//! communicate, so none is ever cut off.
use operator_api::{
    names,
    status::{TlsMode, TlsStage, TlsStatus},
};

use crate::cluster::{
    action::Decision,
    deciders::certificates::{self, CertificatePlan, Problem},
    facts::{
        forming,
        stages::{self, can_speak, goal},
        tls::{self, Side, resolved},
        view::View,
    },
};

/// Why the certificate of a new cluster is not available yet, if it is given or issued by cert-manager.
pub fn awaited(view: &View<'_>) -> Option<Problem> {
    if view.is_formed() {
        return None;
    }
    let plan = certificates::plan(view);
    let mut sides = plan.nodes.into_iter().chain(plan.clients);
    sides.find(|side| side.next.is_none())?.problem
}

/// Waits until a new cluster's certificates exist, before it gets its first pod.
pub fn await_first(view: &View<'_>) -> Decision {
    let started = view.seen.voters.is_some() || view.status.cluster_id.is_none();
    match awaited(view).filter(|_| !started) {
        Some(problem) => Decision::Blocked(problem.reason, problem.text),
        None => Decision::Continue,
    }
}

/// Records the next stage, or a rotation of certificates that a person requested.
pub fn decide(view: &View<'_>) -> Decision {
    let tls = resolved(view);
    match rotation(view, &tls) {
        Decision::Continue => {}
        begun => return begun,
    }
    let moves = |side: Side| side.of(&tls).stage != goal(side.of(&tls).mode);
    let given = tls::source(view, Side::Nodes).is_some_and(|source| source.secret_name.is_some());
    let names_change = tls.nodes.stage != TlsStage::Plain && tls.checks_common_name == given;
    if !moves(Side::Nodes) && !moves(Side::Clients) && !names_change {
        return Decision::Continue;
    }
    let plan = certificates::plan(view);
    for side in [Side::Nodes, Side::Clients] {
        match advance(view, &tls, &plan, side) {
            Decision::Continue => {}
            decision => return decision,
        }
    }
    check_names(view, &tls, &plan)
}

/// Records the rotation that the annotation requests, once for each value.
fn rotation(view: &View<'_>, tls: &TlsStatus) -> Decision {
    let request = view.annotation(names::ROTATE_CERTIFICATES_ANNOTATION);
    if request == tls.rotation_request.as_deref() {
        return Decision::Continue;
    }
    let mut next = view.status.clone();
    let plan = certificates::plan(view);
    let mut known = tls.clone();
    known.rotation_request = request.map(str::to_owned);
    let leaves = plan.nodes.iter().chain(&plan.clients);
    let mut all: Vec<String> = leaves
        .filter_map(|s| Some(s.leaf.as_ref()?.sha256.clone()))
        .collect();
    let whole = request.is_some_and(|value| value.starts_with("authority"));
    let authority = plan.present.as_ref().filter(|_| whole);
    all.extend(authority.map(|one| one.sha256.clone()));
    if request.is_some() {
        known.replacing = all;
    }
    next.tls = Some(known);
    let text = match (request, whole) {
        (None, _) => "the request for new certificates was withdrawn",
        (Some(_), true) => "new certificates and a new authority were requested",
        (Some(_), false) => "new certificates were requested",
    };
    Decision::Record(Box::new(next), text.to_owned())
}

/// All stages that pods have, or that pods which are being created may have.
fn present_stages(view: &View<'_>, side: Side) -> Vec<TlsStage> {
    let sets = [&view.seen.voters, &view.seen.readers];
    let sets = sets.into_iter().flatten().map(|set| set.tls);
    let pods = view.seen.pods.iter().map(|pod| pod.tls);
    sets.chain(pods).map(|tls| side.of_pod(tls)).collect()
}

/// The stage to record next; None while the present one is not reached, or none is left.
pub fn next_stage(
    present: TlsStage,
    all: &[TlsStage],
    to: TlsStage,
    side: Side,
) -> Option<TlsStage> {
    let next = match side {
        Side::Nodes => stages::next(present, to),
        // Users move their clients between two edits of the spec, so there is no stage in between.
        Side::Clients => to,
    };
    let is_safe = |stage: &TlsStage| side == Side::Clients || can_speak(*stage, next);
    (next != present && all.iter().all(is_safe)).then_some(next)
}

fn advance(view: &View<'_>, tls: &TlsStatus, plan: &CertificatePlan, side: Side) -> Decision {
    let one = side.of(tls);
    let to = goal(one.mode);
    if one.stage == to || matches!(one.mode, TlsMode::Other(_)) {
        return Decision::Continue;
    }
    if let Some(text) = blocker(view, plan, side, one.stage) {
        return Decision::Wait(text);
    }
    let all = present_stages(view, side);
    // Before the cluster has formed, no nodes communicate, so no stage is needed in between.
    let unformed = !view.is_formed() && forming::doubt(view).is_none();
    let next = if unformed {
        Some(to)
    } else {
        next_stage(one.stage, &all, to, side)
    };
    let Some(next) = next else {
        return Decision::Continue;
    };
    if let Some(text) = not_there(view, side, one.stage).filter(|_| !unformed) {
        return Decision::Wait(text);
    }
    let mut status = view.status.clone();
    let mut moved = tls.clone();
    side.of_mut(&mut moved).stage = next;
    if side == Side::Nodes {
        match next {
            TlsStage::Plain => moved.checks_common_name = false,
            TlsStage::Require => moved.checks_common_name = names_are_checked(view, tls, plan),
            _ => {}
        }
    }
    status.tls = Some(moved);
    let text = format!(
        "{}: {} to {}, towards {}, by a rolling restart",
        side.name(),
        one.stage.as_str(),
        next.as_str(),
        to.as_str()
    );
    Decision::Record(Box::new(status), text)
}

/// What is missing before the first pod may be changed.
pub fn blocker(
    view: &View<'_>,
    plan: &CertificatePlan,
    side: Side,
    stage: TlsStage,
) -> Option<String> {
    if stage != TlsStage::Plain {
        return None;
    }
    let mut nodes = view.seen.pods.iter().filter_map(|pod| {
        let node = view.node(&pod.name)?;
        node.security.is_none().then_some((pod, node))
    });
    if let Some((pod, node)) = nodes.next() {
        let version = node.version.as_deref().unwrap_or("of an earlier version");
        return Some(format!(
            "{} asks for TLS, which {} ({version}) does not speak: update the image first (spec.image)",
            side.name(),
            pod.name
        ));
    }
    let one = plan.side(side)?;
    if let Some(problem) = &one.problem {
        return Some(problem.text.clone());
    }
    one.leaf
        .is_none()
        .then(|| format!("{}: waiting for the certificate", side.name()))
}

/// Which pods have not reached the present stage, or do not take part.
fn not_there(view: &View<'_>, side: Side, stage: TlsStage) -> Option<String> {
    if !view.is_formed() || view.is_hibernating() || view.operation().is_some() {
        return Some(format!(
            "{}: waits until nothing else is under way",
            side.name()
        ));
    }
    let late: Vec<&str> = view
        .seen
        .pods
        .iter()
        .filter(|pod| pod.deleting || !pod.ready || side.of_pod(pod.tls) != stage)
        .map(|pod| pod.name.as_str())
        .collect();
    let missing = view.participants().len() < view.config_voters() || view.leader.is_none();
    if late.is_empty() && !missing {
        return None;
    }
    let who = if late.is_empty() {
        "all voters".to_owned()
    } else {
        late.join(", ")
    };
    Some(format!(
        "{}: the stage {} is not complete: waits for {who}",
        side.name(),
        stage.as_str()
    ))
}

/// Should nodes admit only the common name of the cluster's own certificate?
fn names_are_checked(view: &View<'_>, tls: &TlsStatus, plan: &CertificatePlan) -> bool {
    let is_given = tls::source(view, Side::Nodes).is_some_and(|s| s.secret_name.is_some());
    let nodes = plan.nodes.as_ref();
    let leaf = nodes.and_then(|nodes| nodes.leaf.as_ref());
    let named = leaf.and_then(|leaf| leaf.common_name.as_deref());
    let is_ours = named == Some(&tls::common_name(view));
    let settled = nodes.is_some_and(|nodes| nodes.waits.is_none());
    !is_given && (tls.checks_common_name || (is_ours && settled))
}

/// Whether nodes admit only the common name of the cluster's own certificate: if an authority also signs for
/// others, any certificate of it would be admitted otherwise.
fn check_names(view: &View<'_>, tls: &TlsStatus, plan: &CertificatePlan) -> Decision {
    if tls.nodes.stage == TlsStage::Plain {
        return Decision::Continue;
    }
    let wanted = names_are_checked(view, tls, plan) && {
        // The last stage, or one on the way back from it.
        tls.nodes.stage == TlsStage::Require || tls.checks_common_name
    };
    if wanted == tls.checks_common_name || not_there(view, Side::Nodes, tls.nodes.stage).is_some() {
        return Decision::Continue;
    }
    let mut next = view.status.clone();
    next.tls = Some(TlsStatus {
        checks_common_name: wanted,
        ..tls.clone()
    });
    let text = if wanted {
        "nodes are to admit only the common name of the cluster's certificate"
    } else {
        "nodes are to admit any certificate of the given authority"
    };
    Decision::Record(Box::new(next), text.to_owned())
}

#[cfg(test)]
mod tests;
