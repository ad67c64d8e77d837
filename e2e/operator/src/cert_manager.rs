//! cert-manager's own controllers (`e2e/tools/cert-manager`, from its Go module) and its own
//! definitions, as a process beside the cluster.
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use e2e_kubernetes::command::{run, until};

use crate::{root, tool};

/// Limit for a definition to be established.
const LIMIT: Duration = Duration::from_secs(60);

/// The definitions that its controllers here need.
const DEFINITIONS: [&str; 4] = [
    "certificaterequests",
    "certificates",
    "clusterissuers",
    "issuers",
];

/// An issuer `shop` that has made its own authority (Secret `authority`), as people begin with cert-manager.
pub const ISSUERS: &str = "
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

/// A patch of a Certificate's status by which cert-manager issues it again, as `cmctl renew` does.
pub const RENEW: &str = r#"{"status":{"conditions":[{"type":"Issuing","status":"True","reason":"ManuallyTriggered","message":"renewed by a test"}]}}"#;

/// cert-manager until it is dropped.
#[derive(Debug)]
pub struct CertManager(Child);

impl Drop for CertManager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl CertManager {
    /// Creates the definitions with kubectl and starts the controllers; None if they have not been built.
    ///
    /// # Errors
    /// If Go does not have the module, or the API server refuses a definition.
    pub fn start(
        kubeconfig: &Path,
        kubectl: impl Fn(&[&str]) -> Result<String>,
    ) -> Result<Option<Self>> {
        let Some(programs) = tool::built("cert-manager") else {
            return Ok(None);
        };
        let folder = definitions()?;
        for name in DEFINITIONS {
            let file = folder.join(format!("cert-manager.io_{name}.yaml"));
            kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()])?;
            let crd = format!("crd/{name}.cert-manager.io");
            let established = "--for=condition=Established";
            // `kubectl wait` fails on a definition that has no conditions yet.
            until(&format!("{crd} to be established"), LIMIT, || {
                kubectl(&["wait", established, &crd, "--timeout=5s"]).map(drop)
            })?;
        }
        let mut command = Command::new(programs.join("cert-manager"));
        command.arg("-kubeconfig").arg(kubeconfig);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn().context("start cert-manager")?;
        Ok(Some(Self(started)))
    }
}

/// Folder of the definitions in the pinned module.
fn definitions() -> Result<PathBuf> {
    let module = "github.com/cert-manager/cert-manager";
    let mut list = Command::new("go");
    list.current_dir(root().join("e2e/tools/cert-manager"))
        .args(["list", "-m", "-f", "{{.Dir}}", module]);
    Ok(Path::new(run(&mut list)?.trim()).join("deploy/crds"))
}
