//! Pods that have no business with a cluster: in its namespace and in another one, with no certificate or one
//! of an authority of their own, with no password or a wrong one.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e_kubernetes::{
    command::until,
    forward::Login,
    namespace::{LIMIT, Namespace},
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, NAME, open, spec},
    fixture::Fixture,
    report::Measurements,
    security::is_refused,
};

/// How long an intruder tries.
const TRIES: Duration = Duration::from_secs(20);
/// Secret with a certificate that an intruder has made, for all the names of the cluster's.
const FORGED: &str = "forged";

/// Requests that each need a permission: path, and body of a POST.
const REQUESTS: &[(&str, Option<&str>)] = &[
    ("/db/query?q=SELECT%201", None),
    ("/db/execute", Some(r#"["DROP TABLE numbered"]"#)),
    ("/db/request", Some(r#"["DROP TABLE numbered"]"#)),
    ("/db/load", Some("DROP TABLE numbered")),
    ("/db/backup", None),
    ("/boot", Some("x")),
    ("/status", None),
    ("/nodes", None),
    ("/leader", Some(r#"{"id":"demo-1"}"#)),
    ("/snapshot", Some("")),
];

/// A certificate with the names of the cluster's nodes, of an authority that calls itself as theirs may.
fn forged(namespace: &str) -> Result<Value> {
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = authority.self_signed(&key)?.pem();
    let domain = format!("{NAME}-headless.{namespace}.svc.cluster.local");
    let names = [
        domain.clone(),
        format!("*.{domain}"),
        "localhost".to_owned(),
    ];
    let mut leaf = CertificateParams::new(names)?;
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let own = KeyPair::generate()?;
    let leaf = leaf.signed_by(&own, &Issuer::new(authority, key))?.pem();
    let text = |text: &str| STANDARD.encode(text);
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": FORGED}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": text(&leaf), "tls.key": text(&own.serialize_pem()), "ca.crt": text(&certificate)},
    }))
}

/// A node that wants to join as a voter.
fn rogue(cluster: &Cluster<'_>, from: &Namespace, name: &str, flags: &[&str]) -> Result<()> {
    let image = cluster.voter(0)?.image;
    let join = format!(
        "{NAME}-headless.{}.svc.cluster.local:4002",
        cluster.namespace.name
    );
    let mut args = vec![
        format!("-node-id={name}"),
        "-http-addr=0.0.0.0:4001".to_owned(),
        "-http-adv-addr=$(POD_IP):4001".to_owned(),
        "-raft-addr=0.0.0.0:4002".to_owned(),
        "-raft-adv-addr=$(POD_IP):4002".to_owned(),
        format!("-join={join}"),
        "-join-attempts=1000".to_owned(),
        "-join-interval=1s".to_owned(),
    ];
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    args.push("/data/node".to_owned());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "rqlited", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["rqlited"], "args": args,
                "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"},
                    {"name": "tls", "mountPath": "/tls", "readOnly": true}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}},
                {"name": "tls", "secret": {"secretName": FORGED, "optional": true}}],
        },
    });
    from.apply(&pod.to_string())
}

/// It has tried, and is no member, neither as a voter nor otherwise; its own database is empty.
fn stays_outside(cluster: &Cluster<'_>, from: &Namespace, name: &str) -> Result<()> {
    until(&format!("{name} to have tried"), LIMIT, || {
        let log = from.run(&["logs", name])?;
        let lines = log.lines().filter(|line| line.contains("join"));
        ensure!(lines.count() >= 2, "{log}");
        Ok(())
    })?;
    let start = std::time::Instant::now();
    while start.elapsed() < TRIES {
        let members = cluster.configuration()?;
        ensure!(
            !members.contains_key(name),
            "{name} is a member: {members:?}"
        );
        ensure!(members.len() == 3, "{members:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    from.run(&["delete", "pod", name, "--now"]).map(drop)
}

/// The shell in the intruder's pod, at the cluster's Service.
fn asks(cluster: &Cluster<'_>, from: &Namespace, pod: &str, more: &[&str]) -> Result<()> {
    let host = format!("{NAME}-client.{}.svc.cluster.local", cluster.namespace.name);
    for line in [
        "SELECT COUNT(*) FROM numbered",
        ".remove demo-1",
        ".stepdown",
    ] {
        let program = ["rqlite", "-H", &host, "-e", line];
        let said = match from.in_pod(pod, &[&program[..], more].concat()) {
            Ok(said) => said,
            Err(error) => format!("{error:#}"),
        };
        let said = said.to_lowercase();
        ensure!(
            said.contains("401") || said.contains("unauthorized"),
            "{line}: {said}"
        );
    }
    Ok(())
}

/// Everything that needs a permission is refused without a password, and with a wrong one.
fn requests_are_refused(cluster: &Cluster<'_>) -> Result<()> {
    let leader = cluster.leader()?;
    let guesses = [
        None,
        Some(("app".to_owned(), "wrong".to_owned())),
        Some(("rqlite-operator".to_owned(), String::new())),
        Some(("rqlite-node".to_owned(), "rqlite-node".to_owned())),
    ];
    for user in guesses {
        let login = Login { user, tls: None };
        for (path, body) in REQUESTS {
            let said = cluster.namespace.ask(&leader, &login, path, *body);
            let error = said
                .err()
                .with_context(|| format!("{path} was answered to {login:?}"))?;
            let text = format!("{error:#}");
            ensure!(text.contains("401"), "{login:?} {path}: {text}");
        }
    }
    Ok(())
}

/// N3: intruders get nowhere, by any port.
pub(crate) fn get_nowhere(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("intruders", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let leader = cluster.leader()?;
        is_refused(cluster, &leader, "/db/query?q=SELECT%201", "401")?;
        requests_are_refused(cluster)?;
        let with_forged = [
            "-node-cert=/tls/tls.crt",
            "-node-key=/tls/tls.key",
            "-node-ca-cert=/tls/ca.crt",
            "-node-no-verify=true",
        ];
        let home = &cluster.namespace.name;
        let attempt = |from: &Namespace, place: &str| -> Result<()> {
            from.apply(&forged(home)?.to_string())?;
            let plain = format!("plain-{place}");
            rogue(cluster, from, &plain, &[])?;
            until("the intruder's pod", LIMIT, || {
                let said = asks(cluster, from, &plain, &[]);
                said.and_then(|()| asks(cluster, from, &plain, &["-u", "app:wrong"]))
            })?;
            stays_outside(cluster, from, &plain)?;
            let forged = format!("forged-{place}");
            rogue(cluster, from, &forged, &with_forged)?;
            stays_outside(cluster, from, &forged)
        };
        attempt(cluster.namespace, "inside")?;
        fixture.within("intruder", |other| attempt(other, "outside"))?;
        cluster.verify_intact(writer)
    })?;
    // Without TLS the join password is what keeps others out.
    let mut more = open();
    more["authentication"] = json!({"mode": "Required"});
    fixture.cluster("join-password", spec(3, more), |cluster| {
        let writer = cluster.writer()?;
        rogue(cluster, cluster.namespace, "plain", &[])?;
        stays_outside(cluster, cluster.namespace, "plain")?;
        cluster.verify_intact(writer)
    })
}
