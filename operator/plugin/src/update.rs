//! `rollback`, `approve` and `update-image`: requests to the operator, by annotations.
use std::process::ExitCode;

use anyhow::{Context, bail};
use kube::api::{Patch, PatchParams};
use operator_api::{
    RqliteClusterStatus, names,
    status::{ProposedPlan, Target as ClusterTarget, UPDATE_AVAILABLE},
};

use crate::target::Target;

/// Field manager of this program's changes.
const FIELD_MANAGER: &str = "kubectl-rqlite";

async fn annotate(target: &Target, key: &str, value: &str) -> anyhow::Result<()> {
    let patch = serde_json::json!({"metadata": {"annotations": {key: value}}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patched = target
        .clusters()
        .patch(&target.name, &params, &Patch::Merge(&patch))
        .await;
    patched
        .map(drop)
        .with_context(|| format!("writing the annotation to {}", target.name))
}

async fn status(target: &Target) -> anyhow::Result<RqliteClusterStatus> {
    Ok(target.cluster().await?.status.unwrap_or_default())
}

/// Requests a rollback.
pub(crate) async fn rollback(target: &Target) -> anyhow::Result<ExitCode> {
    let status = status(target).await?;
    let good = earlier(&status).with_context(|| {
        format!(
            "{} has no earlier template that is known to have worked: correct the spec",
            target.name
        )
    })?;
    // Names what is given up, so that the same word is of no effect later.
    let now = status
        .target
        .as_ref()
        .map_or("", |t| t.template_hash.as_str());
    let word = format!("{now}-{}", status.observed_generation.unwrap_or(0));
    annotate(target, names::ROLLBACK_ANNOTATION, &word).await?;
    println!(
        "{} returns to the template with {}, one pod at a time, the leader last. The spec is as it was: correct it, or set it back. Watch: kubectl rqlite status {} -n {}",
        target.name, good.image, target.name, target.namespace
    );
    Ok(ExitCode::SUCCESS)
}

/// The target that a rollback returns to.
fn earlier(status: &RqliteClusterStatus) -> Option<&ClusterTarget> {
    let now = status.target.as_ref()?;
    let good = status.last_good_target.as_ref()?;
    (status.rolled_back.is_none()
        && good.inputs.is_some()
        && good.template_hash != now.template_hash)
        .then_some(good)
}

/// Approves the proposed plan, or shows it.
pub(crate) async fn approve(target: &Target, id: Option<&str>) -> anyhow::Result<ExitCode> {
    let status = status(target).await?;
    let Some(plan) = status.proposed_plan else {
        bail!("{} has no plan that waits for approval", target.name);
    };
    let Some(id) = id else {
        println!("{}", described(&target.name, &plan));
        return Ok(ExitCode::FAILURE);
    };
    if id != plan.id {
        bail!(
            "the plan {id} is not the proposed one, and nothing was approved. {}",
            described(&target.name, &plan)
        );
    }
    annotate(target, names::APPROVE_ANNOTATION, id).await?;
    println!("approved: {}", plan.text);
    Ok(ExitCode::SUCCESS)
}

/// A plan, and how to approve it.
pub(crate) fn described(cluster: &str, plan: &ProposedPlan) -> String {
    format!(
        "plan {}: {}. Approve it: kubectl rqlite approve {cluster} {}",
        plan.id, plan.text, plan.id
    )
}

/// Moves to the operator's default image.
pub(crate) async fn move_image(target: &Target) -> anyhow::Result<ExitCode> {
    let status = status(target).await?;
    let said = status.condition(UPDATE_AVAILABLE);
    let said = said.map_or("the operator has not reported its default image", |c| {
        c.message.as_str()
    });
    if !status.is(UPDATE_AVAILABLE) {
        bail!("no update is available: {said}");
    }
    let Some(image) = offered(said) else {
        bail!("{said}");
    };
    annotate(target, names::UPDATE_IMAGE_ANNOTATION, image).await?;
    println!(
        "{} moves to {image}, one pod at a time, the leader last. Watch: kubectl rqlite status {} -n {}",
        target.name, target.name, target.namespace
    );
    Ok(ExitCode::SUCCESS)
}

/// The image that the condition's message says to set.
fn offered(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("rqlite.dev/update-image=")?;
    rest.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_on_offer() {
        let text = "image r:2 is the operator's default; the cluster keeps r:1. To move, run kubectl annotate rqlitecluster demo rqlite.dev/update-image=r:2 --overwrite, or set spec.image";
        assert_eq!(offered(text), Some("r:2"));
        assert_eq!(offered("To move, set spec.image"), None);
    }

    #[test]
    fn only_another_template_is_returned_to() {
        let target = |hash: &str| ClusterTarget {
            template_hash: hash.to_owned(),
            inputs: Some(operator_api::status::TemplateInputs::default()),
            ..ClusterTarget::default()
        };
        let mut status = RqliteClusterStatus {
            target: Some(target("b")),
            ..RqliteClusterStatus::default()
        };
        assert_eq!(earlier(&status), None);
        status.last_good_target = Some(target("a"));
        assert_eq!(
            earlier(&status).map(|t| t.template_hash.as_str()),
            Some("a")
        );
        status.target = Some(target("a"));
        assert_eq!(earlier(&status), None);
    }
}
