//! What a backup's pods show to nodes, and what they have of the cluster's pods.
use operator_api::{
    cluster::{ClientTls, Tls},
    status::TlsStatus,
};

use super::*;

#[test]
fn nodes_that_ask_for_a_certificate_are_shown_one() {
    let args = |asks: bool| {
        let mut world = World::new();
        let cluster = world.cluster.as_mut().unwrap();
        cluster.spec.tls = Some(Tls {
            nodes: None,
            clients: Some(ClientTls {
                require_client_certificate: asks,
                ..ClientTls::default()
            }),
        });
        let mut tls = TlsStatus::default();
        tls.clients.stage = TlsStage::Require;
        cluster.status.as_mut().unwrap().tls = Some(tls);
        world.record();
        let Step::Create(job) = world.step() else {
            panic!("{:?}", world.step());
        };
        let pod = job.spec.unwrap().template.spec.unwrap();
        let volumes = pod.volumes.unwrap().into_iter();
        let mut secrets = volumes.filter_map(|volume| volume.secret?.secret_name);
        let secret = secrets.find(|name| name == "demo-rqlite-backup-tls");
        (pod.containers[0].args.clone().unwrap().join(" "), secret)
    };
    let (asked, secret) = args(true);
    for flag in [
        "-ca-file=/etc/rqlite/backup-ca/ca.crt",
        "-cert-file=/etc/rqlite/backup-certificate/tls.crt",
        "-key-file=/etc/rqlite/backup-certificate/tls.key",
    ] {
        assert!(asked.contains(flag), "{flag}: {asked}");
    }
    assert!(secret.is_some());
    let (not_asked, secret) = args(false);
    assert!(!not_asked.contains("-cert-file"), "{not_asked}");
    assert_eq!(secret, None);
}

#[test]
fn a_file_is_deleted_with_what_the_clusters_pods_had() {
    let mut world = World::new();
    world.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    world.backup.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let spec = serde_json::json!({
        "image": {"pullSecrets": [{"name": "registry"}]},
        "scheduling": {"tolerations": [{"key": "db", "operator": "Exists"}]},
        "config": {"extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}]},
        "serviceAccountName": "cloud",
    });
    world.cluster.as_mut().unwrap().spec = serde_json::from_value(spec).unwrap();
    let begun = world.record();
    let text = serde_json::to_string(&begun).unwrap();
    let read: RqliteBackupStatus = serde_json::from_str(&text).unwrap();
    assert_eq!(read, begun, "what is recorded is read again");
    world.backup.metadata.deletion_timestamp = Some(time(5));
    let mut other = a_cluster();
    other.metadata.uid = Some("another-uid".to_owned());
    let pod = |world: &World| {
        let Step::Create(job) = world.step() else {
            panic!("{:?}", world.step());
        };
        job.spec.unwrap().template.spec.unwrap()
    };
    for cluster in [None, Some(other)] {
        world.cluster = cluster;
        let pod = pod(&world);
        let container = &pod.containers[0];
        assert_eq!(container.image.as_deref(), Some("rqlited:1"));
        assert_eq!(container.env.as_ref().unwrap()[0].name, "SSL_CERT_FILE");
        assert_eq!(pod.service_account_name.as_deref(), Some("cloud"));
        assert_eq!(pod.tolerations.unwrap().len(), 1);
        assert_eq!(pod.image_pull_secrets.unwrap()[0].name, "registry");
    }
    // One of before this was recorded.
    world.backup.status.as_mut().unwrap().pod = None;
    world.cluster = None;
    let pod = pod(&world);
    assert_eq!(pod.containers[0].image.as_deref(), Some("rqlited:default"));
}
