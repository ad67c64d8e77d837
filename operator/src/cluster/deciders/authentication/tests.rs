//! The way to users and back, on a fixture whose nodes do what their pods say.
use operator_api::{
    cluster::{Authentication, AuthenticationMode},
    names,
    status::AuthenticationStage::{self, Closed, Leaving, Off, Open},
};

use crate::cluster::{
    facts::{
        authentication::USERS_FILE,
        observation::ProbeResult,
        secrets::{ObservedSecret, SecretBytes, SecretOwner},
    },
    fixture::Fixture,
    render::{build::Object, secrets::Recipe},
};

fn asking(mode: AuthenticationMode) -> Option<Authentication> {
    Some(Authentication {
        mode: Some(mode),
        anonymous_permissions: Vec::new(),
    })
}

fn stage(fixture: &Fixture) -> AuthenticationStage {
    fixture.status().authentication.unwrap_or_default().stage
}

/// The credentials file in the cluster's Secret.
fn give_file(fixture: &mut Fixture, text: &str) -> String {
    let bytes = SecretBytes::new(text);
    let sha256 = bytes.sha256();
    let secret = ObservedSecret {
        uid: "s".to_owned(),
        resource_version: "1".to_owned(),
        secret_type: "Opaque".to_owned(),
        owner: SecretOwner::Ours,
        immutable: false,
        deleting: false,
        labels: Default::default(),
        annotations: Default::default(),
        changed_at: None,
        data: [(USERS_FILE.to_owned(), bytes)].into(),
    };
    let name = names::users_secret("demo");
    fixture.seen.secrets.insert(name, secret);
    sha256
}

/// What this node reports of its file; None: it has none.
fn report(fixture: &mut Fixture, pod: &str, sha256: Option<&str>) {
    let Some(ProbeResult::Ok(status)) = fixture.seen.nodes.get_mut(pod) else {
        panic!("{pod} does not answer");
    };
    let credentials = &mut status.security.get_or_insert_default().credentials;
    credentials.enabled = sha256.is_some();
    credentials.file_sha256 = sha256.unwrap_or_default().to_owned();
}

fn settle(fixture: &mut Fixture) -> crate::cluster::Plan {
    for _ in 0..8 {
        fixture.reconcile();
        fixture.later(20);
    }
    fixture.reconcile()
}

/// What the planned credentials file lets everybody do; None: there is no such plan.
fn everybody(plan: &crate::cluster::Plan) -> Option<Vec<String>> {
    let mut recipes = plan.secrets.make.iter().map(|one| &one.recipe);
    recipes.find_map(|recipe| match recipe {
        Recipe::Credentials(file) => Some(file.everybody.clone()),
        _ => None,
    })
}

fn has_flag(plan: &crate::cluster::Plan) -> Option<bool> {
    let mut objects = plan.objects.iter();
    objects.find_map(|object| match object {
        Object::StatefulSet(set) => Some(serde_json::to_string(set).unwrap().contains("\"-auth=")),
        _ => None,
    })
}

#[test]
fn a_cluster_of_before_stays_open_until_its_spec_asks() {
    let mut fixture = Fixture::running(3, 0);
    let plan = settle(&mut fixture);
    assert_eq!(stage(&fixture), Off);
    assert!(plan.secrets.is_empty() && fixture.status().binding.is_none());
    assert!(
        crate::cluster::facts::secrets::names(&fixture.seen.cluster)
            .all()
            .is_empty()
    );
    fixture.seen.cluster.spec.authentication = asking(AuthenticationMode::Required);
    let plan = settle(&mut fixture);
    assert_eq!(stage(&fixture), Open);
    assert_eq!(everybody(&plan), Some(vec!["all".to_owned()]));
    assert_eq!(has_flag(&plan), Some(true));
    assert_eq!(fixture.status().binding.unwrap().name, "demo-app");
    let sha256 = give_file(&mut fixture, "open");
    report(&mut fixture, "demo-0", Some(&sha256));
    report(&mut fixture, "demo-1", Some(&sha256));
    settle(&mut fixture);
    assert_eq!(stage(&fixture), Open, "demo-2 does not ask for users yet");
    report(&mut fixture, "demo-2", Some("of an older file"));
    settle(&mut fixture);
    assert_eq!(stage(&fixture), Open, "demo-2 has another file");
    report(&mut fixture, "demo-2", Some(&sha256));
    let plan = settle(&mut fixture);
    assert_eq!((stage(&fixture), everybody(&plan)), (Closed, Some(vec![])));
    // And back.
    fixture.seen.cluster.spec.authentication = asking(AuthenticationMode::Disabled);
    let closed = give_file(&mut fixture, "closed");
    report(&mut fixture, "demo-0", Some(&closed));
    let plan = settle(&mut fixture);
    assert_eq!(stage(&fixture), Open, "not all have read the open file");
    assert_eq!(has_flag(&plan), Some(true));
    for pod in ["demo-0", "demo-1", "demo-2"] {
        report(&mut fixture, pod, Some(&closed));
    }
    let plan = settle(&mut fixture);
    assert_eq!((stage(&fixture), has_flag(&plan)), (Leaving, Some(false)));
    assert!(!plan.secrets.make.is_empty(), "pods of before mount it");
    for pod in ["demo-0", "demo-1", "demo-2"] {
        report(&mut fixture, pod, None);
    }
    let plan = settle(&mut fixture);
    let deleted = &plan.secrets.delete;
    assert_eq!(deleted.len(), 1, "the file goes: {deleted:?}");
    assert_eq!(stage(&fixture), Leaving);
    fixture.seen.secrets.clear();
    settle(&mut fixture);
    assert_eq!(stage(&fixture), Off);
    let names = crate::cluster::facts::secrets::names(&fixture.seen.cluster);
    assert!(names.all().is_empty(), "{names:?}");
    assert!(fixture.status().binding.is_none());
}

#[test]
fn an_image_that_does_not_know_users_gets_no_flags() {
    let mut fixture = Fixture::running(3, 0);
    let image = operator_api::cluster::Image {
        tag: Some("0.0.9".to_owned()),
        ..Default::default()
    };
    fixture.seen.operator.node_image = "rqlited:0.0.9".to_owned();
    fixture.seen.cluster.spec.image = Some(image);
    fixture.seen.cluster.spec.authentication = asking(AuthenticationMode::Required);
    let plan = settle(&mut fixture);
    assert_eq!(stage(&fixture), Off);
    assert!(
        plan.summary.contains("older than users"),
        "{}",
        plan.summary
    );
}

#[test]
fn a_new_cluster_asks_for_users_from_the_start() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.status = None;
    fixture.seen.state = None;
    fixture.seen.voters = None;
    fixture.seen.pods.clear();
    fixture.seen.nodes.clear();
    fixture.seen.claims.clear();
    fixture.reconcile();
    assert_eq!(stage(&fixture), Closed);
    let plan = fixture.reconcile();
    let names: Vec<_> = plan
        .secrets
        .make
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    for expected in ["demo-rqlite-operator", "demo-app", "demo-rqlite-users"] {
        assert!(names.contains(&expected), "{names:?}");
    }
    assert_eq!(everybody(&plan), Some(vec![]));
    assert_eq!(has_flag(&plan), Some(true));
}
