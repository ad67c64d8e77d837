//! Certificates of cert-manager: its own controllers (`e2e/tools/cert-manager`, from its Go module) and its own
//! definitions, as processes beside the cluster.
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{
    command::{run, until},
    namespace::LIMIT,
    tools,
};
use serde_json::json;

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
};

/// The definitions that its controllers here need.
const DEFINITIONS: [&str; 4] = [
    "certificaterequests",
    "certificates",
    "clusterissuers",
    "issuers",
];

/// An issuer that has made its own authority, as people begin with cert-manager.
const ISSUERS: &str = "
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: authority}
spec:
  isCA: true
  commonName: shop
  secretName: authority
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: self, kind: Issuer}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: shop}
spec: {ca: {secretName: authority}}
";

/// cert-manager until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Folder of the definitions in the pinned module.
fn definitions() -> Result<PathBuf> {
    let pins = e2e_operator::root().join("e2e/tools/cert-manager");
    let module = "github.com/cert-manager/cert-manager";
    let mut list = Command::new("go");
    list.current_dir(pins)
        .args(["list", "-m", "-f", "{{.Dir}}", module]);
    Ok(Path::new(run(&mut list)?.trim()).join("deploy/crds"))
}

fn start(fixture: &Fixture) -> Result<Running> {
    let folder = definitions()?;
    for name in DEFINITIONS {
        let file = folder.join(format!("cert-manager.io_{name}.yaml"));
        let file = file.to_string_lossy();
        fixture
            .kubectl
            .run(&["apply", "--server-side", "-f", &file])?;
        let crd = format!("crd/{name}.cert-manager.io");
        let wait = ["wait", "--for=condition=Established", &crd, "--timeout=60s"];
        fixture.kubectl.run(&wait)?;
    }
    let program = tools::folder("cert-manager")?.join("cert-manager");
    let mut command = Command::new(program);
    command.arg("-kubeconfig").arg(fixture.kubeconfig());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Running(command.spawn().context("start cert-manager")?))
}

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
    let _running = start(fixture)?;
    fixture.upgrade(&["rbac.certManager=true"])?;
    fixture.await_operator()?;
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
            // As `cmctl renew` does.
            let name = format!("{NAME}-rqlite-{end}");
            let issuing = json!({"status": {"conditions": [{"type": "Issuing", "status": "True",
                "reason": "ManuallyTriggered", "message": "renewed by a test"}]}});
            let patch = issuing.to_string();
            let args = [
                "patch",
                "certificates.cert-manager.io",
                &name,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
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
    fixture.upgrade(&["rbac.certManager=false"])?;
    fixture.await_operator()?;
    Ok(done?.with_note("cert-manager 1.21's own controllers, from its Go module".to_owned()))
}
