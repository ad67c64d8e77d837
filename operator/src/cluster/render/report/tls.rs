//! TLS in the status: what was decided, and the condition that says whether the certificates are valid.
use operator_api::{RqliteClusterStatus, status::CERTIFICATES_VALID};

use super::condition::{NewCondition, condition_of};
use crate::cluster::{
    deciders::certificates::{self, CertificatePlan},
    facts::{
        tls::{self, Side},
        view::View,
    },
};

/// At most this many authorities are listed; more are never trusted at a time.
const LISTED: usize = 16;

/// Records modes, stages and certificates. What a decision has just recorded is kept.
pub(super) fn record(view: &View<'_>, next: &mut RqliteClusterStatus) {
    if next.cluster_id.is_none() {
        // The defaults of a new cluster are recorded together with its id.
        return;
    }
    let decided = next
        .tls
        .take()
        .filter(|tls| view.status.tls.as_ref() != Some(tls));
    let mut all = decided.unwrap_or_else(|| tls::resolved(view));
    let plan = certificates::plan(view);
    all.authority = plan.present.as_ref().map(|one| one.summary());
    for side in [Side::Nodes, Side::Clients] {
        let one = side.of_mut(&mut all);
        let planned = plan.side(side);
        one.certificate = planned.and_then(|p| p.leaf.as_ref().map(|leaf| leaf.summary()));
        let trusted = planned.map(|p| p.trusted.iter().map(|ca| ca.sha256.clone()));
        one.trusted = trusted.into_iter().flatten().take(LISTED).collect();
        one.source = planned.and_then(|_| certificates::source_name(view, side));
    }
    all.replacing.retain(|sha256| is_present(&plan, sha256));
    next.tls = Some(all);
}

/// Is a certificate that is to be replaced still there?
fn is_present(plan: &CertificatePlan, sha256: &str) -> bool {
    let leaves = plan.nodes.iter().chain(&plan.clients);
    let mut all = leaves
        .filter_map(|side| side.leaf.as_ref())
        .chain(&plan.present);
    all.any(|one| one.sha256 == sha256)
}

/// Whether the certificates are valid; None without TLS.
pub(super) fn condition(view: &View<'_>) -> Option<NewCondition> {
    let plan = certificates::plan(view);
    let sides: Vec<_> = plan.nodes.iter().chain(&plan.clients).collect();
    if sides.is_empty() {
        return None;
    }
    let is_not = |reason, text: String| condition_of(CERTIFICATES_VALID, false, reason, text);
    if let Some(first) = plan.problems().next() {
        let texts: Vec<_> = plan.problems().map(|one| one.text.as_str()).collect();
        return Some(is_not(first.reason, texts.join("; ")));
    }
    if sides.iter().any(|side| side.leaf.is_none()) {
        return Some(is_not("Issuing", "certificates are being made".to_owned()));
    }
    let waits: Vec<_> = sides
        .iter()
        .filter_map(|side| side.waits.as_deref())
        .collect();
    if !waits.is_empty() {
        let text = format!(
            "a certificate is being exchanged: waits {}",
            waits.join("; ")
        );
        return Some(condition_of(CERTIFICATES_VALID, true, "Rotating", text));
    }
    let ends = sides
        .iter()
        .filter_map(|side| side.leaf.as_ref())
        .map(|leaf| leaf.not_after)
        .min();
    let first = sides
        .iter()
        .filter_map(|side| side.leaf.as_ref())
        .find(|l| Some(l.not_after) == ends);
    let until = first
        .map(|leaf| leaf.summary().not_after.0.to_string())
        .unwrap_or_default();
    let text = format!("certificates are valid until {until} and are renewed before");
    Some(condition_of(CERTIFICATES_VALID, true, "Valid", text))
}
