//! The data that a new cluster begins with (`spec.bootstrap.restore`): its source, what the first node needs
//! for it, and that node's progress.
use node_contract::status::AutoRestoreStatus;
use operator_api::{
    Moment, RqliteCluster, RqliteClusterStatus,
    backup::BackupPhase,
    cluster::{ArchivePoint, BootstrapRestore, KeySelector},
    names,
    recovery::{RecoveryPhase, RecoveryStep},
    status::{BootstrapRestoreState, BootstrapRestoreStatus, Pool},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    cluster::facts::{
        hash::hash,
        observation::{ObservedPod, RestoreSource},
        view::View,
    },
    stores::{Access, access},
};

/// Name of the mounted configuration.
const CONFIG: &str = "restore.json";
/// Name of the mounted file with the keys.
const KEYS: &str = "keys";
/// Time limit of the node's restore, practically unlimited. A store that does not respond ends an attempt
/// much earlier.
const TIMEOUT: &str = "168h";
/// What a node prints if it could not fetch the data. It fetches before it forms a cluster.
const FAILED: &str = "auto-restore failed";

/// Where the data of a new cluster comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The spec asks for no restore.
    Nothing,
    /// A store, and an object or a point in it; no reference to another Kubernetes object.
    Found(Box<BootstrapRestore>),
    /// The source is not known yet or does not exist: a reason for the condition, and what to do.
    Missing(&'static str, String),
}

/// Finds the source that the spec asks for.
pub fn source(view: &View<'_>) -> Source {
    let Some(asked) = asked(view) else {
        return Source::Nothing;
    };
    if let Some(backup) = &asked.backup {
        return of_backup(view, &backup.name);
    }
    match asked.archive.as_ref().and_then(|a| a.cluster.as_ref()) {
        Some(cluster) => of_cluster(view, cluster, asked.archive.clone().unwrap_or_default()),
        None => Source::Found(Box::new(asked.clone())),
    }
}

/// The restore that the spec asks for.
pub fn asked<'a>(view: &View<'a>) -> Option<&'a BootstrapRestore> {
    let asked = view.spec.bootstrap.as_ref()?.restore.as_ref()?;
    (*asked != BootstrapRestore::default()).then_some(asked)
}

fn of_backup(view: &View<'_>, name: &str) -> Source {
    let namespace = namespace(view);
    let found = match &view.seen.restore_source {
        Some(RestoreSource::Backup { found }) => found,
        other => return unread(other.as_ref(), &format!("the RqliteBackup {name}")),
    };
    let Some(backup) = found else {
        let text = format!(
            "there is no RqliteBackup {name} in the namespace {namespace}: create it, name another one in bootstrap.restore.backup, or give target and object"
        );
        return Source::Missing("RestoreSourceMissing", text);
    };
    let status = backup.status.clone().unwrap_or_default();
    let why = status.message.or(status.error).unwrap_or_default();
    match (
        status.phase.unwrap_or_default(),
        status.target,
        status.object,
    ) {
        (BackupPhase::Succeeded, Some(target), Some(object)) => {
            Source::Found(Box::new(BootstrapRestore {
                target: Some(target),
                object: Some(object),
                ..BootstrapRestore::default()
            }))
        }
        (BackupPhase::Failed | BackupPhase::Deleting, ..) => {
            let text = format!(
                "the RqliteBackup {name} is not in the store ({why}): name another one in bootstrap.restore.backup"
            );
            Source::Missing("RestoreSourceFailed", text)
        }
        _ => {
            let text = format!("waiting for the RqliteBackup {name}, which is not complete: {why}");
            Source::Missing("RestoreSourcePending", text)
        }
    }
}

