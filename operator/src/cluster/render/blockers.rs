//! Explains what Kubernetes reports as keeping pods or volumes from starting, and what to do about it.
use operator_api::{names, status::Pool};

use crate::cluster::{
    action::Event,
    facts::{
        beginning,
        observation::{Blocker, BlockerKind},
        view::View,
    },
};

/// Number of objects that a text names; of further ones it gives the number.
const MAX_NAMED: usize = 3;

/// The most important blocker: the reason for a condition, and a text that says what to type.
pub fn problem(view: &View<'_>) -> Option<(&'static str, String)> {
    let all = &view.seen.blockers;
    let worst = all.iter().min_by_key(|h| h.kind)?;
    let same: Vec<&Blocker> = all.iter().filter(|h| h.kind == worst.kind).collect();
    let (reason, remedy) = remedy(view, worst);
    let named: Vec<&str> = same
        .iter()
        .take(MAX_NAMED)
        .map(|h| h.object.as_str())
        .collect();
    let mut who = named.join(", ");
    if same.len() > MAX_NAMED {
        who = format!("{who} and {} more", same.len() - MAX_NAMED);
    }
    Some((reason, format!("{}. {remedy}", what(view, worst, &who))))
}

/// The same, if it is about volumes.
pub fn volume_problem(view: &View<'_>) -> Option<(&'static str, String)> {
    problem(view).filter(|(reason, _)| matches!(*reason, "StorageClassMissing" | "VolumePending"))
}

