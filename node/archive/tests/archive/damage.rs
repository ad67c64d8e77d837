//! Damage of every kind to every object: refused by the object's name, by verify and by a restore.
use bytes::Bytes;
use node_archive::{
    documents::{self, BaseSummary, Manifest},
    keys::Keys,
    moment::Moment,
    plan::Target,
    reader::Reader,
    segment::Start,
    verify::{Report, verify},
};

use crate::{
    memory::{Memory, now},
    restore::restore,
    writer::{KEY, append, begin, database, folder, lineage, put_data, put_document},
};

/// Bases at 5 and 25; segments 6-10, 11-20, 21-30; a manifest.
fn archive(keys: Option<&Keys>) -> Memory {
    let store = Memory::default();
    begin(&store, keys);
    let reader = Reader {
        store: &store,
        keys,
    };
    let first = put_data(reader, 5, 1).unwrap();
    put_document(reader, &first).unwrap();
    let mut start = Start {
        first: 6,
        previous: None,
        not_before: first.time,
        term: first.term,
    };
    for last in [10, 20, 30] {
        start = append(reader, &start, last).unwrap();
    }
    let second = put_data(reader, 25, 2).unwrap();
    put_document(reader, &second).unwrap();
    let manifest = Manifest {
        format: 1,
        cluster_id: "cluster".into(),
        lineage: lineage(),
        written_at: Moment(1),
        archived_index: 30,
        archived_time: start.not_before,
        oldest_base: Some(BaseSummary::from(&first)),
        newest_base: Some(BaseSummary::from(&second)),
        newest_segment: Some(folder().segment(21)),
        bases: 2,
        segments: 3,
        gaps: Vec::new(),
    };
    let name = folder().manifest();
    store.insert(
        &name,
        documents::encode(&manifest, &name, keys).unwrap().into(),
    );
    store
}

fn report(store: &Memory, keys: Option<&Keys>) -> Report {
    now(verify(Reader { store, keys }, &folder())).unwrap()
}

fn both(check: impl Fn(Option<&Keys>)) {
    check(None);
    check(Some(&Keys::parse(KEY).unwrap()));
}

#[test]
fn a_missing_first_segment_is_noticed() {
    both(|keys| {
        let store = archive(keys);
        store.objects.lock().unwrap().remove(&folder().segment(6));
        let found = report(&store, keys);
        let missing = "entries 6 to 10 are in no segment";
        assert!(
            found.problems.iter().any(|p| p.contains(missing)),
            "{found:?}"
        );
    });
}

#[test]
fn a_whole_archive_has_no_problem_and_gives_every_point() {
    both(|keys| {
        let store = archive(keys);
        let found = report(&store, keys);
        assert_eq!(found.problems, Vec::<String>::new());
        assert_eq!((found.bases, found.segments, found.entries), (2, 3, 25));
        let ranges: Vec<_> = found.restorable.iter().map(|r| (r.first, r.last)).collect();
        assert_eq!(ranges, [(5, 30)]);
        for index in 5..=30 {
            let got = restore(
                Reader {
                    store: &store,
                    keys,
                },
                Target::Index(index),
            )
            .unwrap();
            assert_eq!(got, (database(index), index));
        }
    });
}

/// With keys, nothing of the content is in the clear.
#[test]
fn an_encrypted_archive_shows_nothing() {
    let keys = Keys::parse(KEY).unwrap();
    for (name, content) in archive(Some(&keys)).objects.lock().unwrap().iter() {
        let shown = String::from_utf8_lossy(content);
        for word in ["statement", "cluster", "sqlite", "lineage", "3.50"] {
            assert!(!shown.contains(word), "{name} shows {word}");
        }
    }
}