fn of_cluster(view: &View<'_>, name: &str, point: ArchivePoint) -> Source {
    let namespace = namespace(view);
    if name == view.name {
        let text = format!(
            "{name} cannot begin with its own archive by its own name: give target and lineage in bootstrap.restore"
        );
        return Source::Missing("RestoreSourceMissing", text);
    }
    let found = match &view.seen.restore_source {
        Some(RestoreSource::Cluster { found }) => found,
        other => return unread(other.as_ref(), &format!("the RqliteCluster {name}")),
    };
    let Some(cluster) = found else {
        let text = format!(
            "there is no RqliteCluster {name} in the namespace {namespace}: if it is gone, give target (and lineage) in bootstrap.restore instead of its name"
        );
        return Source::Missing("RestoreSourceMissing", text);
    };
    match of_archive(cluster, point) {
        Some(found) => Source::Found(Box::new(found)),
        None => {
            let text = format!(
                "{name} has no archive (spec.archive): make an RqliteBackup of it and name that in bootstrap.restore.backup, or give the target of an earlier archive"
            );
            Source::Missing("RestoreSourceMissing", text)
        }
    }
}

/// A point of this cluster's archive. An index is only meaningful in one lineage, and the end is that of the
/// newest lineage, even if other clusters write below the same prefix; a time may be in an earlier lineage.
pub fn of_archive(cluster: &RqliteCluster, point: ArchivePoint) -> Option<BootstrapRestore> {
    let archive = cluster.spec.archive.clone()?;
    let status = cluster.status.clone().unwrap_or_default();
    let archived = status.archive.and_then(|archive| archive.lineage);
    let lineage = match point.to_time {
        None => point.lineage.or(archived),
        Some(_) => point.lineage,
    };
    Some(BootstrapRestore {
        target: Some(archive.target),
        encryption: archive.encryption,
        archive: Some(ArchivePoint {
            cluster: None,
            lineage,
            to_time: point.to_time,
            to_index: point.to_index,
        }),
        ..BootstrapRestore::default()
    })
}

fn unread(source: Option<&RestoreSource>, what: &str) -> Source {
    let why = match source {
        Some(RestoreSource::Unread { why }) => why.as_str(),
        _ => "it was not looked at",
    };
    let text = format!("{what} could not be read: {why}");
    Source::Missing("RestoreSourceUnread", text)
}

fn namespace<'a>(view: &View<'a>) -> &'a str {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    namespace.unwrap_or("default")
}

/// A source as text for people.
pub fn describe(source: &BootstrapRestore) -> String {
    let uri = source.target.clone().unwrap_or_default().uri();
    if let Some(object) = &source.object {
        return format!("{}/{object}", uri.trim_end_matches('/'));
    }
    let point = source.archive.clone().unwrap_or_default();
    let at = match (point.to_time, point.to_index) {
        (Some(time), _) => format!("at {}", time.0),
        (None, Some(index)) => format!("at index {index}"),
        (None, None) => "at its end".to_owned(),
    };
    let lineage = point.lineage;
    let lineage = lineage.map_or_else(String::new, |id| format!(", lineage {id}"));
    format!("the archive in {uri}{lineage}, {at}")
}

/// The recorded restore, until the cluster has formed with it.
pub fn unfinished<'a>(view: &View<'a>) -> Option<&'a BootstrapRestoreStatus> {
    let record = view.status.bootstrap_restore.as_ref()?;
    let open = record.resolved.is_some() && record.state != BootstrapRestoreState::Succeeded;
    (open && !view.is_formed()).then_some(record)
}

/// Does the cluster form with one voter that restores?
pub fn is_restoring(view: &View<'_>) -> bool {
    unfinished(view).is_some()
}

/// What the first node's pod has for the restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InPods {
    /// Flags of the node.
    pub flags: Vec<String>,
    /// The configuration, an annotation of the pod: it has no secrets.
    pub config: String,
    /// Variables, volumes and mounts.
    #[serde(skip)]
    pub access: Access,
}

/// What the pod template has for the restore while the cluster has not formed; None otherwise, so that pods
/// of a cluster with data need no credentials for it.
pub fn in_pods(view: &View<'_>) -> Option<InPods> {
    let resolved = unfinished(view)?.resolved.clone()?;
    let source: BootstrapRestore = serde_json::from_value(resolved).ok()?;
    Some(of(&source))
}

