//! Certificates of cert-manager: requested by its Certificate objects, for which it creates Secrets. Only a
//! few fields of its types are needed, so they are not typed.
use std::collections::BTreeMap;

use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use operator_api::{RqliteCluster, names};
use serde_json::{Value, json};

use crate::{
    cluster::{
        deciders::certificates::Request,
        facts::ownership::{is_ours, owner_reference},
    },
    error::Error,
};

fn api(client: &Client, cluster: &RqliteCluster) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate");
    let kind = ApiResource::from_gvk(&kind);
    let namespace = cluster.namespace().unwrap_or_default();
    Api::namespaced_with(client.clone(), &namespace, &kind)
}

/// Names of the Certificates that the spec asks for.
fn asked_for(cluster: &RqliteCluster) -> Vec<String> {
    let name = cluster.name_any();
    let tls = cluster.spec.tls.clone().unwrap_or_default();
    let nodes = tls.nodes.and_then(|nodes| nodes.certificate);
    let clients = tls.clients.and_then(|clients| clients.certificate);
    let sides = [
        (nodes, names::node_tls_secret(&name)),
        (clients, names::http_tls_secret(&name)),
    ];
    let asked = sides
        .into_iter()
        .filter(|(source, _)| source.as_ref().is_some_and(|s| s.issuer_ref.is_some()));
    asked.map(|(_, name)| name).collect()
}

/// What cert-manager reports about each certificate of a cluster that it has not issued.
pub async fn observe(client: &Client, cluster: &RqliteCluster) -> BTreeMap<String, String> {
    let names = asked_for(cluster);
    if names.is_empty() {
        return BTreeMap::new();
    }
    let api = api(client, cluster);
    let mut all = BTreeMap::new();
    for name in &names {
        let text = match api.get(name).await {
            Ok(found) => pending(&found),
            Err(error) => Some(explain(&error, name)),
        };
        all.extend(text.map(|text| (name.clone(), text)));
    }
    all
}

/// Why there is no Certificate.
fn explain(error: &kube::Error, name: &str) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 && status.message.contains(name) => {
            format!("cert-manager has not been asked for the Certificate {name} yet")
        }
        kube::Error::Api(status) if status.code == 404 => {
            "cert-manager is not installed (the API server knows no Certificate of cert-manager.io/v1): install it, or remove issuerRef for the cluster's own authority".to_owned()
        }
        kube::Error::Api(status) if status.code == 403 => {
            "the operator may not use cert-manager's Certificates: install its chart with rbac.certManager=true".to_owned()
        }
        other => format!("the Certificate {name} cannot be read: {other}"),
    }
}

/// What a Certificate waits for; None once it is issued.
fn pending(found: &DynamicObject) -> Option<String> {
    let name = found.name_any();
    let conditions = found.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    match ready {
        Some(ready) if ready["status"] == "True" => None,
        Some(ready) => {
            let text = ready["message"].as_str().unwrap_or("no reason given");
            Some(format!(
                "cert-manager has not issued the Certificate {name}: {text}"
            ))
        }
        None => Some(format!(
            "cert-manager does not answer for the Certificate {name}: is its controller running, and does the issuer exist? See kubectl describe certificate {name}"
        )),
    }
}

/// Creates or corrects the requested Certificates. One of the same name that is not the cluster's is left
/// unchanged.
///
/// # Errors
/// The first refusal. A missing cert-manager is no error; the condition reports it.
pub async fn apply(
    client: &Client,
    cluster: &RqliteCluster,
    requests: &[Request],
) -> Result<(), Error> {
    let api = api(client, cluster);
    for request in requests {
        let name = &request.name;
        let wanted = spec(request);
        let there = match api.get_opt(name).await {
            Ok(there) => there,
            Err(kube::Error::Api(status)) if status.code == 403 => continue,
            Err(error) => {
                return Err(Error::kubernetes(format!("reading Certificate {name}"))(
                    error,
                ));
            }
        };
        if let Some(there) = &there {
            let uid = cluster.uid().unwrap_or_default();
            if !is_ours(&there.metadata, &uid) {
                tracing::warn!("Certificate {name} is not this cluster's: it is left as it is");
                continue;
            }
            if contains(&there.data["spec"], &wanted) {
                continue;
            }
        }
        let body = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
            "metadata": {"name": name, "ownerReferences": [owner_reference(cluster)],
                "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY, names::CLUSTER_LABEL: cluster.name_any()}},
            "spec": wanted,
        });
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        match api.patch(name, &params, &Patch::Apply(body)).await {
            Ok(_) => tracing::info!("asks cert-manager for the Certificate {name}"),
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {}
            Err(error) => {
                return Err(Error::kubernetes(format!("applying Certificate {name}"))(
                    error,
                ));
            }
        }
    }
    Ok(())
}

