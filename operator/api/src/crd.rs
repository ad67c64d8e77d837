//! The custom resource definitions in the form in which they are installed.
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{RqliteBackup, RqliteCluster, RqliteRecovery, RqliteRestore, RqliteScheduledBackup};

/// Fields that hold Kubernetes' own types. Their nested descriptions are Kubernetes' documentation and would
/// triple the size of the definition; a client-side `kubectl apply` copies all of it into an annotation of at
/// most 256 KiB.
const FOREIGN_TYPES: &[&str] = &[
    "affinity",
    "clientFrom",
    "dnsConfig",
    "envFrom",
    "hostAliases",
    "initContainers",
    "monitoringFrom",
    "resources",
    "seLinuxOptions",
    "sidecars",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
];

/// All definitions, in installation order.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        RqliteCluster::crd(),
        RqliteRecovery::crd(),
        RqliteBackup::crd(),
        RqliteScheduledBackup::crd(),
        RqliteRestore::crd(),
    ];
    for crd in &mut all {
        for version in &mut crd.spec.versions {
            if let Some(schema) = version
                .schema
                .as_mut()
                .and_then(|s| s.open_api_v3_schema.as_mut())
            {
                shorten(schema);
            }
        }
    }
    all
}

/// Drops the descriptions below fields of Kubernetes' own types.
fn shorten(schema: &mut JSONSchemaProps) {
    for (name, property) in schema.properties.iter_mut().flatten() {
        if FOREIGN_TYPES.contains(&name.as_str()) {
            let own = property.description.take();
            strip(property);
            property.description = own;
        } else {
            shorten(property);
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        shorten(items);
    }
}

fn strip(schema: &mut JSONSchemaProps) {
    schema.description = None;
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        strip(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        strip(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(more)) = &mut schema.additional_properties {
        strip(more);
    }
}

#[cfg(test)]
mod tests;
