//! `restart`, `promote` and `sql`.
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use operator_api::names;

use crate::{node, target::Target};

/// Field manager of this program's changes.
const FIELD_MANAGER: &str = "kubectl-rqlite";

/// Requests a restart of all nodes from the operator, by an annotation.
pub(crate) async fn restart(target: &Target) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now().to_string();
    let patch = serde_json::json!({
        "metadata": {"annotations": {names::RESTARTED_AT_ANNOTATION: now}}
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let clusters = target.clusters();
    clusters
        .patch(&target.name, &params, &Patch::Merge(&patch))
        .await
        .with_context(|| format!("writing the annotation to {}", target.name))?;
    println!(
        "{} restarts one node at a time. Watch: kubectl rqlite status {} -n {}",
        target.name, target.name, target.namespace
    );
    Ok(ExitCode::SUCCESS)
}

/// Transfers leadership to a pod.
pub(crate) async fn promote(target: &Target, pod: &str) -> anyhow::Result<ExitCode> {
    let leader = target.leader().await?;
    if leader == pod {
        println!("{pod} is already the leader");
        return Ok(ExitCode::SUCCESS);
    }
    let status = target.cluster().await?.status.unwrap_or_default();
    let voters: Vec<&str> = status
        .members
        .iter()
        .filter(|m| m.role == operator_api::status::Role::Voter)
        .map(|m| m.name.as_str())
        .collect();
    if !voters.contains(&pod) {
        bail!(
            "{pod} is not a voter that could lead: choose one of {}",
            voters.join(", ")
        );
    }
    node::transfer_leadership(target, &leader, pod).await?;
    println!("{pod} is the leader");
    Ok(ExitCode::SUCCESS)
}

/// Opens the shell in the leader's pod.
pub(crate) async fn sql(target: &Target, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let leader = target.leader().await?;
    let kubectl_arguments = exec_arguments(
        target.context.as_deref(),
        &target.namespace,
        &leader,
        arguments,
    );
    let ended = Command::new("kubectl")
        .args(&kubectl_arguments)
        .status()
        .context("starting kubectl: is it on the PATH?")?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn exec_arguments(
    context: Option<&str>,
    namespace: &str,
    pod: &str,
    arguments: &[String],
) -> Vec<String> {
    let mut kubectl_arguments: Vec<String> = Vec::new();
    kubectl_arguments.extend(context.map(|context| format!("--context={context}")));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let stdin = if terminal { "-it" } else { "-i" };
    let fixed = [
        "exec", stdin, "-n", namespace, pod, "-c", "rqlited", "--", "rqlite",
    ];
    kubectl_arguments.extend(fixed.map(str::to_owned));
    kubectl_arguments.extend(arguments.iter().cloned());
    kubectl_arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_runs_in_the_leaders_pod() {
        let arguments = ["-f".to_owned(), "json".to_owned()];
        let kubectl_arguments =
            exec_arguments(Some("prod"), "shop", "demo-1", &arguments).join(" ");
        assert!(
            kubectl_arguments.starts_with("--context=prod exec -i"),
            "{kubectl_arguments}"
        );
        assert!(
            kubectl_arguments.ends_with("-n shop demo-1 -c rqlited -- rqlite -f json"),
            "{kubectl_arguments}"
        );
    }
}