fn of(source: &BootstrapRestore) -> InPods {
    let target = source.target.clone().unwrap_or_default();
    let object = source.object.as_deref().unwrap_or_default();
    let mut access = access(&target, object, "restore");
    let mut config = access.config.clone();
    if let Some(point) = &source.archive {
        let mut sub = json!({ "archive": config });
        let key = source.encryption.as_ref().map(|encryption| {
            let KeySelector { name, key } = encryption.key_secret.clone();
            access.file("restore-key", &KeySelector { name, key }, KEYS)
        });
        let values = [
            ("key_file", key.map(Value::String)),
            ("lineage", point.lineage.clone().map(Value::String)),
            ("to_time", point.to_time.clone().map(|at| json!(at.0))),
            ("to_index", point.to_index.map(|index| json!(index))),
        ];
        if let Some(sub) = sub.as_object_mut() {
            let given = values.into_iter();
            let given = given.filter_map(|(key, value)| Some((key.to_owned(), value?)));
            sub.extend(given.map(|(key, value)| (key, without_variables(value))));
        }
        config = Map::from_iter([
            ("version".to_owned(), json!(1)),
            ("type".to_owned(), json!("archive")),
            ("sub".to_owned(), sub),
        ]);
    }
    // A node without the data must not form a cluster: it exits, and is restarted.
    config.insert("continue_on_failure".to_owned(), json!(false));
    config.insert("timeout".to_owned(), json!(TIMEOUT));
    let path = access.annotation("restore-config", names::RESTORE_ANNOTATION, CONFIG);
    InPods {
        flags: vec![format!("-auto-restore={path}")],
        config: Value::Object(config).to_string(),
        access,
    }
}

/// Escapes the spec's texts for the configuration, in which a dollar sign begins a variable.
fn without_variables(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        value => value,
    }
}

/// Identifies the restore in the voters' pod template; None if it has none.
pub fn template_key(view: &View<'_>) -> Option<String> {
    let resolved = unfinished(view)?.resolved.as_ref()?;
    Some(format!("restore:{}", hash(resolved)))
}

/// The pod of the first node.
fn first<'a>(view: &View<'a>) -> Option<&'a ObservedPod> {
    view.pod(&names::pod(&view.set_name(Pool::Voter), 0))
}

/// What the first node reports of the restore; None if it does not respond, or was started without one.
pub fn report<'a>(view: &View<'a>) -> Option<&'a AutoRestoreStatus> {
    view.node(&first(view)?.name)?.auto_restore.as_ref()
}

/// Did the restore end this pod's node before it could form a cluster?
pub fn has_failed(pod: &ObservedPod) -> bool {
    let words = pod.stuck.as_deref().unwrap_or_default();
    words.contains(FAILED)
}

/// Why the first node cannot restore, as it reports.
pub fn failure(view: &View<'_>) -> Option<String> {
    is_restoring(view).then_some(())?;
    let pod = first(view).filter(|pod| !pod.deleting)?;
    let words = pod.stuck.as_deref()?;
    let own = words.split_once("fatal: ").map_or(words, |(_, own)| own);
    Some(format!("{}: {own}", pod.name))
}

/// Why it is not proven that the cluster formed with the data: a reason and a text. None if its node reports
/// that it restored.
pub fn unproven(view: &View<'_>) -> Option<(&'static str, String)> {
    if !is_restoring(view) {
        let text = "the cluster formed without data before bootstrap.restore was asked for: remove it from the spec to keep the empty cluster, or delete the cluster and create it again";
        return asked(view).map(|_| ("RestoreImpossible", text.to_owned()));
    }
    match report(view) {
        Some(report) if report.is_done() => None,
        Some(report) => {
            let text = format!("the first node is {}", report.state);
            Some(("Restoring", text))
        }
        None => {
            let text = "the first node does not say that it restored: the image must know -auto-restore; choose a newer one";
            Some(("RestoreNotReported", text.to_owned()))
        }
    }
}

