//! Tables of cases: which base, which segments, what is missing.
use super::*;
use crate::documents::Writer;

fn lineage() -> Lineage {
    Lineage {
        id: "l".into(),
        epoch: 0,
    }
}

fn writer() -> Writer {
    Writer {
        sqlite: "3".into(),
        sqlite_source_id: "s".into(),
        rqlited: "r".into(),
        format_version: 2,
        foreign_keys: None,
    }
}

/// The entry of index n has time 10 n.
fn base(index: u64) -> Base {
    Base {
        format: 1,
        lineage: lineage(),
        index,
        term: 1,
        time: time(index),
        created_at: Moment(0),
        bytes: 1,
        sha256: String::new(),
        pages: 1,
        object: String::new(),
        object_bytes: 1,
        writer: writer(),
        content_hash: None,
        reason: "first".into(),
    }
}

fn time(index: u64) -> Moment {
    Moment(i64::try_from(index).unwrap() * 10)
}

fn header(first: u64, last: u64) -> Header {
    Header {
        format: 1,
        lineage: lineage(),
        first,
        last,
        last_term: 1,
        first_time: time(first),
        last_time: time(last),
        body_bytes: 1,
        previous: None,
        writer: writer(),
        hashes: Vec::new(),
    }
}

/// The whole way from names to the segments to read, or the error's text.
fn planned(
    bases: &[u64],
    segments: &[(u64, u64)],
    promised: Option<u64>,
    target: Target,
) -> Result<(u64, Vec<u64>), String> {
    let folder = Folder::new(&lineage()).unwrap();
    let bases: Vec<Base> = bases.iter().map(|index| base(*index)).collect();
    let base = choose_base(&folder, &bases, target).map_err(|e| e.to_string())?;
    let firsts: Vec<u64> = segments.iter().map(|s| s.0).collect();
    let wanted = wanted(&firsts, base, &bases, target);
    let headers = segments.iter().filter(|s| wanted.contains(&s.0));
    let headers: Vec<Header> = headers.map(|s| header(s.0, s.1)).collect();
    let plan = plan(&folder, base, &headers, promised, target).map_err(|e| e.to_string())?;
    Ok((
        plan.base.index,
        plan.segments.iter().map(|s| s.first).collect(),
    ))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn points_that_are_there() {
    let whole = [(1, 10), (11, 20), (21, 30), (31, 40)];
    let time = |micros| Target::Time(Moment(micros));
    type Case<'a> = (&'a str, &'a [u64], &'a [(u64, u64)], Target, u64, &'a [u64]);
    let cases: [Case<'_>; 14] = [
        ("the end", &[5, 25], &whole, Target::End, 25, &[21, 31]),
        ("an entry", &[5, 25], &whole, Target::Index(20), 5, &[1, 11]),
        (
            "a base itself",
            &[5, 25],
            &whole,
            Target::Index(25),
            25,
            &[],
        ),
        (
            "the oldest base itself",
            &[5, 25],
            &whole,
            Target::Index(5),
            5,
            &[],
        ),
        (
            "the first of a segment",
            &[5],
            &whole,
            Target::Index(11),
            5,
            &[1, 11],
        ),
        (
            "a base at a segment's end",
            &[10],
            &whole,
            Target::Index(11),
            10,
            &[11],
        ),
        ("a time", &[5, 25], &whole, time(205), 5, &[1, 11, 21]),
        (
            "a time within a segment",
            &[5, 25],
            &whole,
            time(155),
            5,
            &[1, 11],
        ),
        ("the time of a base", &[5, 25], &whole, time(250), 25, &[21]),
        (
            "a time after the end",
            &[5, 25],
            &whole,
            time(9_999),
            25,
            &[21, 31],
        ),
        ("nothing but a base", &[5], &[], Target::End, 5, &[]),
        (
            "a base ahead of all segments",
            &[5, 50],
            &whole,
            Target::End,
            50,
            &[],
        ),
        (
            "a gap before a base",
            &[5, 25],
            &[(1, 10), (26, 30)],
            Target::End,
            25,
            &[26],
        ),
        (
            "divided differently",
            &[5],
            &[(1, 10), (11, 25), (21, 22), (23, 30)],
            Target::Index(30),
            5,
            &[1, 11, 23],
        ),
    ];
    for (name, bases, segments, target, base, want) in cases {
        let got = planned(bases, segments, None, target);
        assert_eq!(got, Ok((base, want.to_vec())), "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_is_missing_is_named() {
    let holed = [(1, 10), (21, 30)];
    let time = |micros| Target::Time(Moment(micros));
    let hole = "000000-l/segments/00000000000000000011: missing, or never written: entries 11 to 20 are in no segment";
    type Case<'a> = (
        &'a str,
        &'a [u64],
        &'a [(u64, u64)],
        Option<u64>,
        Target,
        &'a str,
    );
    let cases: [Case<'_>; 10] = [
        (
            "no base",
            &[],
            &holed,
            None,
            Target::End,
            "000000-l: there is no base",
        ),
        (
            "an old entry",
            &[5],
            &holed,
            None,
            Target::Index(4),
            "000000-l: entry 4 is before the oldest base, which holds entry 5 of",
        ),
        (
            "an old time",
            &[5],
            &holed,
            None,
            time(49),
            "000000-l: 1970-01-01T00:00:00.000049Z is before",
        ),
        (
            "an entry that is not yet there",
            &[5],
            &[(1, 10)],
            None,
            Target::Index(11),
            "000000-l: entry 11 is not archived; the archive ends with entry 10",
        ),
        (
            "a hole before the end",
            &[5],
            &holed,
            None,
            Target::End,
            hole,
        ),
        (
            "a hole before an entry",
            &[5],
            &holed,
            None,
            Target::Index(25),
            hole,
        ),
        (
            "a hole at an entry",
            &[5],
            &holed,
            Some(30),
            Target::Index(15),
            "000000-l/segments/00000000000000000011: missing",
        ),
        ("a hole before a time", &[5], &holed, None, time(250), hole),
        ("a lost end", &[5], &[(1, 10)], Some(20), Target::End, hole),
        (
            "a lost beginning",
            &[5],
            &[(11, 20)],
            None,
            Target::End,
            "000000-l/segments/00000000000000000006: missing",
        ),
    ];
    for (name, bases, segments, promised, target, want) in cases {
        let got = planned(bases, segments, promised, target).unwrap_err();
        assert!(got.starts_with(want), "{name}: {got}");
    }
    // Before the hole everything is as ever, and a time right before it needs nothing from beyond.
    assert_eq!(
        planned(&[5], &holed, None, Target::Index(10)),
        Ok((5, vec![1]))
    );
    assert_eq!(planned(&[5], &holed, None, time(99)), Ok((5, vec![1])));
}
