//! Turns users on or off in a running cluster, each by one rolling restart. While nodes with and without the
//! credentials file are mixed, the file permits everything to everyone.
use operator_api::status::{AuthenticationGoal, AuthenticationStage, AuthenticationStatus};

use crate::cluster::{
    action::Decision,
    facts::{
        authentication::{
            file, has_all_pods, has_none, in_pods, is_everywhere, is_known_by, is_read_by_all,
            refusals, resolved, unusable,
        },
        image::{self, Parts},
        view::View,
    },
};

/// Reason of the condition while a person has to change something first.
const REASON: &str = "AuthenticationPending";
/// Reason of the condition for a password that the spec names and that cannot be used.
const UNUSABLE: &str = "PasswordUnusable";

/// Records the next stage, if the present one is complete.
pub fn decide(view: &View<'_>) -> Decision {
    let now = resolved(view);
    if view.status.cluster_id.is_none() {
        return Decision::Continue;
    }
    let (next, text) = match (now.mode, now.stage) {
        (AuthenticationGoal::Required, AuthenticationStage::Off) => {
            let image = image::resolve(view).reference;
            if !is_known_by(Parts::of(&image).release()) {
                let text = format!(
                    "the nodes of {image} are older than users with hashed passwords: set spec.image to a newer release first"
                );
                return Decision::Blocked(REASON, text);
            }
            (
                AuthenticationStage::Open,
                "users: all pods get the credentials file, which lets everybody in until all have it",
            )
        }
        (AuthenticationGoal::Required, AuthenticationStage::Leaving) => (
            AuthenticationStage::Open,
            "users: all pods get the credentials file again",
        ),
        (AuthenticationGoal::Required, AuthenticationStage::Open) if is_rolled(view) => (
            AuthenticationStage::Closed,
            "users: all nodes have the credentials file, which now asks for a user",
        ),
        (AuthenticationGoal::Disabled, AuthenticationStage::Closed) => (
            AuthenticationStage::Open,
            "no users: the credentials file lets everybody in, before pods are restarted without it",
        ),
        (AuthenticationGoal::Disabled, AuthenticationStage::Open)
            if file(view).is_some() && is_read_by_all(view) =>
        {
            (
                AuthenticationStage::Leaving,
                "no users: all nodes let everybody in; pods are restarted without the credentials file",
            )
        }
        (AuthenticationGoal::Disabled, AuthenticationStage::Leaving) if has_none(view) => (
            AuthenticationStage::Off,
            "no users: no node has the credentials file any more",
        ),
        (AuthenticationGoal::Required, AuthenticationStage::Open) => {
            let text = "users: waiting until all nodes have the credentials file; until then everybody is let in";
            return Decision::Wait(text.to_owned());
        }
        (
            AuthenticationGoal::Disabled,
            AuthenticationStage::Open | AuthenticationStage::Leaving,
        ) => {
            let text = "no users: waiting until no node has the credentials file";
            return Decision::Wait(text.to_owned());
        }
        _ => return problem(view),
    };
    let mut status = view.status.clone();
    status.authentication = Some(AuthenticationStatus { stage: next, ..now });
    Decision::Record(Box::new(status), text.to_owned())
}

/// What a person has to correct before users can log in as the spec says.
fn problem(view: &View<'_>) -> Decision {
    let unusable = unusable(view);
    if !unusable.is_empty() {
        return Decision::Blocked(UNUSABLE, unusable.join("; "));
    }
    match refusals(view).first() {
        Some((pod, why)) => {
            let text = format!("{pod} does not take the credentials file: {why}");
            Decision::Blocked("CredentialsRefused", text)
        }
        None => Decision::Continue,
    }
}

/// Have all pods the present template, with the file, and has every node read it?
fn is_rolled(view: &View<'_>) -> bool {
    in_pods(view) && has_all_pods(view) && is_everywhere(view) && is_read_by_all(view)
}

#[cfg(test)]
mod tests;
