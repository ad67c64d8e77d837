//! Certificates of cert-manager on a real Kubernetes: issued and renewed under a writer.
use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use e2e_operator::cert_manager::{CertManager, ISSUERS, RENEW};
use serde_json::json;

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
};

/// SHA-256 of the nodes' and the clients' certificate that every node reports in use.
fn in_use(cluster: &Cluster<'_>) -> Result<[String; 2]> {
    let mut all = Vec::new();
    for pod in cluster.uids()?.keys() {
        let status = cluster.status_of(pod)?;
        let leaf = |side: &str| text(&status["security"][side]["leaf_sha256"]).to_owned();
        all.push([leaf("node_tls"), leaf("http_tls")]);
    }
    let first = all.first().context("no pod")?.clone();
    ensure!(all.iter().all(|one| *one == first), "nodes differ: {all:?}");
    ensure!(
        first.iter().all(|sha| !sha.is_empty()),
        "no certificate: {first:?}"
    );
    Ok(first)
}

/// N6: both certificates from cert-manager; it renews them, and the nodes take them without a restart.
pub(crate) fn issued_and_renewed(fixture: &Fixture) -> Result<Measurements> {
    let started = CertManager::start(fixture.kubeconfig(), |args| fixture.kubectl.run(args))?;
    let _running = started.context("run e2e/tools/build cert-manager first")?;
    let done = fixture.bare("issuer", |cluster| {
        cluster.namespace.apply(ISSUERS)?;
        let certificate = json!({"issuerRef": {"name": "shop"}});
        let tls = json!({"tls": {
            "nodes": {"mode": "Required", "certificate": certificate},
            "clients": {"mode": "Optional", "certificate": certificate},
        }});
        cluster.create(spec(3, tls))?;
        cluster.ready(LONG)?;
        let by_tls = Cluster {
            tls: true,
            ..*cluster
        };
        let writer = by_tls.writer()?;
        let authority = cluster.secret("authority")?.context("no authority")?;
        let shown = cluster
            .secret(&format!("{NAME}-app"))?
            .context("no connection Secret")?;
        ensure!(
            shown.get("ca.crt") == authority.get("ca.crt"),
            "another authority is shown"
        );
        let (before, pods) = (in_use(cluster)?, cluster.uids()?);
        for end in ["node-tls", "http-tls"] {
            let name = format!("{NAME}-rqlite-{end}");
            let object = format!("certificates.cert-manager.io/{name}");
            let args = [
                "patch",
                &object,
                "--subresource=status",
                "--type=merge",
                "-p",
                RENEW,
            ];
            cluster.namespace.run(&args)?;
        }
        until("renewed certificates in use", LONG, || {
            let after = in_use(cluster)?;
            let kept = before.iter().zip(&after).filter(|(b, a)| b == a).count();
            ensure!(kept == 0, "{before:?}, then {after:?}");
            Ok(())
        })?;
        ensure!(cluster.uids()? == pods, "pods were replaced");
        let ready = cluster.object()?;
        ensure!(
            condition(&ready, "Ready")["status"] == "True",
            "{}",
            condition(&ready, "Ready")
        );
        writer.await_progress(LIMIT)?;
        by_tls.verify_intact(writer)
    });
    Ok(done?.with_note("cert-manager 1.21's own controllers, from its Go module".to_owned()))
}
