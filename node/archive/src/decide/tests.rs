//! Tables of cases: going on, bases due, retention, orphans.
use node_contract::Lineage;

use super::*;
use crate::segment::Previous;

fn writer(sqlite: &str) -> Writer {
    Writer {
        sqlite: sqlite.into(),
        sqlite_source_id: "s".into(),
        rqlited: "r".into(),
        format_version: 2,
        foreign_keys: None,
    }
}

fn base(index: u64, time: i64) -> Base {
    Base {
        format: 1,
        lineage: Lineage {
            id: "l".into(),
            epoch: 0,
        },
        index,
        term: 4,
        time: Moment(time).plus_seconds(0),
        created_at: Moment(0).plus_seconds(time),
        bytes: 1,
        sha256: String::new(),
        pages: 1,
        object: format!("{index}.db"),
        object_bytes: 1,
        writer: writer("3"),
        content_hash: None,
        reason: "first".into(),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_leader_goes_on_behind_what_is_archived_or_asks_for_a_base() {
    let after = |first| Start {
        first,
        previous: Some(Previous {
            first: 1,
            sha256: "x".into(),
        }),
        not_before: Moment(9),
        term: 3,
    };
    let at = |start: Start| Resume::At(start);
    let behind_base = |index: u64| Start {
        first: index + 1,
        previous: None,
        not_before: Moment(5),
        term: 4,
    };
    let needs = |missing: Option<(u64, u64)>| Resume::NeedsBase {
        missing: missing.map(|(first, last)| Gap { first, last }),
    };
    let cases = [
        ("a new archive", None, None, 1, needs(None)),
        ("only a base", None, Some(20), 5, at(behind_base(20))),
        (
            "the log begins right behind the base",
            None,
            Some(20),
            21,
            at(behind_base(20)),
        ),
        (
            "the log begins later",
            None,
            Some(20),
            22,
            needs(Some((21, 21))),
        ),
        (
            "segments behind the base",
            Some(31),
            Some(20),
            25,
            at(after(31)),
        ),
        (
            "the base is ahead, the log holds what is between",
            Some(15),
            Some(20),
            15,
            at(after(15)),
        ),
        (
            "the base is ahead, the log does not",
            Some(15),
            Some(20),
            16,
            at(behind_base(20)),
        ),
        (
            "the log lost what follows",
            Some(31),
            Some(20),
            32,
            needs(Some((31, 31))),
        ),
        ("segments without a base", Some(31), None, 25, needs(None)),
    ];
    for (name, last, newest, log_first, want) in cases {
        let last = last.map(after);
        let newest = newest.map(|index| base(index, 5));
        assert_eq!(
            resume(last.as_ref(), newest.as_ref(), log_first),
            want,
            "{name}"
        );
    }
}

#[test]
fn bases_are_due_for_a_reason() {
    let newest = base(20, 1_000);
    let (same, other) = (writer("3"), writer("4"));
    let rules = BaseRules {
        interval_seconds: 100,
        bytes: 1_000,
    };
    let usual = BaseFacts {
        newest: Some(&newest),
        needed: false,
        has_hole: false,
        applied: 30,
        now: Moment(0).plus_seconds(1_099),
        bytes_since: 999,
        database_bytes: 10,
        writer: &same,
        replaced_at: Some(20),
    };
    let with = |change: &dyn Fn(&mut BaseFacts<'_>)| {
        let mut facts = usual.clone();
        change(&mut facts);
        base_due(&facts, rules)
    };
    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|f| f.newest = None), Some(Reason::First));
    assert_eq!(with(&|f| f.needed = true), Some(Reason::Gap));
    assert_eq!(with(&|f| f.has_hole = true), Some(Reason::Hole));
    assert_eq!(with(&|f| f.replaced_at = Some(21)), Some(Reason::Load));
    assert_eq!(
        with(&|f| f.now = Moment(0).plus_seconds(1_100)),
        Some(Reason::Interval)
    );
    assert_eq!(
        with(&|f| f.now = Moment(0).plus_seconds(899)),
        Some(Reason::Interval)
    );
    assert_eq!(
        with(&|f| f.now = Moment(0).plus_seconds(901)),
        None,
        "a clock a little behind"
    );
    assert_eq!(with(&|f| f.bytes_since = 1_000), Some(Reason::Size));
    assert_eq!(
        with(&|f| (f.bytes_since, f.database_bytes) = (1_000, 2_000)),
        None,
        "a large database needs as many bytes as it has"
    );
    assert_eq!(
        with(&|f| (f.applied, f.now) = (20, Moment(0).plus_seconds(9_999))),
        None,
        "nothing new since"
    );
    let facts = BaseFacts {
        writer: &other,
        ..usual.clone()
    };
    assert_eq!(base_due(&facts, rules), Some(Reason::Version));
}