/// Appends the most important blocker to a text that says what is waited for.
pub fn with_blocker(view: &View<'_>, text: &str) -> String {
    match problem(view) {
        Some((_, why)) if !text.contains(&why) => {
            format!("{}: {why}", text.trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

/// The most important blocker as an event.
pub fn event(view: &View<'_>) -> Option<Event> {
    let (reason, message) = problem(view)?;
    Some(Event {
        warning: true,
        reason: reason.to_owned(),
        message,
    })
}

/// Describes the problem, without the remedy.
fn what(view: &View<'_>, worst: &Blocker, who: &str) -> String {
    let message = worst.message.trim_end_matches('.');
    match worst.kind {
        BlockerKind::Refused => {
            let pool = if worst.object == names::readers(view.name) {
                Pool::Read
            } else {
                Pool::Voter
            };
            let wanted = view.set(pool).map_or(0, |set| set.replicas);
            let there = view.pods(pool).len();
            format!("{who} has {there} of {wanted} pods: {message}")
        }
        BlockerKind::NoClass if message.is_empty() => {
            format!("no volume for {who}: no StorageClass is named and none is the default")
        }
        BlockerKind::NoClass => {
            format!("no volume for {who}: there is no StorageClass {message:?}")
        }
        BlockerKind::NoVolume => format!("no volume for {who}: {message}"),
        BlockerKind::NoPullSecret => {
            format!("{who} cannot pull its image: the pull secret {message} cannot be read")
        }
        BlockerKind::Image => format!("{who} cannot pull its image: {message}"),
        BlockerKind::Container => format!("{who} cannot start: {message}"),
        BlockerKind::NoMachine => format!("no machine is available for {who}: {message}"),
        BlockerKind::Crash => format!("the node of {who} exits repeatedly: {message}"),
    }
}

/// The condition's reason, and the remedy.
fn remedy(view: &View<'_>, worst: &Blocker) -> (&'static str, String) {
    let (name, namespace) = (view.name, namespace(view));
    let edit = format!("kubectl edit rqlitecluster {name} -n {namespace}");
    let message = worst.message.as_str();
    match worst.kind {
        BlockerKind::Refused => refused(view, worst, &edit),
        BlockerKind::NoClass => {
            let text = "Create the class (kubectl get storageclass lists the existing ones). It cannot be changed in an existing cluster: one that has no data \
                 yet is better deleted, with its claims, and created with another storage.storageClassName";
            ("StorageClassMissing", text.to_owned())
        }
        BlockerKind::NoVolume => {
            let text = format!(
                "See kubectl describe pvc {} -n {namespace}; once its provisioner can create the volume, the pod starts automatically",
                worst.object
            );
            ("VolumePending", text)
        }
        BlockerKind::NoPullSecret => {
            let first = message.split(',').next().unwrap_or(message).trim();
            let text = format!(
                "Create it: kubectl create secret docker-registry {first} -n {namespace} --docker-server=... --docker-username=... --docker-password=..., \
                 or correct spec.image.pullSecrets: {edit}"
            );
            ("PullSecretMissing", text)
        }
        BlockerKind::Image => {
            let secrets = view.spec.image.as_ref().map(|i| &i.pull_secrets);
            let secrets: Vec<&str> = secrets
                .into_iter()
                .flatten()
                .map(|s| s.name.as_str())
                .collect();
            let credentials = if secrets.is_empty() {
                "a registry with a password needs spec.image.pullSecrets".to_owned()
            } else {
                format!(
                    "or renew the credentials in the Secret {}",
                    secrets.join(", ")
                )
            };
            let text = format!(
                "Correct spec.image: {edit}; {credentials}. The pod is then recreated automatically"
            );
            ("ImagePullFailed", text)
        }
        BlockerKind::Container => container(worst, namespace, &edit),
        BlockerKind::NoMachine => {
            let text = format!(
                "Free resources, uncordon a machine, lower spec.resources or relax spec.scheduling: {edit}"
            );
            ("Unschedulable", text)
        }
        BlockerKind::Crash if beginning::is_restoring(view) => {
            let text = format!(
                "Correct spec.bootstrap.restore, the Secret that it names, or the store: {edit}. The node tries again by itself"
            );
            ("RestoreFailed", text)
        }
        BlockerKind::Crash => {
            let text = format!(
                "See kubectl logs --previous {} -c rqlited -n {namespace}; a flag in spec.config.extraArgs that the node does not know is corrected by {edit}",
                worst.object
            );
            ("NodeCrashLooping", text)
        }
    }
}

fn refused(view: &View<'_>, worst: &Blocker, edit: &str) -> (&'static str, String) {
    let (message, namespace) = (worst.message.as_str(), namespace(view));
    let quota = format!("kubectl describe resourcequota -n {namespace}");
    if message.contains("exceeded quota") {
        let text = format!(
            "Raise the quota ({quota}), or lower spec.replicas, spec.resources or spec.storage.size: {edit}"
        );
        ("QuotaExceeded", text)
    } else if message.contains("failed quota") {
        let text = format!(
            "The quota ({quota}) limits resources that the pods do not specify: add them to spec.resources: {edit}"
        );
        ("QuotaExceeded", text)
    } else if message.contains("serviceaccount") && message.contains("not found") {
        let account = view.spec.service_account_name.as_deref();
        let own = view.object_prefix();
        let account = account.unwrap_or(&own);
        let text = format!(
            "Create it: kubectl create serviceaccount {account} -n {namespace}, or correct spec.serviceAccountName: {edit}"
        );
        ("ServiceAccountMissing", text)
    } else if message.contains("PriorityClass") {
        let text = format!(
            "kubectl get priorityclass lists the existing ones; correct spec.scheduling.priorityClassName: {edit}"
        );
        ("PodsRefused", text)
    } else {
        let text = format!(
            "See kubectl describe statefulset {} -n {namespace}; once that is corrected, the pods are created automatically",
            worst.object
        );
        ("PodsRefused", text)
    }
}

/// A container that Kubernetes cannot create. What its message names comes from `spec.config.extraEnv`.
fn container(worst: &Blocker, namespace: &str, edit: &str) -> (&'static str, String) {
    let message = worst.message.to_lowercase();
    let (reason, create) = if message.contains("secret") {
        ("SecretMissing", "secret generic")
    } else if message.contains("configmap") {
        ("ConfigMapMissing", "configmap")
    } else {
        let text = format!(
            "See kubectl describe pod {} -n {namespace}, and correct the spec: {edit}",
            worst.object
        );
        return ("ContainerRefused", text);
    };
    let name = object_in(&worst.message).unwrap_or("NAME");
    let verb = if message.contains("couldn't find key") {
        let kind = create.split(' ').next().unwrap_or(create);
        format!("Add the key to it: kubectl edit {kind} {name}")
    } else {
        format!("Create it: kubectl create {create} {name} --from-literal=KEY=VALUE")
    };
    let text = format!(
        "{verb} -n {namespace}, or correct what names it (spec.config.extraEnv, spec.archive, spec.bootstrap.restore): {edit}. The pod then starts automatically"
    );
    (reason, text)
}

/// The object that the kubelet's message names: `secret "x" not found`, or `couldn't find key k in Secret
/// shop/x`.
fn object_in(message: &str) -> Option<&str> {
    if let Some((_, rest)) = message.split_once('"') {
        return rest.split_once('"').map(|(name, _)| name);
    }
    let (_, name) = message.rsplit_once('/')?;
    name.split_whitespace().next()
}

fn namespace<'a>(view: &View<'a>) -> &'a str {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    namespace.unwrap_or("default")
}

#[cfg(test)]
mod tests;
