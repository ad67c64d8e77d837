//! Tests of segments: golden bytes, every truncation and changed byte, entries that cannot follow.
use proptest::prelude::*;

use super::*;
use crate::{record::Kind, seal::TooLong};

const NAME: &str = "000002-line/segments/00000000000000000007";
const KEY: &str = "k AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn lineage() -> Lineage {
    Lineage {
        id: "line".into(),
        epoch: 2,
    }
}

fn writer() -> Writer {
    Writer {
        sqlite: "3.50.4".into(),
        sqlite_source_id: "2025-07-30".into(),
        rqlited: "0.1.0".into(),
        format_version: 2,
        foreign_keys: None,
    }
}

fn start(first: u64) -> Start {
    Start {
        first,
        previous: Some(Previous {
            first: 3,
            sha256: "ab".repeat(32),
        }),
        not_before: Moment(1_000),
        term: 2,
    }
}

fn record(index: u64, term: u64, time: i64, content: &[u8]) -> Record {
    let kind = if content.is_empty() {
        Kind::Blank
    } else {
        Kind::Command
    };
    Record {
        index,
        term,
        kind,
        time: Moment(time),
        content: Bytes::copy_from_slice(content),
    }
}

fn segment(records: impl IntoIterator<Item = Record>) -> Segment {
    let mut builder = Builder::new(lineage(), writer(), start(7)).unwrap();
    for record in records {
        builder.push(record).unwrap();
    }
    builder.note_hash(8, "cd");
    builder.note_hash(8, "ignored: there is one");
    builder.note_hash(10, "ignored: after the segment");
    builder.seal().unwrap().unwrap()
}

fn three() -> Segment {
    segment([
        record(7, 2, 0, b""),
        record(8, 2, 1_500, b"one"),
        record(9, 3, 1_400, b"two"),
    ])
}

/// The plain bytes are fixed (but for zstd's frame, which may be any that decompresses to the same).
#[test]
fn golden() {
    let segment = three();
    let stored = segment.encode(NAME, None).unwrap();
    let end = stored.iter().position(|b| *b == b'\n').unwrap();
    assert_eq!(
        std::str::from_utf8(&stored[..end]).unwrap(),
        r#"RQSEG1 {"format":1,"lineage":{"id":"line","epoch":2},"first":7,"last":9,"last_term":3,"first_time":"1970-01-01T00:00:00.001Z","last_time":"1970-01-01T00:00:00.0015Z","body_bytes":93,"previous":{"first":3,"sha256":"abababababababababababababababababababababababababababababababab"},"writer":{"sqlite":"3.50.4","sqlite_source_id":"2025-07-30","rqlited":"0.1.0","format_version":2},"hashes":[{"index":8,"hash":"cd"}]}"#
    );
    let frame = &stored[end + 1..stored.len() - SHA256_BYTES];
    let body = zstd::decode_all(frame).unwrap();
    assert_eq!(
        hex(&body),
        concat!(
            "0007000000000000000200000000000000e80300000000000000000000",
            "0208000000000000000200000000000000dc05000000000000030000006f6e65",
            "0209000000000000000300000000000000dc050000000000000300000074776f",
        )
    );
    assert_eq!(
        stored[stored.len() - SHA256_BYTES..],
        *Sha256::digest(&stored[..stored.len() - SHA256_BYTES])
    );
}

#[test]
fn what_goes_in_comes_out() {
    let keys = Keys::parse(KEY).unwrap();
    let segment = three();
    for keys in [None, Some(&keys)] {
        let stored = segment.encode(NAME, keys).unwrap();
        let read = Segment::decode(NAME, stored.clone(), keys).unwrap();
        assert_eq!(read.header(), segment.header());
        assert_eq!(read.sha256(), segment.sha256());
        let records: Vec<_> = read.records().unwrap().map(Result::unwrap).collect();
        let want = [
            record(7, 2, 1_000, b""),
            record(8, 2, 1_500, b"one"),
            record(9, 3, 1_500, b"two"),
        ];
        assert_eq!(records, want, "times never fall");
        assert_eq!(
            read.after(),
            Start {
                first: 10,
                previous: Some(Previous {
                    first: 7,
                    sha256: segment.sha256()
                }),
                not_before: Moment(1_500),
                term: 3,
            }
        );
        let beginning = &stored[..stored.len() - 40];
        assert_eq!(
            header(NAME, beginning, keys).unwrap().as_ref(),
            Some(segment.header())
        );
        assert_eq!(header(NAME, &stored[..60], keys).unwrap(), None);
    }
}

#[test]
fn every_truncation_and_every_changed_byte_is_refused() {
    let keys = Keys::parse(KEY).unwrap();
    for keys in [None, Some(&keys)] {
        let stored = three().encode(NAME, keys).unwrap();
        for length in 0..stored.len() {
            let refused = Segment::decode(NAME, stored.slice(..length), keys);
            assert_eq!(
                refused.err().map(|e| e.object).as_deref(),
                Some(NAME),
                "{length}"
            );
        }
        for at in 0..stored.len() {
            for bit in [1, 0x80] {
                let mut changed = stored.to_vec();
                changed[at] ^= bit;
                let refused = Segment::decode(NAME, changed.into(), keys);
                assert_eq!(
                    refused.err().map(|e| e.object).as_deref(),
                    Some(NAME),
                    "{at}"
                );
            }
        }
        let longer = [&stored[..], b"x"].concat();
        assert!(Segment::decode(NAME, longer.into(), keys).is_err());
    }
}