/// Ways to damage the bytes of one object.
fn damages(content: &Bytes) -> Vec<(&'static str, Bytes)> {
    let middle = content.len() / 2;
    let mut flipped = content.to_vec();
    flipped[middle] ^= 0x20;
    let mut last = content.to_vec();
    *last.last_mut().unwrap() ^= 1;
    let hole = [&content[..middle - 1], &content[middle + 1..]].concat();
    vec![
        ("empty", Bytes::new()),
        ("truncated to one byte", content.slice(..1)),
        ("truncated in the middle", content.slice(..middle)),
        ("truncated by one byte", content.slice(..content.len() - 1)),
        ("a bit in the middle", flipped.into()),
        ("a bit at the end", last.into()),
        ("bytes cut out", hole.into()),
        ("bytes added", [&content[..], b"}\n\n\0"].concat().into()),
        ("zeros", vec![0; content.len()].into()),
        (
            "another kind of file",
            Bytes::from_static(b"<html>404</html>"),
        ),
    ]
}

#[test]
fn damage_of_any_object_is_named_and_nothing_false_is_restored() {
    both(|keys| {
        let whole = archive(keys);
        for name in whole.names() {
            let content = whole.objects.lock().unwrap()[&name].clone();
            for (how, damaged) in damages(&content) {
                // A plain JSON document has no checksum: what is still JSON means what it says, and a false
                // checksum of a base is found at its data. With keys, everything is noticed.
                let json = keys.is_none() && name.ends_with(".json");
                let unnoticed = [
                    "a bit in the middle",
                    "a bit at the end",
                    "truncated by one byte",
                    "bytes cut out",
                ];
                if json && unnoticed.contains(&how) {
                    continue;
                }
                let store = archive(keys);
                store.insert(&name, damaged);
                let problems = report(&store, keys).problems;
                assert!(
                    problems
                        .iter()
                        .any(|problem| problem.starts_with(&format!("{name}: "))),
                    "{name}, {how}: {problems:?}"
                );
                for index in [5, 6, 10, 11, 20, 24, 25, 26, 30] {
                    if let Ok(got) = restore(
                        Reader {
                            store: &store,
                            keys,
                        },
                        Target::Index(index),
                    ) {
                        assert_eq!(got, (database(index), index), "{name}, {how}");
                    }
                }
            }
        }
    });
}

#[test]
fn missing_objects_are_named() {
    both(|keys| {
        for name in archive(keys).names() {
            // Without its manifest, an archive is whole; without its document, a base is not there.
            if name == folder().manifest() || name == folder().base(5) || name == folder().base(25)
            {
                continue;
            }
            let store = archive(keys);
            store.objects.lock().unwrap().remove(&name);
            let problems = report(&store, keys).problems;
            // The first segment's beginning is known from nothing but its base.
            let named = problems
                .iter()
                .any(|problem| problem.starts_with(&format!("{name}: ")));
            let first = name == folder().segment(6);
            assert!(named || first, "{name}: {problems:?}");
            if first {
                let refused = restore(
                    Reader {
                        store: &store,
                        keys,
                    },
                    Target::Index(20),
                )
                .unwrap_err();
                assert!(refused.to_string().starts_with(&name), "{refused}");
            }
        }
    });
}

#[test]
fn exchanged_reordered_duplicated_and_foreign_objects_are_named() {
    both(|keys| {
        let moves = [
            (folder().segment(11), folder().segment(21)),
            (folder().segment(11), folder().segment(12)),
            (folder().base(5), folder().base(25)),
            (folder().base(25), folder().base(26)),
            (folder().segment(11), folder().base(25)),
            (folder().timeline(), folder().manifest()),
            (folder().manifest(), folder().timeline()),
        ];
        for (from, to) in moves {
            let store = archive(keys);
            let content = store.objects.lock().unwrap()[&from].clone();
            store.insert(&to, content);
            let problems = report(&store, keys).problems;
            assert!(
                problems
                    .iter()
                    .any(|problem| problem.starts_with(&format!("{to}: "))),
                "{from} as {to}: {problems:?}"
            );
        }
        let store = archive(keys);
        let odd = format!("{}/notes.txt", folder().as_str());
        store.insert(&odd, Bytes::from_static(b"x"));
        let problems = report(&store, keys).problems;
        assert_eq!(problems, [format!("{odd}: is no object of an archive")]);
    });
}

