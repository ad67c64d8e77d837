//! `kubectl rqlite status`: a page with the members, volumes and conditions of a cluster.
use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context;
use k8s_openapi::{
    api::core::v1::PersistentVolumeClaim, apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{Api, ResourceExt, api::ListParams};
use node_contract::status::{RaftStatus, Status};
use operator_api::{
    RqliteCluster, names,
    status::{Member, Role},
};

use crate::{manager, node::Nodes, say, table::table, target::Target, update};

/// Timeout of a node's status. A node that takes longer is shown without its own numbers.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads and prints the status. The exit code is 0 only if the cluster is Ready.
pub(crate) async fn show(target: &Target, user: Option<&str>) -> anyhow::Result<ExitCode> {
    let cluster = target.cluster().await?;
    let status = cluster.status.clone().unwrap_or_default();
    let mut nodes = BTreeMap::new();
    // Without the permission to read Secrets, the page lacks only what the nodes themselves say.
    let asked = match Nodes::of(target, &cluster, user).await {
        Ok(asked) => Some(asked),
        Err(error) if user.is_none() => {
            eprintln!("the nodes are not queried: {}", say::line(&error));
            None
        }
        Err(error) => return Err(error),
    };
    for member in &status.members {
        let Some(asked) = &asked else {
            break;
        };
        let response = tokio::time::timeout(STATUS_TIMEOUT, asked.status(&member.name));
        match response.await {
            Ok(Ok(node)) => {
                nodes.insert(member.name.clone(), node);
            }
            Ok(Err(error)) if user.is_some() => {
                eprintln!("{}: {}", member.name, say::line(&error));
            }
            _ => {}
        }
    }
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(target.client.clone(), &target.namespace);
    let of_cluster =
        ListParams::default().labels(&format!("{}={}", names::CLUSTER_LABEL, target.name));
    let claims = claims.list(&of_cluster).await.map(|list| list.items);
    print!("{}", text(&cluster, &nodes, &claims.unwrap_or_default()));
    Ok(if status.is(operator_api::status::READY) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lists the clusters of the namespace.
pub(crate) async fn list(target: &Target) -> anyhow::Result<ExitCode> {
    let clusters = target.clusters().list(&ListParams::default()).await;
    let namespace = &target.namespace;
    let clusters = clusters.with_context(|| format!("listing the clusters of {namespace}"))?;
    if clusters.items.is_empty() {
        println!("there is no RqliteCluster in the namespace {namespace}");
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", overview(&clusters.items));
    Ok(ExitCode::SUCCESS)
}

/// A line for each cluster.
fn overview(clusters: &[RqliteCluster]) -> String {
    let row = |cluster: &RqliteCluster| {
        let status = cluster.status.clone().unwrap_or_default();
        let ready = status.condition(operator_api::status::READY);
        vec![
            cluster.name_any(),
            ready.map_or("Unknown", |c| c.status.as_str()).to_owned(),
            ready
                .map_or("not reconciled yet", |c| c.reason.as_str())
                .to_owned(),
            format!("{}/{}", status.ready_replicas, cluster.spec.replicas),
            status.leader.unwrap_or_else(|| "none".to_owned()),
        ]
    };
    let rows: Vec<_> = clusters.iter().map(row).collect();
    table(&["CLUSTER", "READY", "REASON", "VOTERS", "LEADER"], &rows)
}

/// None while the node opens its data.
fn raft(node: &Status) -> Option<&RaftStatus> {
    node.store.raft.as_ref()
}

/// The page. `nodes` has the `/status` of each node that responded.
fn text(
    cluster: &RqliteCluster,
    nodes: &BTreeMap<String, Status>,
    claims: &[PersistentVolumeClaim],
) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let phase = status
        .phase
        .map_or("not reconciled yet".to_owned(), |p| format!("{p:?}"));
    let epoch = status.lineage.as_ref().map_or(0, |l| l.epoch);
    let mut page = format!(
        "{}: {phase}, {} of {} voters ready, leader {}, epoch {epoch}\n",
        cluster.name_any(),
        status.ready_replicas,
        cluster.spec.replicas,
        status.leader.as_deref().unwrap_or("none")
    );
    if let Some(line) = manager::line(cluster) {
        page.push_str(&line);
        page.push('\n');
    }
    if let Some(operation) = &status.operation {
        let message = operation.message.as_deref().unwrap_or_default();
        page.push_str(&format!("operation: {:?}: {message}\n", operation.kind));
    }
    if let Some(archive) = &status.archive {
        let number = archive.archived_index.map(|index| index.to_string());
        let time = archive.archived_time.as_ref().map(|time| time.0.as_str());
        page.push_str(&format!(
            "archive: {}, to index {} ({}) at least\n",
            archive.uri.as_deref().unwrap_or_default(),
            number.as_deref().unwrap_or("none"),
            time.unwrap_or("-")
        ));
    }
    if let Some(plan) = &status.proposed_plan {
        page.push_str(&update::described(&cluster.name_any(), plan));
        page.push('\n');
    }
    let commit = nodes
        .values()
        .filter_map(|n| Some(raft(n)?.commit_index))
        .max();
    let members = status.members.iter();
    let rows: Vec<Vec<String>> = members
        .map(|member| member_row(member, nodes.get(&member.name), commit, claims))
        .collect();
    let head = [
        "MEMBER", "ROLE", "STATE", "VERSION", "LAG", "USED", "VOLUME", "NODE", "REASON",
    ];
    page.push('\n');
    page.push_str(&table(&head, &rows));
    let rows: Vec<Vec<String>> = status
        .conditions
        .iter()
        .enumerate()
        .map(|(at, c)| {
            let message = reference_to_same(&status.conditions, at).unwrap_or(c.message.clone());
            vec![c.type_.clone(), c.status.clone(), c.reason.clone(), message]
        })
        .collect();
    page.push('\n');
    page.push_str(&table(&["CONDITION", "STATUS", "REASON", "MESSAGE"], &rows));
    page
}

/// The row of a member: role, state, lag behind `commit`, size of its data, volume, Kubernetes node and
/// reason.
fn member_row(
    member: &Member,
    node: Option<&Status>,
    commit: Option<u64>,
    claims: &[PersistentVolumeClaim],
) -> Vec<String> {
    let applied = node.and_then(|n| Some(raft(n)?.applied_index));
    let lag = applied
        .zip(commit)
        .map(|(a, c)| c.saturating_sub(a).to_string());
    let used = node.and_then(|n| n.store.dir_size_friendly.as_deref());
    let role = if member.role == Role::Absent {
        "-"
    } else {
        member.role.as_str()
    };
    vec![
        member.name.clone(),
        role.to_owned(),
        format!("{:?}", member.state),
        member.version.clone().unwrap_or_else(|| "-".to_owned()),
        lag.unwrap_or_else(|| "-".to_owned()),
        used.unwrap_or("-").to_owned(),
        volume(claims, &member.name),
        member.node.clone().unwrap_or_else(|| "-".to_owned()),
        member.reason.clone().unwrap_or_default(),
    ]
}

/// A reference to the condition with the same message, if it is shown before or is more detailed, so that
/// each long text is printed once.
fn reference_to_same(conditions: &[Condition], at: usize) -> Option<String> {
    let core = |c: &Condition| {
        let text = c.message.split(". Runbook: ").next().unwrap_or_default();
        text.to_owned()
    };
    let own = core(&conditions[at]);
    let longer = conditions.iter().find(|c| {
        let other = core(c);
        other.len() > own.len() && other.starts_with(&own)
    });
    let before = || conditions[..at].iter().find(|c| core(c) == own);
    let known = longer.or_else(before)?;
    (!own.is_empty()).then(|| format!("see {}", known.type_))
}

/// Size of a member's volume, or the phase of its claim if it is not bound.
fn volume(claims: &[PersistentVolumeClaim], pod: &str) -> String {
    let claim = claims.iter().find(|c| c.name_any() == names::claim(pod));
    let Some(status) = claim.and_then(|c| c.status.as_ref()) else {
        return "none".to_owned();
    };
    let size = status.capacity.as_ref().and_then(|c| c.get("storage"));
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    match size {
        Some(size) if phase == "Bound" => size.0.clone(),
        _ => phase.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let cluster: RqliteCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
            "metadata": {"name": "demo"}, "spec": {"replicas": 3},
            "status": {
                "clusterId": "c", "managedBy": {"installation": "ops/rqlite", "operatorClass": "default", "since": "2026-01-01T00:00:00Z"},
                "phase": "Degraded", "readyReplicas": 2, "leader": "demo-0", "lineage": {"id": "l", "epoch": 1},
                "operation": {"id": "o", "type": "Replace", "startedAt": "2026-01-01T00:00:00Z", "stepAt": "2026-01-01T00:00:00Z", "message": "waits"},
                "members": [
                    {"name": "demo-0", "pool": "voter", "role": "leader", "state": "Healthy", "version": "0.1.0", "node": "m1"},
                    {"name": "demo-1", "pool": "voter", "role": "voter", "state": "Lost", "reason": "its claim is gone"},
                ],
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "MemberLost", "message": "one is lost. Runbook: member-lost",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "Progressing", "status": "True", "reason": "MemberLost", "message": "one is lost: demo-1. Runbook: member-lost",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "Degraded", "status": "True", "reason": "MemberLost", "message": "one is lost: demo-1",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ],
            }
        }))
        .unwrap();
        let node = |applied: u64| -> Status {
            serde_json::from_value(serde_json::json!({"store": {"dir_size_friendly": "1.0 MB", "raft": {
                "state": "Leader", "term": 1, "last_log_index": 12, "last_log_term": 1, "commit_index": 12, "applied_index": applied,
                "committed_configuration": {"index": 1, "members": []},
            }}}))
            .unwrap()
        };
        let claim: PersistentVolumeClaim = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "data-demo-0"}, "status": {"phase": "Bound", "capacity": {"storage": "10Gi"}},
        }))
        .unwrap();
        let nodes = [("demo-0".to_owned(), node(9))].into();
        let page = text(&cluster, &nodes, &[claim]);
        let expected = "\
demo: Degraded, 2 of 3 voters ready, leader demo-0, epoch 1
managed by ops/rqlite (class default)
operation: Replace: waits

MEMBER   ROLE     STATE     VERSION   LAG   USED     VOLUME   NODE   REASON
demo-0   leader   Healthy   0.1.0     3     1.0 MB   10Gi     m1
demo-1   voter    Lost      -         -     -        none     -      its claim is gone

CONDITION     STATUS   REASON       MESSAGE
Ready         False    MemberLost   see Progressing
Progressing   True     MemberLost   one is lost: demo-1. Runbook: member-lost
Degraded      True     MemberLost   see Progressing
";
        assert_eq!(page, expected);
    }
}
