//! TLS of both ports, assembled: certificates are read before anything is served, and watched afterwards.
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, NodeTlsStage, Tls},
    metrics::Metrics,
    tls::{Port, Side, Sides},
    transport::Transport,
};

/// The stage of TLS between nodes; `None` without a certificate for them.
pub(super) fn stage(config: &Config) -> Option<NodeTlsStage> {
    let stage = config.node_tls_stage();
    stage.filter(|_| config.node_tls.is_enabled())
}

/// Reads the certificates of both ports.
pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Sides> {
    for (kind, tls) in [("http", &config.http_tls), ("node", &config.node_tls)] {
        for warning in without_effect(kind, tls) {
            tracing::warn!(target: "rqlited", "{warning}");
        }
    }
    let open = |port, tls: &Tls| {
        let side = tls
            .is_enabled()
            .then(|| Side::open(port, tls, Arc::clone(metrics)));
        side.transpose().map_err(anyhow::Error::msg)
    };
    Ok(Sides {
        node: open(Port::Node, &config.node_tls)?,
        http: open(Port::Http, &config.http_tls)?,
    })
}

/// How connections with other nodes are secured.
pub(super) fn transport(config: &Config, tls: &Sides) -> Arc<Transport> {
    Arc::new(match (stage(config), &tls.node) {
        (Some(stage), Some(side)) => Transport::with_tls(stage, Arc::clone(side)),
        _ => Transport::default(),
    })
}

/// Takes changed certificates until the stop.
pub(super) fn watch(tls: &Sides, transport: &Arc<Transport>, stop: &CancellationToken) {
    for side in [&tls.http, &tls.node].into_iter().flatten() {
        tokio::spawn(Arc::clone(side).watch(stop.clone()));
    }
    tokio::spawn(Arc::clone(transport).watch(stop.clone()));
}

/// Flags that somebody may rely on, although there is no TLS without a certificate. rqlite accepts them, so
/// they get only a warning.
fn without_effect(kind: &str, tls: &Tls) -> Vec<String> {
    if tls.is_enabled() {
        return Vec::new();
    }
    let given = [
        ("ca-cert", tls.ca_cert.is_some()),
        ("verify-client", tls.verify_client),
        ("verify-server-name", !tls.verify_server_name.is_empty()),
        ("no-verify", tls.no_verify),
    ];
    let given = given.into_iter().filter(|(_, is_given)| *is_given);
    given
        .map(|(flag, _)| {
            format!(
                "-{kind}-{flag} has no effect: there is no TLS without -{kind}-cert and -{kind}-key"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_gets_a_warning() {
        let mut tls = Tls {
            verify_client: true,
            ..Tls::default()
        };
        let warnings = without_effect("node", &tls);
        assert!(
            warnings.len() == 1 && warnings[0].starts_with("-node-verify-client has no effect")
        );
        (tls.cert, tls.key) = (Some("c".into()), Some("k".into()));
        assert!(without_effect("node", &tls).is_empty());
        assert!(without_effect("node", &Tls::default()).is_empty());
    }
}