/// Deletes the cluster's own Certificates that are no longer needed.
///
/// # Errors
/// The first refusal.
pub async fn delete(
    client: &Client,
    cluster: &RqliteCluster,
    unwanted: &[String],
) -> Result<(), Error> {
    let api = api(client, cluster);
    for name in unwanted {
        let Ok(Some(there)) = api.get_opt(name).await else {
            continue;
        };
        if !is_ours(&there.metadata, &cluster.uid().unwrap_or_default()) {
            continue;
        }
        let params = DeleteParams {
            preconditions: Some(kube::api::Preconditions {
                uid: there.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let deleted = api.delete(name, &params).await;
        deleted.map_err(Error::kubernetes(format!("deleting Certificate {name}")))?;
    }
    Ok(())
}

fn spec(request: &Request) -> Value {
    let (addresses, names): (Vec<_>, Vec<_>) = request
        .names
        .iter()
        .partition(|name| name.parse::<std::net::IpAddr>().is_ok());
    let mut spec = json!({
        "secretName": request.secret,
        "commonName": request.common_name,
        "dnsNames": names,
        "usages": ["digital signature", "server auth", "client auth"],
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "issuerRef": {"name": request.issuer.name,
            "kind": request.issuer.kind.as_deref().unwrap_or("Issuer"),
            "group": request.issuer.group.as_deref().unwrap_or("cert-manager.io")},
    });
    if !addresses.is_empty() {
        spec["ipAddresses"] = json!(addresses);
    }
    spec
}

/// Has an object all the fields of another, with the same values? Others may be defaults.
fn contains(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| there.get(key).is_some_and(|there| contains(there, value))),
        _ => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use operator_api::cluster::IssuerRef;

    use super::*;

    #[test]
    fn what_cert_manager_waits_for_is_said() {
        let object = |status: Value| -> DynamicObject {
            serde_json::from_value(
                json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
                "metadata": {"name": "c"}, "spec": {}, "status": status}),
            )
            .unwrap()
        };
        let ready = |status: &str, message: &str| {
            object(json!({"conditions": [{"type": "Issuing", "status": "True"},
                {"type": "Ready", "status": status, "message": message}]}))
        };
        assert_eq!(pending(&ready("True", "up to date")), None);
        let waits = pending(&ready("False", "no such issuer")).unwrap();
        assert!(waits.contains("no such issuer"), "{waits}");
        let nobody = pending(&object(json!({}))).unwrap();
        assert!(nobody.contains("is its controller running"), "{nobody}");
    }

    #[test]
    fn a_request_is_what_cert_manager_reads() {
        let request = Request {
            name: "demo-rqlite-node-tls".to_owned(),
            secret: "demo-rqlite-node-tls-issued".to_owned(),
            issuer: IssuerRef {
                name: "ca".to_owned(),
                kind: None,
                group: None,
            },
            common_name: "rqlite-x".to_owned(),
            names: vec!["*.a.b".to_owned(), "::1".to_owned()],
        };
        let spec = spec(&request);
        assert_eq!(spec["dnsNames"], json!(["*.a.b"]));
        assert_eq!(spec["ipAddresses"], json!(["::1"]));
        assert_eq!(spec["issuerRef"]["kind"], "Issuer");
        let mut there = spec.clone();
        there["revisionHistoryLimit"] = json!(1);
        assert!(contains(&there, &spec));
        there["commonName"] = json!("other");
        assert!(!contains(&there, &spec));
    }
}
