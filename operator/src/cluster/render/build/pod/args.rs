//! The node's command line. It does not contain the number of voters, except for the number at bootstrap,
//! which never changes.
use operator_api::{
    cluster::{self, Raft},
    names,
    status::{Pool, Target, TlsStage},
};

use crate::cluster::{
    facts::{
        addresses::pod_domain,
        archive,
        authentication::{NODE_USER, USERS_FILE, in_pods, is_known_by},
        beginning,
        certificates::{AUTHORITIES, CERTIFICATE, KEY},
        image::Parts,
        tls::{asks_clients, common_name, resolved},
        view::View,
    },
    render::build::common::{DATA_PATH, HTTP_TLS_PATH, NODE_TLS_PATH, USERS_PATH},
};

/// Flags, then the data directory.
pub(super) fn of(view: &View<'_>, target: &Target, pool: Pool) -> Vec<String> {
    let headless = pod_domain(view);
    let host = format!("$(POD_NAME).{headless}");
    let (http, raft) = (names::HTTP_PORT, names::RAFT_PORT);
    let mut all = vec![
        "-node-id=$(POD_NAME)".to_owned(),
        // All IPv6 and IPv4 addresses of the pod; only the latter where the machine has no IPv6.
        format!("-http-addr=[::]:{http}"),
        format!("-http-adv-addr={host}:{http}"),
        format!("-raft-addr=[::]:{raft}"),
        format!("-raft-adv-addr={host}:{raft}"),
        "-disco-mode=dns-srv".to_owned(),
        format!(r#"-disco-config={{"name":"{headless}","service":"raft"}}"#),
        "-join-interval=1s".to_owned(),
        // A fallback for the operator's own reaping; on every node, because any voter may lead.
        format!(
            "-raft-reap-read-only-node-timeout={}",
            view.spec
                .reaping
                .clone()
                .unwrap_or_default()
                .read_replica_timeout
        ),
    ];
    match pool {
        Pool::Voter => {
            all.push(format!("-bootstrap-expect={}", target.bootstrap_replicas));
            // A missing node may take long: the operator reports what is missing, and a restart would not
            // help.
            all.push("-bootstrap-expect-timeout=24h".to_owned());
            all.extend(
                beginning::in_pods(view)
                    .map(|pods| pods.flags)
                    .unwrap_or_default(),
            );
        }
        Pool::Read => {
            all.push("-raft-non-voter=true".to_owned());
            all.push("-raft-cluster-remove-shutdown=true".to_owned());
        }
    }
    all.extend(tls(view));
    all.extend(users(view));
    if has_health(target) {
        all.push(format!("-health-addr=[::]:{}", names::HEALTH_PORT));
    }
    all.extend(
        archive::in_pods(view)
            .map(|pods| pods.flags)
            .unwrap_or_default(),
    );
    let config = view.spec.config.clone().unwrap_or_default();
    if let Some(settings) = &config.raft {
        all.extend(consensus(settings));
    }
    all.extend(config.sqlite.as_ref().map(sqlite).unwrap_or_default());
    all.extend(config.write_queue.as_ref().map(queue).unwrap_or_default());
    all.extend(config.extra_args);
    all.push(DATA_PATH.to_owned());
    all
}

/// TLS, as far as the cluster's move to it is recorded.
fn tls(view: &View<'_>) -> Vec<String> {
    let tls = resolved(view);
    let mut all = Vec::new();
    let files = |kind: &str, path: &str| {
        [
            format!("-{kind}-cert={path}/{CERTIFICATE}"),
            format!("-{kind}-key={path}/{KEY}"),
            format!("-{kind}-ca-cert={path}/{AUTHORITIES}"),
        ]
    };
    let stage = match tls.nodes.stage {
        TlsStage::Plain | TlsStage::Other(_) => None,
        TlsStage::Accept => Some("accept"),
        TlsStage::Use => Some("use"),
        TlsStage::Require => Some("require"),
    };
    if let Some(stage) = stage {
        all.extend(files("node", NODE_TLS_PATH));
        all.push("-node-verify-client=true".to_owned());
        all.push(format!("-node-tls-stage={stage}"));
        if tls.checks_common_name {
            let name = common_name(view);
            all.push(format!("-node-verify-common-name={name}"));
        }
    }
    if matches!(tls.clients.stage, TlsStage::Accept | TlsStage::Require) {
        all.extend(files("http", HTTP_TLS_PATH));
        if tls.clients.stage == TlsStage::Accept {
            all.push("-http-tls-optional=true".to_owned());
        } else if asks_clients(view) {
            all.push("-http-verify-client=true".to_owned());
        }
    }
    all
}

/// Do the nodes of the target's image know the health port?
pub(super) fn has_health(target: &Target) -> bool {
    is_known_by(Parts::of(&target.image).release())
}

/// The credentials file, as far as the cluster's move to users is recorded.
fn users(view: &View<'_>) -> Vec<String> {
    if !in_pods(view) {
        return Vec::new();
    }
    vec![
        format!("-auth={USERS_PATH}/{USERS_FILE}"),
        format!("-join-as={NODE_USER}"),
    ]
}

fn consensus(raft: &Raft) -> Vec<String> {
    let mut all = vec![
        format!("-raft-heartbeat-timeout={}", raft.heartbeat_timeout),
        format!("-raft-election-timeout={}", raft.election_timeout),
        format!("-raft-snap={}", raft.snapshot_threshold),
        format!("-raft-snap-int={}", raft.snapshot_interval),
        format!("-raft-apply-timeout={}", raft.apply_timeout),
    ];
    let lease = raft.leader_lease_timeout.as_ref();
    all.extend(lease.map(|lease| format!("-raft-leader-lease-timeout={lease}")));
    all
}

fn sqlite(sqlite: &cluster::Sqlite) -> Vec<String> {
    let mut all = Vec::new();
    if sqlite.foreign_keys {
        all.push("-fk=true".to_owned());
    }
    let vacuum = sqlite.auto_vacuum_interval.as_ref();
    all.extend(vacuum.map(|period| format!("-auto-vacuum-int={period}")));
    let optimize = sqlite.auto_optimize_interval.as_ref();
    all.extend(optimize.map(|period| format!("-auto-optimize-int={period}")));
    let readers = sqlite.max_read_connections;
    all.extend(readers.map(|count| format!("-db-max-ro-conns={count}")));
    all
}

fn queue(queue: &cluster::WriteQueue) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(queue.capacity.map(|n| format!("-write-queue-capacity={n}")));
    all.extend(
        queue
            .batch_size
            .map(|n| format!("-write-queue-batch-size={n}")),
    );
    let timeout = queue.timeout.as_ref();
    all.extend(timeout.map(|period| format!("-write-queue-timeout={period}")));
    if queue.transaction {
        all.push("-write-queue-tx=true".to_owned());
    }
    all
}
