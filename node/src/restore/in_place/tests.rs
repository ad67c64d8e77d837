//! Tests of restores in place: which requests are taken, and what a cluster may go back to.
use node_archive::documents::Parent;

use super::*;

#[test]
fn nothing_is_replaced_without_a_point_and_consent() {
    let request = |text: &str| serde_json::from_str::<RestoreRequest>(text).unwrap();
    for (text, want) in [
        (r#"{}"#, Err("is missing")),
        (
            r#"{"to_index":1,"to_time":"1970-01-01T00:00:00Z"}"#,
            Err("not both"),
        ),
        (r#"{"to_time":"noon","dry_run":true}"#, Err("to_time")),
        (r#"{"to_index":1}"#, Err("\"confirm\":\"c1\"")),
        (r#"{"to_index":1,"confirm":"c2"}"#, Err("which is c1")),
        (r#"{"to_index":1,"id":"","dry_run":true}"#, Err("id:")),
        (r#"{"to_index":1,"confirm":"c1"}"#, Ok(Target::Index(1))),
        (r#"{"to_index":1,"dry_run":true}"#, Ok(Target::Index(1))),
        (
            r#"{"to_time":"1970-01-01T00:00:01Z","confirm":"c1"}"#,
            Ok(Target::Time(Moment(1_000_000))),
        ),
    ] {
        match (check(&request(text), "c1"), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn the_same_id_never_restores_twice() {
    let request = |id: &str, dry_run: bool| RestoreRequest {
        id: Some(id.to_owned()),
        dry_run,
        ..RestoreRequest::default()
    };
    let mut now = Now::default();
    let begin = |now: &mut Now, id: &str, dry_run: bool| {
        let begun = now.begin(&request(id, dry_run), String::new())?;
        Ok::<_, Refused>(begun.map(|state| state.state))
    };
    assert_eq!(begin(&mut now, "a", true), Ok(None));
    now.state.state = RestoreState::DONE.into();
    // An id stands for one restore and one look at it.
    assert_eq!(begin(&mut now, "a", false), Ok(None));
    assert_eq!(begin(&mut now, "a", false), Ok(Some("running".into())));
    assert!(matches!(
        begin(&mut now, "b", true),
        Err(Refused::Running(_))
    ));
    now.state.state = RestoreState::DONE.into();
    assert_eq!(begin(&mut now, "b", true), Ok(None));
    now.state.state = RestoreState::FAILED.into();
    assert_eq!(begin(&mut now, "a", false), Ok(Some("done".into())));
    assert_eq!(begin(&mut now, "c", true), Ok(None), "b was a look");
    for n in 0..2 * MAX_REMEMBERED {
        now.state.state = RestoreState::DONE.into();
        assert_eq!(begin(&mut now, &n.to_string(), false), Ok(None));
    }
    assert_eq!(now.earlier.len(), MAX_REMEMBERED);
}

#[test]
fn an_id_stands_for_one_point() {
    let request = |index: u64| RestoreRequest {
        id: Some("a".to_owned()),
        to_index: Some(index),
        ..RestoreRequest::default()
    };
    let mut now = Now::default();
    assert_eq!(now.begin(&request(5), String::new()), Ok(None));
    assert!(matches!(
        now.begin(&request(7), String::new()),
        Err(Refused::Request(_))
    ));
}

#[test]
fn the_past_of_a_cluster_is_its_own_or_what_it_continues() {
    let lineage = |id: &str| Lineage {
        id: id.to_owned(),
        epoch: 0,
    };
    let timeline = |cluster: &str, id: &str, parent: Option<&str>| Timeline {
        format: 1,
        cluster_id: cluster.to_owned(),
        lineage: lineage(id),
        created_at: Moment(0),
        parent: parent.map(|parent| Parent {
            lineage: lineage(parent),
            index: None,
            how: "recovery".to_owned(),
        }),
    };
    let all = [
        timeline("c", "own", Some("before")),
        timeline("c", "earlier", None),
        timeline("b", "before", Some("first")),
        timeline("a", "first", Some("own")),
        timeline("x", "theirs", Some("own")),
    ];
    let all: Vec<&Timeline> = all.iter().collect();
    let own = Cluster {
        id: "c".to_owned(),
        lineage: lineage("own"),
    };
    for (wanted, is_own) in [
        ("own", true),
        ("earlier", true),
        ("before", true),
        ("first", true),
        ("theirs", false),
        ("unknown", false),
    ] {
        assert_eq!(is_own_past(&all, &own, wanted), is_own, "{wanted}");
    }
}
