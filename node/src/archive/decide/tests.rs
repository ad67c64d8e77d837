//! Each reason to act, and what comes first when there are several.
use super::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const LIMITS: Limits = Limits {
    every: secs(10),
    segment_bytes: 1000,
    base_interval: secs(3600),
    base_bytes: 5000,
};

fn base() -> LastBase {
    LastBase {
        age: secs(5),
        segment_bytes: 0,
        same_writer: true,
    }
}

fn end() -> End {
    End {
        next: 8,
        base: Some(base()),
        is_broken: false,
    }
}

/// A leader with nothing to do.
fn idle() -> Known {
    Known {
        leads: true,
        looked: true,
        end: Some(end()),
        applied: 7,
        pending_bytes: 0,
        pending_for: Duration::ZERO,
        failures: None,
        base_failed: None,
        database_bytes: 100,
        retained: Some(secs(1)),
    }
}

fn with(change: impl FnOnce(&mut Known)) -> Known {
    let mut known = idle();
    change(&mut known);
    known
}

fn with_base(change: impl FnOnce(&mut LastBase)) -> Known {
    let mut base = base();
    change(&mut base);
    with(|known| {
        known.end = Some(End {
            base: Some(base),
            ..end()
        });
    })
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_comes_next() {
    let wait = Step::Wait(TICK);
    let pending = |bytes, waited| {
        with(|k| (k.applied, k.pending_bytes, k.pending_for) = (9, bytes, secs(waited)))
    };
    let cases = [
        ("nothing to do", idle(), wait),
        (
            "somebody else leads",
            with(|k| (k.leads, k.end) = (false, None)),
            wait,
        ),
        (
            "a follower that knows nothing",
            with(|k| (k.leads, k.looked, k.end) = (false, false, None)),
            Step::Look,
        ),
        ("just elected", with(|k| k.end = None), Step::Resume),
        ("something, but young and little", pending(999, 9), wait),
        ("it has waited long enough", pending(1, 10), Step::Segment),
        ("there is enough of it", pending(1000, 0), Step::Segment),
        (
            "no base",
            with(|k| {
                k.end = Some(End {
                    base: None,
                    ..end()
                })
            }),
            Step::Base(Reason::First),
        ),
        (
            "entries are lost",
            with(|k| {
                (k.end, k.applied, k.pending_for) = (
                    Some(End {
                        is_broken: true,
                        ..end()
                    }),
                    99,
                    secs(99),
                )
            }),
            Step::Base(Reason::Gap),
        ),
        (
            "another version",
            with_base(|b| b.same_writer = false),
            Step::Base(Reason::Version),
        ),
        (
            "much since the base",
            with_base(|b| b.segment_bytes = 5000),
            Step::Base(Reason::Size),
        ),
        (
            "an old base, nothing since",
            with_base(|b| b.age = secs(9999)),
            wait,
        ),
        (
            "an old base",
            with_base(|b| (b.age, b.segment_bytes) = (secs(3600), 1)),
            Step::Base(Reason::Interval),
        ),
        ("retention", with(|k| k.retained = None), Step::Retain),
        (
            "retention again",
            with(|k| k.retained = Some(secs(3600))),
            Step::Retain,
        ),
        (
            "segments before a base that is not urgent",
            Known {
                applied: 9,
                pending_for: secs(10),
                ..with_base(|b| b.same_writer = false)
            },
            Step::Segment,
        ),
        (
            "a base that failed just now waits",
            Known {
                base_failed: Some(secs(59)),
                ..with_base(|b| b.same_writer = false)
            },
            wait,
        ),
        (
            "and is tried again",
            Known {
                base_failed: Some(secs(60)),
                ..with_base(|b| b.same_writer = false)
            },
            Step::Base(Reason::Version),
        ),
    ];
    for (name, known, want) in cases {
        assert_eq!(decide(&known, &LIMITS), want, "{name}");
    }
}

#[test]
fn a_base_is_worth_its_size() {
    let known = with_base(|b| b.segment_bytes = 6000);
    let large = Known {
        database_bytes: 7000,
        ..known
    };
    assert_eq!(decide(&known, &LIMITS), Step::Base(Reason::Size));
    assert_eq!(decide(&large, &LIMITS), Step::Wait(TICK));
}

#[test]
fn failures_are_paused_after_ever_longer_but_not_long() {
    for (failures, since, want) in [
        (1, 0, Step::Wait(TICK)),
        (1, 499, Step::Wait(Duration::from_millis(1))),
        (1, 500, Step::Resume),
        (3, 1999, Step::Wait(Duration::from_millis(1))),
        (3, 2000, Step::Resume),
        (6, 9999, Step::Wait(Duration::from_millis(1))),
        (u32::MAX, 10_000, Step::Resume),
    ] {
        let since = Duration::from_millis(since);
        let known = with(|k| (k.end, k.failures) = (None, Some((failures, since))));
        assert_eq!(decide(&known, &LIMITS), want, "{failures} {since:?}");
    }
}
