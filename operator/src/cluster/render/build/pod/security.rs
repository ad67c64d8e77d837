//! Who the processes run as, and the restricted Pod Security standard.
use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SeccompProfile, SecurityContext,
};
use operator_api::cluster::{Identity, PodSecurity};

use crate::cluster::facts::view::View;

/// User and group of the image.
const USER_ID: i64 = 1000;

/// Without user and groups where the platform assigns them: OpenShift's restricted-v2 refuses any that are
/// not of the namespace's range.
pub(super) fn of_pod(view: &View<'_>) -> PodSecurityContext {
    let user: PodSecurity = view.spec.pod_security.clone().unwrap_or_default();
    let named =
        user.run_as_user.is_some() || user.run_as_group.is_some() || user.fs_group.is_some();
    let default = if view.seen.operator.platform.assigns_users && !named {
        Identity::Platform
    } else {
        Identity::Fixed
    };
    let fixed = user.identity.unwrap_or(default) == Identity::Fixed;
    let id = |given: Option<i64>| fixed.then(|| given.unwrap_or(USER_ID));
    let groups = user.supplemental_groups;
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: id(user.run_as_user),
        run_as_group: id(user.run_as_group),
        fs_group: id(user.fs_group),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        supplemental_groups: (!groups.is_empty()).then_some(groups),
        se_linux_options: user.se_linux_options,
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// What the restricted standard asks of every container.
pub(super) fn of_container() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}
