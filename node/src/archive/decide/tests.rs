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

/// A leader with nothing to do.
fn idle() -> Known {
    Known {
        leads: true,
        looked: true,
        next: Some(8),
        due: None,
        asked: 0,
        applied: 7,
        pending_bytes: 0,
        pending_for: Duration::ZERO,
        failures: None,
        base_failed: None,
        unchecked: false,
        retained: Some(secs(1)),
    }
}

fn with(change: impl FnOnce(&mut Known)) -> Known {
    let mut known = idle();
    change(&mut known);
    known
}

fn with_base(reason: Reason) -> Known {
    with(|known| known.due = Some(reason))
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
            with(|k| (k.leads, k.next) = (false, None)),
            wait,
        ),
        (
            "a follower that knows nothing",
            with(|k| (k.leads, k.looked, k.next) = (false, false, None)),
            Step::Look,
        ),
        ("just elected", with(|k| k.next = None), Step::Resume),
        ("something, but young and little", pending(999, 9), wait),
        ("it has waited long enough", pending(1, 10), Step::Segment),
        ("there is enough of it", pending(1000, 0), Step::Segment),
        (
            "somebody waits for it",
            with(|k| (k.applied, k.asked) = (9, 8)),
            Step::Segment,
        ),
        (
            "somebody waits for what is archived",
            with(|k| (k.applied, k.asked) = (9, 7)),
            wait,
        ),
        (
            "somebody waits for what is not there",
            with(|k| k.asked = 99),
            wait,
        ),
        (
            "no base",
            with_base(Reason::First),
            Step::Base(Reason::First),
        ),
        (
            "entries are lost",
            Known {
                applied: 99,
                pending_for: secs(99),
                ..with_base(Reason::Gap)
            },
            Step::Base(Reason::Gap),
        ),
        (
            "another base",
            with_base(Reason::Size),
            Step::Base(Reason::Size),
        ),
        (
            "segments of an earlier leadership are checked",
            with(|k| k.unchecked = true),
            Step::Check,
        ),
        (
            "after a segment that is due",
            Known {
                unchecked: true,
                ..pending(1, 10)
            },
            Step::Segment,
        ),
        (
            "a hole, and segments go on",
            Known {
                applied: 9,
                pending_for: secs(10),
                ..with_base(Reason::Hole)
            },
            Step::Segment,
        ),
        ("a hole", with_base(Reason::Hole), Step::Base(Reason::Hole)),
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
                ..with_base(Reason::Version)
            },
            Step::Segment,
        ),
        (
            "a base that failed just now waits",
            Known {
                base_failed: Some(secs(59)),
                ..with_base(Reason::Version)
            },
            wait,
        ),
        (
            "and is tried again",
            Known {
                base_failed: Some(secs(60)),
                ..with_base(Reason::Version)
            },
            Step::Base(Reason::Version),
        ),
    ];
    for (name, known, want) in cases {
        assert_eq!(decide(&known, &LIMITS), want, "{name}");
    }
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
        let known = with(|k| (k.next, k.failures) = (None, Some((failures, since))));
        assert_eq!(decide(&known, &LIMITS), want, "{failures} {since:?}");
    }
}
