//! Tests of restores in place: which requests are taken, and what a cluster may go back to.
use node_archive::{
    documents::{self, FORMAT, Parent, Timeline},
    names::Folder,
};

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

#[tokio::test]
async fn a_lineage_continues_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let target = node_objects::Target::File(node_objects::target::Folder {
        dir: dir.path().to_owned(),
        name: "p".into(),
    });
    let store = target.open().unwrap();
    let lineage = |id: &str| Lineage {
        id: id.to_owned(),
        epoch: 0,
    };
    for (id, parent) in [
        ("own", Some("before")),
        ("before", Some("first")),
        ("first", Some("own")),
        ("theirs", Some("own")),
    ] {
        let folder = Folder::new(&lineage(id)).unwrap();
        let timeline = Timeline {
            format: FORMAT,
            cluster_id: id.to_owned(),
            lineage: lineage(id),
            created_at: Moment(0),
            parent: parent.map(|parent| Parent {
                lineage: lineage(parent),
                index: None,
                how: "recovery".to_owned(),
            }),
        };
        let name = folder.timeline();
        let bytes = documents::encode(&timeline, &name, None).unwrap();
        store.create(&name, bytes.into()).await.unwrap();
    }
    let source = Source::new(store, None);
    for (other, is_past) in [
        ("before", true),
        ("first", true),
        ("theirs", false),
        ("x", false),
    ] {
        let found = continues(&source, "own", other).await.unwrap();
        assert_eq!(found, is_past, "{other}");
    }
}
