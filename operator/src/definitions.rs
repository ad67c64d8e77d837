//! The custom resource definitions as YAML, for `rqlite-operator crd` and the files in `crds/`.
use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::yaml;

/// The command that regenerates `crds/`.
pub const REFRESH: &str = "cargo run -p rqlite-operator -- crd --directory crds";

/// File name and text of every definition.
///
/// # Errors
/// None in practice: every definition can be serialized as YAML.
pub fn files() -> anyhow::Result<Vec<(String, String)>> {
    operator_api::crds().iter().map(file).collect()
}

fn file(crd: &CustomResourceDefinition) -> anyhow::Result<(String, String)> {
    let name = format!("{}.yaml", crd.spec.names.plural);
    let yaml = yaml::write(crd).with_context(|| format!("writing {name}"))?;
    let text = format!(
        "# Generated from the types in operator/api; do not edit. To refresh: {REFRESH}\n{yaml}"
    );
    Ok((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_definitions_are_fresh() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
        let files = files().unwrap();
        for (name, text) in &files {
            let path = format!("{directory}/{name}");
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                there == *text,
                "crds/{name} is stale; refresh it with: {REFRESH}"
            );
        }
        let there = std::fs::read_dir(directory).unwrap().count();
        assert_eq!(
            there,
            files.len(),
            "crds/ holds files that nothing generates"
        );
    }
}
