//! Stands in for the operator: writes a cluster's state and plan files, and runs `rqlited prepare` with them.
use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{binary, process::Node};
use node_contract::{PLAN_FILE, PlanFile, STATE_FILE, StateFile};
use serde_json::{Value, json};

/// The operator's state and plan files for one cluster.
pub(crate) struct Operator {
    pub(crate) dir: PathBuf,
    cluster_id: String,
}

impl Operator {
    pub(crate) fn new(node: &Node, cluster_id: &str) -> Self {
        Self {
            dir: node.scratch().to_owned(),
            cluster_id: cluster_id.to_owned(),
        }
    }

    pub(crate) fn state(&self, phase: &str, lineage: &Value, members: &[&str]) -> Result<()> {
        let state = StateFile {
            cluster_id: self.cluster_id.clone(),
            lineage: serde_json::from_value(lineage.clone())?,
            phase: serde_json::from_value(json!(phase))?,
            members: members.iter().map(ToString::to_string).collect(),
            expect: i32::try_from(members.len())?,
            park: BTreeMap::new(),
            parked: None,
        };
        fs::write(self.dir.join(STATE_FILE), serde_json::to_string(&state)?)
            .context("write the state")
    }

    pub(crate) fn plan(&self, plan: &PlanFile) -> Result<()> {
        fs::write(self.dir.join(PLAN_FILE), serde_json::to_string(plan)?).context("write the plan")
    }

    pub(crate) fn command(&self, node: &Node) -> Result<Command> {
        let mut command = Command::new(binary::rqlited()?);
        let file = |name: &str| self.dir.join(name);
        command
            .args(["prepare", "--name", &node.name])
            .args(["--state".into(), file(STATE_FILE)])
            .args(["--plan".into(), file(PLAN_FILE)])
            .args(["--report".into(), file("report.json")])
            .arg(&node.data);
        Ok(command)
    }

    /// Runs `prepare`; returns exit code and report. The report file must have the same content.
    pub(crate) fn prepare(&self, node: &Node) -> Result<(i32, Value)> {
        let output = self.command(node)?.output()?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("prepare: {output:?}"))?;
        let filed: Value = serde_json::from_slice(&fs::read(self.dir.join("report.json"))?)?;
        ensure!(filed == report, "{filed:#} is not {report:#}");
        Ok((output.status.code().context("killed")?, report))
    }

    pub(crate) fn expect(
        &self,
        node: &Node,
        code: i32,
        state: &str,
        action: &str,
    ) -> Result<Value> {
        let (found, report) = self.prepare(node)?;
        ensure!(
            found == code && report["state"] == state && report["action"] == action,
            "node {}: exit code {found}, expected {code} {state} {action}: {report:#}",
            node.name
        );
        Ok(report)
    }
}

pub(crate) fn lineage(id: &str, epoch: u64) -> Value {
    json!({"id": id, "epoch": epoch})
}
