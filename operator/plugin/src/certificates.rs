//! `certificates`: shows a cluster's certificates, or asks the operator for new ones.
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use operator_api::{
    RqliteCluster,
    status::{CERTIFICATES_VALID, CertificateSummary, TlsMode, TlsSide},
};

use crate::{table::table, target::Target};

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

impl Options {
    /// The first word of the annotation's value that requests new certificates.
    pub(crate) fn rotated(&self) -> Option<&'static str> {
        self.rotate.map(|what| match what {
            Rotate::Leaf => "leaf",
            Rotate::Authority => "authority",
        })
    }
}

/// Shows the certificates.
pub(crate) async fn show(target: &Target) -> anyhow::Result<ExitCode> {
    shown(&target.cluster().await?)
}

fn shown(cluster: &RqliteCluster) -> anyhow::Result<ExitCode> {
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
