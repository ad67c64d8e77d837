//! Certificates of the real cert-manager for a cluster of the real operator, against a real API server
//! without machines: asked for, copied for the pods, renewed.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    cert_manager::{CertManager, ISSUERS, RENEW},
    objects::Objects,
    operator_fixture::OperatorFixture,
    tool,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);

fn secret(server: &Objects, name: &str) -> Result<Value> {
    let found = server.get(&["secret", name, "-n", "shop"])?;
    Ok(found["data"].clone())
}

fn issues_and_renews(server: &Objects, kubeconfig: &std::path::Path) -> Result<()> {
    let started = CertManager::start(kubeconfig, |args| server.run(args))?;
    let Some(_running) = started else {
        return tool::skip("cert-manager", "run e2e/tools/build cert-manager");
    };
    server.run(&["create", "namespace", "shop"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("issuers.yaml");
    std::fs::write(&file, ISSUERS)?;
    server.run(&["apply", "-n", "shop", "-f", &file.to_string_lossy()])?;
    let certificate = json!({ "issuerRef": { "name": "shop" } });
    let cluster = json!({ "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
        "metadata": { "name": "demo", "namespace": "shop" }, "spec": { "tls": {
            "nodes": { "mode": "Required", "certificate": certificate },
            "clients": { "mode": "Optional", "certificate": certificate } } } });
    server.send(&["create"], &cluster)?;
    let names = ["demo-rqlite-node-tls", "demo-rqlite-http-tls"];
    let mut first = Vec::new();
    for name in names {
        first.push(until(&format!("{name} to be issued"), LIMIT, || {
            let (made, authority) = (secret(server, name)?, secret(server, "authority")?);
            ensure!(
                made["tls.crt"].is_string() && made["tls.key"].is_string(),
                "incomplete"
            );
            ensure!(
                made["ca.crt"] == authority["ca.crt"],
                "of another authority"
            );
            Ok(made["tls.crt"].clone())
        })?);
    }
    for (name, before) in names.iter().zip(first) {
        let object = format!("certificates.cert-manager.io/{name}");
        let args = [
            "patch",
            &object,
            "-n",
            "shop",
            "--subresource=status",
            "--type=merge",
            "-p",
            RENEW,
        ];
        server.run(&args)?;
        until(&format!("{name}-issued to be renewed"), LIMIT, || {
            let after = secret(server, &format!("{name}-issued"))?["tls.crt"].clone();
            let why = || server.get(&[&object, "-n", "shop"]).unwrap_or_default()["status"].clone();
            ensure!(
                after.is_string() && after != before,
                "it is the former one: {}",
                why()
            );
            Ok(())
        })?;
        until(&format!("{name} to be renewed"), LIMIT, || {
            let after = secret(server, name)?["tls.crt"].clone();
            ensure!(after.is_string() && after != before, "it is the former one");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn certificates_of_cert_manager_reach_the_pods_secrets() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let kubeconfig = fixture.api.kubeconfig("admin");
    issues_and_renews(&fixture.server, &kubeconfig)
        .with_context(|| format!("the operator's log ends: {}", fixture.tail()))
}