/// Records that the cluster has formed with the data.
pub fn complete(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let (Some(report), true) = (report(view), is_restoring(view)) else {
        return;
    };
    let Some(record) = &mut next.bootstrap_restore else {
        return;
    };
    let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    record.state = BootstrapRestoreState::Succeeded;
    record.lineage.clone_from(&report.lineage);
    record.index = number(report.index);
    record.time = report.time.clone().map(Moment);
    record.bytes = number(report.bytes);
    record.completed_at = Some(view.now().clone());
    if let Some(recovery) = &mut next.recovery
        && record.recovery.as_ref() == Some(&recovery.uid)
    {
        recovery.phase = RecoveryPhase::Rejoining;
        recovery.steps.push(RecoveryStep {
            phase: RecoveryPhase::Rejoining,
            at: view.now().clone(),
        });
    }
    record.message = (report.state != AutoRestoreStatus::RESTORED)
        .then(|| "the first node had its data from an earlier attempt, before the spec was last edited or its pod replaced".to_owned());
}

/// Records the progress of the restore. Called for every status.
pub fn record(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let (Some(record), true) = (&mut next.bootstrap_restore, is_restoring(view)) else {
        return;
    };
    if next.bootstrapped_at.is_some() {
        return;
    }
    let failure = failure(view);
    record.state = match &failure {
        Some(_) => BootstrapRestoreState::Failed,
        None => BootstrapRestoreState::Restoring,
    };
    record.message = failure.or_else(|| {
        let report = report(view)?;
        Some(format!("the first node: {}", report.state))
    });
}

/// The condition: whether it is true, its reason and its text. None if no restore is asked for or recorded.
pub fn condition(
    view: &View<'_>,
    next: &RqliteClusterStatus,
) -> Option<(bool, &'static str, String)> {
    let asked = asked(view);
    let formed = next.bootstrapped_at.is_some();
    let Some(record) = &next.bootstrap_restore else {
        asked?;
        if formed {
            return Some((false, "Ignored", ignored(view)?));
        }
        let (reason, text) = match source(view) {
            Source::Missing(reason, text) => (reason, text),
            Source::Found(_) | Source::Nothing => ("Waiting", "about to begin".to_owned()),
        };
        return Some((false, reason, text));
    };
    let source = record.source.clone().unwrap_or_default();
    let message = record.message.clone();
    Some(match record.state {
        BootstrapRestoreState::Succeeded => {
            let text = format!("the cluster began with {source}");
            let text = message.map_or_else(|| text.clone(), |more| format!("{text}: {more}"));
            (false, "Restored", text)
        }
        BootstrapRestoreState::Failed => {
            let why = message.unwrap_or_default();
            let text = format!(
                "{source} cannot be restored. {why}. The cluster stays without data and does not form. Correct bootstrap.restore, the Secret or the store: the node tries again by itself; or delete the cluster"
            );
            (false, "RestoreFailed", text)
        }
        BootstrapRestoreState::Waiting
        | BootstrapRestoreState::Restoring
        | BootstrapRestoreState::Other(_) => {
            let how = message.map_or_else(String::new, |how| format!(" ({how})"));
            (
                true,
                "Restoring",
                format!("the first node restores {source}{how}"),
            )
        }
    })
}

/// Advice if the spec asks for a restore but the cluster has its data already.
pub fn ignored(view: &View<'_>) -> Option<String> {
    let asked = asked(view)?;
    let request = view.status.bootstrap_restore.as_ref();
    let request = request.and_then(|record| record.request.clone());
    let same = request == Some(request_of(asked));
    (view.is_formed() && !same).then(|| {
        "bootstrap.restore is ignored: the cluster has formed, and has data of its own. To take it back to a point of its archive create an RqliteRestore; to begin with other data create another cluster".to_owned()
    })
}

/// Identifies a request: equal for equal ones.
pub fn request_of(asked: &BootstrapRestore) -> String {
    hash(asked)
}
