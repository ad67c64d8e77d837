//! `certificates`: shows a cluster's certificates, or asks the operator for new ones.
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use operator_api::{
    RqliteCluster, names,
    status::{CERTIFICATES_VALID, CertificateSummary, TlsMode, TlsSide},
};

use crate::{manager, table::table, target::Target};

/// Field manager of this program's changes.
const FIELD_MANAGER: &str = "kubectl-rqlite";

/// Options of `certificates`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The cluster.
    pub(crate) cluster: String,
    /// Asks for new certificates: leaf (those of nodes and clients) or authority (these and their authority).
    /// Nodes take them without a restart.
    #[arg(long, value_name = "WHAT")]
    rotate: Option<Rotate>,
}

/// What is to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rotate {
    /// The certificates of nodes and clients.
    Leaf,
    /// These, and the cluster's own authority.
    Authority,
}

/// Shows or asks.
pub(crate) async fn run(target: &Target, options: &Options) -> anyhow::Result<ExitCode> {
    let cluster = target.cluster().await?;
    match options.rotate {
        None => show(&cluster),
        Some(what) => rotate(target, &cluster, what).await,
    }
}

fn show(cluster: &RqliteCluster) -> anyhow::Result<ExitCode> {
    let status = cluster.status.clone().unwrap_or_default();
    let Some(tls) = status.tls.clone() else {
        bail!("the operator has not decided about TLS yet");
    };
    print!(
        "{}",
        table(
            &[
                "OF",
                "MODE",
                "STAGE",
                "SHA-256",
                "VALID UNTIL",
                "TRUSTED",
                "FROM"
            ],
            &rows(&tls)
        )
    );
    let Some(valid) = status.condition(CERTIFICATES_VALID) else {
        return Ok(ExitCode::SUCCESS);
    };
    println!("{}: {}", valid.reason, valid.message);
    Ok(if valid.status == "True" {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn rows(tls: &operator_api::status::TlsStatus) -> Vec<Vec<String>> {
    let of = |name: &str, side: &TlsSide| {
        let [sha256, until] = certificate(side.certificate.as_ref());
        let from = side.source.clone().map(|name| format!("Secret {name}"));
        let off = side.mode == TlsMode::Disabled;
        let own = if off { "-" } else { "own authority" };
        vec![
            name.to_owned(),
            side.mode.as_str().to_owned(),
            side.stage.as_str().to_owned(),
            sha256,
            until,
            side.trusted.len().to_string(),
            from.unwrap_or_else(|| own.to_owned()),
        ]
    };
    let [sha256, until] = certificate(tls.authority.as_ref());
    let none = || "-".to_owned();
    vec![
        of("nodes", &tls.nodes),
        of("clients", &tls.clients),
        vec![
            "authority".to_owned(),
            none(),
            none(),
            sha256,
            until,
            none(),
            none(),
        ],
    ]
}

fn certificate(one: Option<&CertificateSummary>) -> [String; 2] {
    let shown = one.map(|one| {
        let short = one.sha256.chars().take(16).collect();
        [short, one.not_after.0.to_string()]
    });
    shown.unwrap_or_else(|| ["-".to_owned(), "-".to_owned()])
}

async fn rotate(
    target: &Target,
    cluster: &RqliteCluster,
    what: Rotate,
) -> anyhow::Result<ExitCode> {
    let name = &target.name;
    if let Some(unmanaged) = manager::unmanaged(cluster) {
        bail!("nothing would renew the certificates of {name}: {unmanaged}");
    }
    let tls = cluster
        .status
        .as_ref()
        .and_then(|status| status.tls.as_ref());
    if tls.is_none_or(|tls| tls.nodes.certificate.is_none() && tls.clients.certificate.is_none()) {
        bail!("{name} has no certificates: spec.tls asks for them");
    }
    let word = match what {
        Rotate::Leaf => "leaf",
        Rotate::Authority => "authority",
    };
    let value = format!("{word} {}", Timestamp::now());
    let patch = serde_json::json!({
        "metadata": {"annotations": {names::ROTATE_CERTIFICATES_ANNOTATION: value}}
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let sent = target
        .clusters()
        .patch(name, &params, &Patch::Merge(&patch))
        .await;
    sent.with_context(|| format!("writing the annotation to {name}"))?;
    println!(
        "new certificates of {name} are asked for. Watch: kubectl rqlite certificates {name} -n {}",
        target.namespace
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use operator_api::status::TlsStatus;

    use super::*;

    #[test]
    fn what_is_not_there_is_a_dash() {
        let mut tls = TlsStatus::default();
        tls.nodes.mode = TlsMode::Required;
        tls.clients.source = Some("mine".to_owned());
        let rows = rows(&tls);
        assert_eq!(
            rows[0],
            ["nodes", "Required", "Plain", "-", "-", "0", "own authority"]
        );
        assert_eq!(rows[1][6], "Secret mine");
        assert_eq!(rows[2][0], "authority");
    }
}