#[test]
fn a_segment_under_another_name_is_foreign() {
    let stored = three().encode(NAME, None).unwrap();
    for name in [
        "000002-line/segments/00000000000000000008",
        "000003-line/segments/00000000000000000007",
        "000002-other/segments/00000000000000000007",
        "000002-line/bases/00000000000000000007.json",
        "elsewhere",
    ] {
        let refused = Segment::decode(name, stored.clone(), None).unwrap_err();
        assert!(matches!(refused.problem, Problem::Foreign(_)), "{refused}");
        assert_eq!(refused.object, name);
    }
}

#[test]
fn entries_that_cannot_follow_are_refused_and_change_nothing() {
    let mut builder = Builder::new(lineage(), writer(), start(7)).unwrap();
    assert!(builder.push(record(8, 2, 0, b"")).is_err());
    assert!(builder.push(record(7, 1, 0, b"")).is_err());
    assert!(builder.is_empty());
    builder.push(record(7, 3, 5_000, b"x")).unwrap();
    for (index, term) in [(7, 3), (9, 3), (8, 2), (0, 3)] {
        assert!(
            builder.push(record(index, term, 0, b"")).is_err(),
            "{index} {term}"
        );
    }
    assert_eq!(builder.next(), 8);
    let sealed = builder.seal().unwrap().unwrap();
    assert_eq!(
        (sealed.header().last, sealed.header().last_time),
        (7, Moment(5_000))
    );
    sealed.check().unwrap();
    let empty = Builder::new(lineage(), writer(), start(7)).unwrap();
    assert!(empty.seal().unwrap().is_none());
}

/// A header that lies about its body is found when the records are read, even with a right checksum.
#[test]
fn headers_that_lie_are_refused() {
    let lies: [fn(&mut Header); 7] = [
        |h| h.last = 10,
        |h| h.last = 8,
        |h| h.last_term = 4,
        |h| h.first_time = Moment(1_001),
        |h| h.last_time = Moment(1_501),
        |h| h.body_bytes -= 1,
        |h| h.body_bytes += 1,
    ];
    for (case, lie) in lies.iter().enumerate() {
        let mut segment = three();
        lie(&mut segment.header);
        let mut plain = MAGIC.to_vec();
        serde_json::to_writer(&mut plain, &segment.header).unwrap();
        plain.push(b'\n');
        plain.extend_from_slice(&segment.plain[segment.body..segment.plain.len() - SHA256_BYTES]);
        let sha256 = Sha256::digest(&plain);
        plain.extend_from_slice(&sha256);
        let read = Segment::decode(NAME, plain.into(), None);
        let refused = read.and_then(|read| read.check());
        assert_eq!(
            refused.err().map(|e| e.object).as_deref(),
            Some(NAME),
            "case {case}"
        );
    }
}

#[test]
fn newer_formats_are_refused_with_advice() {
    let stored = three().encode(NAME, None).unwrap();
    let newer = String::from_utf8_lossy(&stored).replacen("\"format\":1", "\"format\":2", 1);
    let refused = Segment::decode(NAME, newer.into_bytes().into(), None).unwrap_err();
    assert_eq!(refused.problem, Problem::Newer(2));
}

/// Unknown fields of the header are ignored: later programs may add some.
#[test]
fn added_fields_are_ignored() {
    let stored = three().encode(NAME, None).unwrap();
    let end = stored.iter().position(|b| *b == b'\n').unwrap();
    let mut plain = stored[..end - 1].to_vec();
    plain.extend_from_slice(b",\"later\":[1]}\n");
    plain.extend_from_slice(&stored[end + 1..stored.len() - SHA256_BYTES]);
    let sha256 = Sha256::digest(&plain);
    plain.extend_from_slice(&sha256);
    Segment::decode(NAME, plain.into(), None)
        .unwrap()
        .check()
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_records_come_out_as_they_went_in(
        contents in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 0..3u64, -5_000..50_000i64), 1..50),
        sealed in any::<bool>(),
    ) {
        let keys = sealed.then(|| Keys::parse(KEY).unwrap());
        let mut builder = Builder::new(lineage(), writer(), start(7)).unwrap();
        let (mut term, mut floor, mut want) = (2, 1_000, Vec::new());
        for (index, (content, step, time)) in (7..).zip(contents) {
            term += step;
            builder.push(record(index, term, time, &content)).unwrap();
            floor = floor.max(time);
            want.push(record(index, term, floor, &content));
        }
        let stored: Result<Bytes, TooLong> = builder.seal().unwrap().unwrap().encode(NAME, keys.as_ref());
        let read = Segment::decode(NAME, stored.unwrap(), keys.as_ref()).unwrap();
        let records: Vec<_> = read.records().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(records, want);
    }
}