#[test]
fn retention_keeps_every_point_since_and_always_a_base() {
    let firsts: Vec<u64> = (0..30).map(|n| n * 10 + 1).collect();
    let bases = [base(25, 250), base(105, 1_050), base(205, 2_050)];
    let deletable = |since: i64| {
        let found = deletable(&bases, &firsts, Moment(since));
        (found.bases, found.segments.last().copied())
    };
    assert_eq!(
        deletable(0),
        (vec![], None),
        "no base is old enough: nothing may go"
    );
    assert_eq!(
        deletable(250),
        (vec![], None),
        "the first base, with some segments to spare"
    );
    assert_eq!(deletable(1_049), (vec![], None));
    assert_eq!(deletable(1_050), (vec![25], Some(51)));
    assert_eq!(deletable(2_049), (vec![25], Some(51)));
    assert_eq!(
        deletable(9_999),
        (vec![25, 105], Some(151)),
        "the newest base stays for ever"
    );
    assert_eq!(
        super::deletable(&[], &firsts, Moment(9_999)),
        Deletable::default()
    );
}

#[test]
fn data_without_a_document_goes_after_two_days() {
    let bases = [base(1, 0)];
    let days = 2 * 24 * 60 * 60;
    let data = [
        ("1.db", Moment(0)),
        ("old.db", Moment(0)),
        ("young.db", Moment(0).plus_seconds(5)),
    ];
    assert_eq!(
        orphans(data, &bases, Moment(0).plus_seconds(days)),
        Vec::<&str>::new()
    );
    assert_eq!(
        orphans(data, &bases, Moment(0).plus_seconds(days + 1)),
        ["old.db"]
    );
}

#[test]
fn entries_in_no_segment_are_found() {
    type Case<'a> = (&'a str, u64, &'a [(u64, u64)], u64, Option<(u64, u64)>);
    let cases: &[Case<'_>] = &[
        ("nothing follows the base", 10, &[], 10, None),
        ("unbroken", 10, &[(11, 12), (13, 20)], 20, None),
        (
            "one reaches over the base",
            10,
            &[(5, 14), (15, 20)],
            20,
            None,
        ),
        ("two cut differently", 10, &[(11, 14), (12, 20)], 20, None),
        ("one is gone", 10, &[(11, 12), (15, 20)], 20, Some((13, 14))),
        ("the first is gone", 10, &[(13, 20)], 20, Some((11, 12))),
        ("the last is gone", 10, &[(11, 12)], 20, Some((13, 20))),
        ("all are gone", 10, &[], 20, Some((11, 20))),
        (
            "two are gone",
            10,
            &[(13, 14), (17, 20)],
            20,
            Some((11, 12)),
        ),
        (
            "older ones do not matter",
            10,
            &[(1, 2), (7, 9), (11, 20)],
            20,
            None,
        ),
        ("in any order", 10, &[(13, 20), (11, 12)], 20, None),
    ];
    for (name, base, segments, end, want) in cases {
        let want = want.map(|(first, last)| Gap { first, last });
        assert_eq!(hole(*base, segments, *end), want, "{name}");
    }
}
