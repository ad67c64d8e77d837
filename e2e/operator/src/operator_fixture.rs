//! The operator on a real API server without machines: the objects of `manifests/install.yaml`, Kubernetes'
//! controllers, and the operator as a process with its own ServiceAccount's permissions.
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    api_server::ApiServer, fleet::operator::Operator, generated, objects::Objects, product, root,
};

/// The operator's ServiceAccount in `manifests/install.yaml`.
pub const ACCOUNT: &str = "rqlite-operator";

/// Lines of the operator's log that a failure shows.
const TAIL_LINES: usize = 40;

/// An API server with an operator.
#[derive(Debug)]
pub struct OperatorFixture {
    /// The operator; declared first, so that it stops before the API server.
    pub operator: Operator,
    /// The API server.
    pub api: ApiServer,
    /// The API server, accessed as administrator.
    pub server: Objects,
    log: PathBuf,
    program: PathBuf,
    _folder: TempDir,
}

impl OperatorFixture {
    /// Starts everything; `None` if the API server's programs have not been built.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start() -> Result<Option<Self>> {
        let program = product::built("rqlite-operator")?;
        let Some(mut api) = ApiServer::start()? else {
            return Ok(None);
        };
        api.start_controllers()?;
        let server = api.objects()?;
        install(&server)?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let log = folder.path().join("operator.log");
        let kubeconfig = api.account_kubeconfig(generated::NAMESPACE, ACCOUNT)?;
        let operator = Operator::start(&program, &kubeconfig, generated::NAMESPACE, &log)?;
        Ok(Some(Self {
            operator,
            api,
            server,
            log,
            program,
            _folder: folder,
        }))
    }

    /// Starts a new operator after the previous one has exited.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart_operator(&mut self) -> Result<()> {
        let kubeconfig = self.api.kubeconfig(ACCOUNT);
        self.operator =
            Operator::start(&self.program, &kubeconfig, generated::NAMESPACE, &self.log)?;
        Ok(())
    }

    /// The operator's whole log.
    ///
    /// # Errors
    /// If there is no log.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("the operator's log")
    }

    /// The end of the log, for a failed test's message.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.log().unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Installs all objects of `manifests/install.yaml`. Its Deployment creates no pods, because its controller
/// does not run here.
///
/// # Errors
/// If the API server rejects one.
pub fn install(server: &Objects) -> Result<()> {
    let manifest = root().join("manifests/install.yaml").display().to_string();
    server.run(&["apply", "--server-side", "-f", &manifest])?;
    server.definitions_served()
}

/// A condition of an object; null if it does not exist.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array().cloned();
    let found = all.into_iter().flatten().find(|c| c["type"] == kind);
    found.unwrap_or_default()
}

/// Reasons and notes of the events about an RqliteCluster.
///
/// # Errors
/// If they cannot be read.
pub fn events(server: &Objects, namespace: &str, cluster: &str) -> Result<Vec<(String, String)>> {
    let field = format!("--field-selector=regarding.name={cluster},regarding.kind=RqliteCluster");
    let list = server.get(&["events.events.k8s.io", "-n", namespace, &field])?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(items
        .iter()
        .map(|event| (text(&event["reason"]), text(&event["note"])))
        .collect())
}
