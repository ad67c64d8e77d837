//! What pods of nodes and of Jobs have alike: who their processes run as, what the restricted Pod Security
//! standard asks, variables, resources.
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapKeySelector, EnvVar, EnvVarSource, PodSecurityContext,
        ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use operator_api::cluster::{self, Identity, PodSecurity};

/// User and group of the image.
const USER_ID: i64 = 1000;

/// Without user and groups where the platform assigns them: OpenShift's restricted-v2 refuses any that are
/// not of the namespace's range.
pub fn of_pod(user: PodSecurity, assigns_users: bool) -> PodSecurityContext {
    let named =
        user.run_as_user.is_some() || user.run_as_group.is_some() || user.fs_group.is_some();
    let default = if assigns_users && !named {
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
pub fn of_container() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

/// Requests without limits: pods without any are the first to be evicted from a machine that runs short. A
/// limit would end a node whose database is larger than others.
pub fn default_resources() -> ResourceRequirements {
    let requests = [("cpu", "100m"), ("memory", "128Mi")];
    let requests = requests.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    ResourceRequirements {
        requests: Some(requests.into()),
        ..ResourceRequirements::default()
    }
}

/// Converts a variable of the spec.
pub fn env(variable: &cluster::EnvVar) -> EnvVar {
    let source = variable.value_from.as_ref().map(|source| EnvVarSource {
        secret_key_ref: source.secret_key_ref.as_ref().map(|key| SecretKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: None,
        }),
        config_map_key_ref: source
            .config_map_key_ref
            .as_ref()
            .map(|key| ConfigMapKeySelector {
                name: key.name.clone(),
                key: key.key.clone(),
                optional: None,
            }),
        ..EnvVarSource::default()
    });
    EnvVar {
        name: variable.name.clone(),
        value: variable.value.clone(),
        value_from: source,
    }
}
