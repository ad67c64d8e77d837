//! Tests of who manages a cluster.
use super::*;
use crate::cluster::fixture::Fixture;
use RecordedLease::{Gone, Unchanged, Unknown};

const OTHER: &str = "elsewhere/rqlite-operator";

/// A cluster of this class with this record (installation and class) and annotation.
fn cluster(
    class: Option<&str>,
    recorded: Option<(&str, &str)>,
    annotation: Option<&str>,
) -> (RqliteCluster, OperatorFacts) {
    let fixture = Fixture::running(3, 0);
    let mut cluster = fixture.seen.cluster.clone();
    cluster.spec.operator_class = class.map(str::to_owned);
    let status = cluster.status.as_mut().unwrap();
    status.managed_by = recorded.map(|(installation, class)| ManagedBy {
        installation: installation.to_owned(),
        operator_class: class.to_owned(),
        since: fixture.seen.now.clone(),
    });
    cluster.metadata.annotations =
        annotation.map(|name| [(names::MANAGER_ANNOTATION.to_owned(), name.to_owned())].into());
    (cluster, fixture.seen.operator.clone())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn one_installation_manages_a_cluster() {
    let us = Fixture::running(3, 0).seen.operator.installation.clone();
    let us = us.as_str();
    let cases = [
        (
            "new, or from before there were records",
            None,
            None,
            None,
            Unknown,
            "us",
        ),
        (
            "the class by name",
            Some("default"),
            None,
            None,
            Unknown,
            "us",
        ),
        ("another class", Some("blue"), None, None, Unknown, "class"),
        (
            "another class that was ours",
            Some("blue"),
            Some((us, "default")),
            Some(us),
            Unknown,
            "class",
        ),
        ("ours", None, Some((us, "default")), None, Unknown, "us"),
        (
            "another's, alive",
            None,
            Some((OTHER, "default")),
            None,
            Unchanged(5),
            "other",
        ),
        (
            "another's, quiet",
            None,
            Some((OTHER, "default")),
            None,
            Unchanged(599),
            "other",
        ),
        (
            "another's, broken",
            None,
            Some((OTHER, "default")),
            None,
            Unchanged(600),
            "us",
        ),
        (
            "another's, restarting",
            None,
            Some((OTHER, "default")),
            None,
            Gone(59),
            "other",
        ),
        (
            "another's, uninstalled",
            None,
            Some((OTHER, "default")),
            None,
            Gone(60),
            "us",
        ),
        (
            "another's, not readable",
            None,
            Some((OTHER, "default")),
            None,
            Unknown,
            "other",
        ),
        (
            "moved by its class",
            None,
            Some((OTHER, "blue")),
            None,
            Unknown,
            "us",
        ),
        (
            "moved here",
            None,
            Some((OTHER, "default")),
            Some(us),
            Unchanged(0),
            "us",
        ),
        (
            "moved away",
            None,
            Some((us, "default")),
            Some(OTHER),
            Gone(1000),
            "other",
        ),
    ];
    for (what, class, recorded, annotation, lease, expected) in cases {
        let (cluster, us) = cluster(class, recorded, annotation);
        let decided = decide(&cluster, &us, lease, false);
        let short = match &decided {
            Manager::Us => "us",
            Manager::OtherClass => "class",
            Manager::Other(_) => "other",
        };
        assert_eq!(short, expected, "{what}: {decided:?}");
    }
}

#[test]
fn another_installation_is_named_with_what_to_type() {
    let (cluster, us) = cluster(None, Some((OTHER, "default")), None);
    let Manager::Other(text) = decide(&cluster, &us, Unchanged(0), false) else {
        panic!("taken over");
    };
    for part in [OTHER, "rqlite.dev/manager=operators/rqlite-operator"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_operator_that_keeps_no_records_is_left_alone_unless_a_person_decides() {
    let (unmarked, us) = cluster(None, None, None);
    assert!(matches!(
        decide(&unmarked, &us, Unknown, true),
        Manager::Other(_)
    ));
    let (named, us) = cluster(None, None, Some(&us.installation));
    assert_eq!(decide(&named, &us, Unknown, true), Manager::Us);
}

#[test]
fn the_record_is_in_the_status_and_keeps_its_time() {
    let mut fixture = Fixture::running(3, 0);
    fixture.reconcile();
    let recorded = fixture.status().managed_by.unwrap();
    assert_eq!(recorded.installation, "operators/rqlite-operator");
    assert_eq!(recorded.operator_class, "default");
    fixture.later(600);
    fixture.reconcile();
    assert_eq!(fixture.status().managed_by, Some(recorded.clone()));
    fixture.seen.operator.installation = OTHER.to_owned();
    fixture.reconcile();
    let moved = fixture.status().managed_by.unwrap();
    assert_eq!(moved.installation, OTHER);
    assert_ne!(moved.since, recorded.since);
}
