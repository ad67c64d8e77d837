//! Known linearizable and non-linearizable histories, and a comparison of the search with brute force.
use super::*;
use crate::seed::Seed;

fn op(called: u64, returned: u64, action: Action) -> Operation {
    Operation {
        called,
        returned: Some(returned),
        action,
    }
}

fn lost(called: u64, action: Action) -> Operation {
    Operation {
        called,
        returned: None,
        action,
    }
}

fn cas(from: u64, to: u64, done: bool) -> Action {
    Action::CompareAndSet {
        from,
        to,
        done: Some(done),
    }
}

use Action::{Read, Write};

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn known_histories() {
    let unsure = Action::CompareAndSet {
        from: 1,
        to: 2,
        done: None,
    };
    let cases: Vec<(&str, Vec<Operation>, Verdict)> = vec![
        ("nothing", vec![], Verdict::Linearizable),
        (
            "initial read",
            vec![op(0, 1, Read(0))],
            Verdict::Linearizable,
        ),
        (
            "read of nothing written",
            vec![op(0, 1, Read(5))],
            Verdict::Impossible,
        ),
        (
            "read after write",
            vec![op(0, 1, Write(1)), op(2, 3, Read(1))],
            Verdict::Linearizable,
        ),
        (
            "stale read",
            vec![op(0, 1, Write(1)), op(2, 3, Read(0))],
            Verdict::Impossible,
        ),
        (
            "concurrent read old",
            vec![op(0, 9, Write(1)), op(2, 3, Read(0))],
            Verdict::Linearizable,
        ),
        (
            "concurrent read new",
            vec![op(0, 9, Write(1)), op(2, 3, Read(1))],
            Verdict::Linearizable,
        ),
        (
            "value that comes and goes",
            vec![op(0, 9, Write(1)), op(1, 2, Read(1)), op(3, 4, Read(0))],
            Verdict::Impossible,
        ),
        (
            "touching times are concurrent",
            vec![op(0, 2, Write(1)), op(2, 3, Read(0))],
            Verdict::Linearizable,
        ),
        (
            "lost write seen",
            vec![lost(0, Write(1)), op(5, 6, Read(0)), op(7, 8, Read(1))],
            Verdict::Linearizable,
        ),
        (
            "lost write never seen",
            vec![lost(0, Write(1)), op(5, 6, Read(0))],
            Verdict::Linearizable,
        ),
        (
            "lost write undone",
            vec![lost(0, Write(1)), op(5, 6, Read(1)), op(7, 8, Read(0))],
            Verdict::Impossible,
        ),
        (
            "lost write before its call",
            vec![op(0, 1, Read(1)), lost(5, Write(1))],
            Verdict::Impossible,
        ),
        (
            "two winners",
            vec![op(0, 9, cas(0, 1, true)), op(0, 9, cas(0, 2, true))],
            Verdict::Impossible,
        ),
        (
            "one winner",
            vec![op(0, 9, cas(0, 1, true)), op(0, 9, cas(0, 2, false))],
            Verdict::Linearizable,
        ),
        (
            "refused though it matched",
            vec![op(0, 1, cas(0, 1, false))],
            Verdict::Impossible,
        ),
        (
            "unanswered swap that happened",
            vec![op(0, 1, Write(1)), lost(2, unsure), op(5, 6, Read(2))],
            Verdict::Linearizable,
        ),
        (
            "unanswered swap that could not",
            vec![op(0, 1, Write(3)), lost(2, unsure), op(5, 6, Read(2))],
            Verdict::Impossible,
        ),
    ];
    for (name, history, verdict) in cases {
        assert_eq!(check(&history, 100_000), verdict, "{name}");
    }
}

#[test]
fn gives_up_at_its_limit() {
    assert_eq!(
        check(&[op(0, 1, Write(1)), op(2, 3, Read(1))], 1),
        Verdict::Undecided
    );
}

/// Tries every order of every subset that contains all answered operations.
fn by_force(history: &[Operation], done: &mut Vec<bool>, value: u64) -> bool {
    let earliest_return = (0..history.len())
        .filter(|&i| !done[i])
        .filter_map(|i| history[i].returned)
        .min();
    let Some(deadline) = earliest_return else {
        return true;
    };
    (0..history.len()).any(|index| {
        if done[index] || history[index].called > deadline {
            return false;
        }
        let Some(next) = apply(value, history[index].action) else {
            return false;
        };
        done[index] = true;
        let found = by_force(history, done, next);
        done[index] = false;
        found
    })
}

#[test]
fn agrees_with_brute_force() {
    let mut seed = Seed::new(11);
    let mut verdicts = [0, 0];
    for round in 0..3000 {
        let history: Vec<Operation> = (0..7)
            .map(|_| {
                let called = seed.below(20);
                let action = match seed.below(3) {
                    0 => Read(seed.below(3)),
                    1 => Write(1 + seed.below(2)),
                    _ => cas(seed.below(3), 1 + seed.below(2), seed.below(2) == 0),
                };
                let returned = (seed.below(5) > 0).then(|| called + 1 + seed.below(8));
                Operation {
                    called,
                    returned,
                    action,
                }
            })
            .collect();
        let expected = by_force(&history, &mut vec![false; history.len()], 0);
        let verdict = check(&history, 1_000_000);
        assert_eq!(
            verdict == Verdict::Linearizable,
            expected,
            "round {round}: {history:?}"
        );
        verdicts[usize::from(expected)] += 1;
    }
    assert!(
        verdicts[0] > 300 && verdicts[1] > 300,
        "too one-sided to prove anything: {verdicts:?}"
    );
}
