//! Deletions that deletion protection blocks, and namespaces that are being deleted in spite of it.
use crate::cluster::{action::Decision, deciders::deletion, facts::view::View};

/// Reason: the object has a deletion timestamp, and protection keeps it.
pub const PROTECTED: &str = "DeletionProtected";
/// Reason: the namespace is being deleted.
pub const NAMESPACE_ENDS: &str = "NamespaceTerminating";
/// Finalizers by which Kubernetes deletes the dependents of a deleted object first, or disowns them.
const COLLECTOR_FINALIZERS: [&str; 2] = ["foregroundDeletion", "orphan"];

/// Why a requested deletion is not carried out, and what to do.
pub fn explain(view: &View<'_>) -> Option<(&'static str, String)> {
    let metadata = &view.seen.cluster.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let release = format!(
        "kubectl patch rqlitecluster {} -n {namespace} --type=merge -p '{{\"spec\":{{\"deletionProtection\":false}}}}'",
        view.name
    );
    if view.seen.namespace_ends && view.spec.deletion_protection {
        let text = format!(
            "namespace {namespace} is being deleted: Kubernetes deletes its pods and claims whatever this cluster's deletionProtection says, and nothing can be created in it. Only this object is kept, and with it the namespace. To let both go, run: {release}"
        );
        return Some((NAMESPACE_ENDS, text));
    }
    let at = metadata.deletion_timestamp.as_ref()?;
    deletion::is_protected(view).then(|| {
        let text = format!(
            "the cluster was deleted at {}, and keeps running because spec.deletionProtection is true. Kubernetes cannot take a deletion back. To finish it, run: {release}",
            at.0
        );
        (PROTECTED, text)
    })
}

/// Finalizers of the garbage collector that a protected cluster must not keep: with them the collector
/// deletes (or disowns) every dependent, also those that the operator creates again.
pub fn collector_finalizers(view: &View<'_>) -> Vec<&'static str> {
    let metadata = &view.seen.cluster.metadata;
    if metadata.deletion_timestamp.is_none() || !deletion::is_protected(view) {
        return Vec::new();
    }
    let there = metadata.finalizers.as_deref().unwrap_or_default();
    let all = COLLECTOR_FINALIZERS.into_iter();
    all.filter(|name| there.iter().any(|f| f == name)).collect()
}

/// Waits: in a namespace that is being deleted no object can be created, nor recreated after its deletion.
pub fn namespace_ends(view: &View<'_>) -> Decision {
    if !view.seen.namespace_ends {
        return Decision::Continue;
    }
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    let text = format!(
        "namespace {} is being deleted, with all pods and claims in it: the operator creates nothing",
        namespace.unwrap_or_default()
    );
    Decision::Blocked(NAMESPACE_ENDS, text)
}

#[cfg(test)]
mod tests;
