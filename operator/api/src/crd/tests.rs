//! What holds for every definition: documented, bounded, one group.
use super::*;
use crate::{GROUP, VERSION};

/// Visits every property with its path. Foreign types are not entered.
fn visit(path: &str, schema: &JSONSchemaProps, see: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    see(path, schema);
    for (name, property) in schema.properties.iter().flatten() {
        if FOREIGN_TYPES.contains(&name.as_str()) {
            see(&format!("{path}.{name}"), property);
        } else {
            visit(&format!("{path}.{name}"), property, see);
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        visit(&format!("{path}[]"), items, see);
    }
}

fn roots() -> Vec<(String, JSONSchemaProps)> {
    let roots = crds().into_iter().flat_map(|crd| {
        let kind = crd.spec.names.kind.clone();
        crd.spec
            .versions
            .into_iter()
            .filter_map(|v| v.schema?.open_api_v3_schema)
            .map(move |schema| (kind.clone(), schema))
            .collect::<Vec<_>>()
    });
    roots.collect()
}

#[test]
fn one_group_one_version() {
    for crd in crds() {
        assert_eq!(crd.spec.group, GROUP);
        let versions: Vec<_> = crd.spec.versions.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(versions, [VERSION]);
        assert!(
            crd.spec.versions[0]
                .subresources
                .as_ref()
                .unwrap()
                .status
                .is_some()
        );
    }
    assert!(crate::names::FINALIZER.starts_with(GROUP));
}

#[test]
fn every_field_is_explained() {
    let mut undocumented = Vec::new();
    for (kind, root) in roots() {
        visit(&kind, &root, &mut |path, schema| {
            let is_item = path.ends_with("[]");
            if !is_item && schema.description.as_ref().is_none_or(String::is_empty) {
                undocumented.push(path.to_owned());
            }
        });
    }
    assert_eq!(undocumented, Vec::<String>::new());
}

#[test]
fn every_list_map_and_text_of_a_spec_is_bounded() {
    let mut open = Vec::new();
    for (kind, root) in roots() {
        let spec = &root.properties.as_ref().unwrap()["spec"];
        visit(&kind, spec, &mut |path, schema| {
            let kind = schema.type_.as_deref().unwrap_or_default();
            let bounded = match kind {
                "array" => schema.max_items.is_some(),
                "string" => schema.max_length.is_some() || schema.enum_.is_some(),
                "object" => {
                    schema.additional_properties.is_none() || schema.max_properties.is_some()
                }
                "integer" => schema.minimum.is_some() && schema.maximum.is_some(),
                _ => true,
            };
            if !bounded {
                open.push(path.to_owned());
            }
        });
    }
    assert_eq!(open, Vec::<String>::new());
}

#[test]
fn every_rule_says_what_to_do() {
    let mut rules = 0;
    for (kind, root) in roots() {
        visit(&kind, &root, &mut |path, schema| {
            for rule in schema.x_kubernetes_validations.iter().flatten() {
                rules += 1;
                let message = rule.message.as_deref().unwrap_or_default();
                assert!(
                    message.len() > 20,
                    "{path}: message of {} is {message:?}",
                    rule.rule
                );
            }
        });
    }
    assert!(rules >= 18, "{rules} rules");
}

/// `kubectl apply` keeps the whole object in an annotation, and an object's annotations together may have
/// 256 KiB.
#[test]
fn small_enough_for_client_side_apply() {
    for crd in crds() {
        let bytes = serde_json::to_vec(&crd).unwrap().len();
        assert!(bytes < 200 * 1024, "{}: {bytes} bytes", crd.spec.names.kind);
    }
}