/// A segment of the same entries, but divided otherwise, in the place of the one that was there: the chain
/// shows it.
#[test]
fn a_rewritten_segment_breaks_the_chain() {
    both(|keys| {
        let store = archive(keys);
        store.objects.lock().unwrap().remove(&folder().segment(6));
        let reader = Reader {
            store: &store,
            keys,
        };
        let rewritten = Start {
            first: 6,
            previous: None,
            not_before: Moment(61),
            term: 1,
        };
        append(reader, &rewritten, 10).unwrap();
        let problems = report(&store, keys).problems;
        assert!(
            problems.iter().any(|p| p.contains("was replaced")),
            "{problems:?}"
        );
        let refused = restore(reader, Target::Index(20)).unwrap_err().to_string();
        assert!(refused.starts_with(&folder().segment(11)), "{refused}");
    });
}

/// One byte missing anywhere of a small segment, and every length of it.
#[test]
fn every_truncation_of_a_segment_is_refused_by_restore() {
    both(|keys| {
        let store = archive(keys);
        let name = folder().segment(21);
        let content = store.objects.lock().unwrap()[&name].clone();
        for length in 0..content.len() {
            store.insert(&name, content.slice(..length));
            let refused = restore(
                Reader {
                    store: &store,
                    keys,
                },
                Target::Index(30),
            )
            .unwrap_err();
            assert!(
                refused.to_string().starts_with(&name),
                "{length}: {refused}"
            );
        }
    });
}

/// The last segments are gone: only the manifest knows.
#[test]
fn a_lost_end_is_noticed() {
    both(|keys| {
        let store = archive(keys);
        store.objects.lock().unwrap().remove(&folder().segment(21));
        let refused = restore(
            Reader {
                store: &store,
                keys,
            },
            Target::End,
        )
        .unwrap_err()
        .to_string();
        assert!(refused.contains("entries 26 to 30"), "{refused}");
        let reader = Reader {
            store: &store,
            keys,
        };
        assert_eq!(
            restore(reader, Target::Index(20)).unwrap().1,
            20,
            "what is there can be restored"
        );
    });
}

/// What ends before the base that a restore begins with is not its business, whatever it is like.
#[test]
fn what_is_bad_before_the_base_refuses_nothing_behind_it() {
    both(|keys| {
        let foreign = Bytes::from_static(b"somebody else's");
        for bad in [
            vec![folder().base(5)],
            vec![folder().segment(6), folder().segment(11)],
            vec![folder().base(5), folder().segment(6), folder().segment(11)],
        ] {
            let store = archive(keys);
            for name in &bad {
                store.insert(name, foreign.clone());
            }
            let reader = Reader {
                store: &store,
                keys,
            };
            for index in 25..=30 {
                let got = restore(reader, Target::Index(index)).unwrap();
                assert_eq!(got, (database(index), index), "{bad:?}");
            }
            assert_eq!(restore(reader, Target::End).unwrap().1, 30, "{bad:?}");
            for index in [11, 20] {
                let refused = restore(reader, Target::Index(index)).unwrap_err();
                let refused = refused.to_string();
                assert!(
                    bad.iter().any(|name| refused.starts_with(name)),
                    "{refused}"
                );
            }
        }
        // The newest base might be the one that is meant.
        let store = archive(keys);
        store.insert(&folder().base(25), foreign);
        let reader = Reader {
            store: &store,
            keys,
        };
        assert_eq!(restore(reader, Target::Index(24)).unwrap().1, 24);
        for target in [Target::Index(25), Target::Index(30), Target::End] {
            let refused = restore(reader, target).unwrap_err().to_string();
            assert!(refused.starts_with(&folder().base(25)), "{refused}");
        }
    });
}
