//! Records of what clients wrote and which replies they received, and their comparison with the database.
use std::collections::BTreeMap;

use crate::client::WriteOutcome;

/// One numbered write: the row `(writer, number)` was sent once.
#[derive(Clone, Debug)]
pub struct NumberedWrite {
    /// The client that sent it.
    pub writer: u64,
    /// Increases by one with every write of this writer.
    pub number: u64,
    /// How the write ended from the writer's point of view.
    pub outcome: WriteOutcome,
}

/// Number of writes by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Must be present.
    pub acknowledged: usize,
    /// Must be absent.
    pub refused: usize,
    /// May be present or absent.
    pub unknown: usize,
}

/// Counts the outcomes.
#[must_use]
pub fn tally(writes: &[NumberedWrite]) -> Tally {
    let mut tally = Tally::default();
    for write in writes {
        match write.outcome {
            WriteOutcome::Acknowledged(_) => tally.acknowledged += 1,
            WriteOutcome::Refused(_) => tally.refused += 1,
            WriteOutcome::Unknown(_) => tally.unknown += 1,
        }
    }
    tally
}

/// The errors of writes that were not acknowledged, with their counts, most frequent first. Digits are
/// removed, so that equal errors with different numbers count together.
#[must_use]
pub fn reasons(writes: &[NumberedWrite]) -> Vec<(usize, String)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes {
        let (kind, text) = match &write.outcome {
            WriteOutcome::Acknowledged(_) => continue,
            WriteOutcome::Refused(text) => ("refused", text),
            WriteOutcome::Unknown(text) => ("unknown", text),
        };
        let words: String = text
            .chars()
            .filter(|letter| !letter.is_ascii_digit())
            .collect();
        *counts.entry(format!("{kind}: {words}")).or_default() += 1;
    }
    let mut reasons: Vec<(usize, String)> = counts
        .into_iter()
        .map(|(reason, count)| (count, reason))
        .collect();
    reasons.sort_by(|one, other| other.cmp(one));
    reasons
}

/// Compares the writes with the rows found (`(writer, number)` → count). Acknowledged writes must be present
/// exactly once, refused ones never, unknown ones at most once, and no other row may exist. Returns every
/// contradiction.
#[must_use]
pub fn contradictions(writes: &[NumberedWrite], found: &BTreeMap<(u64, u64), u64>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sent = BTreeMap::new();
    for write in writes {
        let key = (write.writer, write.number);
        let count = found.get(&key).copied().unwrap_or(0);
        sent.insert(key, ());
        let fits = match write.outcome {
            WriteOutcome::Acknowledged(_) => count == 1,
            WriteOutcome::Refused(_) => count == 0,
            WriteOutcome::Unknown(_) => count <= 1,
        };
        if !fits {
            wrong.push(format!(
                "row {key:?} is there {count} times, its writer recorded {:?}",
                write.outcome
            ));
        }
    }
    wrong.extend(
        found
            .keys()
            .filter(|key| !sent.contains_key(*key))
            .map(|key| format!("row {key:?} was never written")),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(number: u64, outcome: WriteOutcome) -> NumberedWrite {
        NumberedWrite {
            writer: 1,
            number,
            outcome,
        }
    }

    fn found(counts: &[(u64, u64)]) -> BTreeMap<(u64, u64), u64> {
        counts
            .iter()
            .map(|&(number, count)| ((1, number), count))
            .collect()
    }

    #[test]
    fn every_outcome_has_its_allowed_counts() {
        let outcomes = [
            WriteOutcome::Acknowledged(1),
            WriteOutcome::Refused("no".to_owned()),
            WriteOutcome::Unknown("lost".to_owned()),
        ];
        let allowed = [
            [false, true, false],
            [true, false, false],
            [true, true, false],
        ];
        for (outcome, allowed) in outcomes.into_iter().zip(allowed) {
            for (count, fits) in (0..).zip(allowed) {
                let rows = if count == 0 {
                    found(&[])
                } else {
                    found(&[(7, count)])
                };
                let wrong = contradictions(&[write(7, outcome.clone())], &rows);
                assert_eq!(
                    wrong.is_empty(),
                    fits,
                    "{outcome:?} {count} times: {wrong:?}"
                );
            }
        }
    }

    #[test]
    fn rows_from_nowhere_are_noticed() {
        assert_eq!(
            contradictions(&[], &found(&[(1, 1)])),
            ["row (1, 1) was never written"]
        );
    }

    #[test]
    fn reasons_count_without_their_numbers() {
        let writes = [
            write(1, WriteOutcome::Unknown("dial 127.0.0.1:1".to_owned())),
            write(2, WriteOutcome::Unknown("dial 127.0.0.1:22".to_owned())),
            write(3, WriteOutcome::Refused("503 no".to_owned())),
            write(4, WriteOutcome::Acknowledged(1)),
        ];
        let expected = [
            (2, "unknown: dial ...:".to_owned()),
            (1, "refused:  no".to_owned()),
        ];
        assert_eq!(reasons(&writes), expected);
    }

    #[test]
    fn tallies() {
        let writes = [
            write(1, WriteOutcome::Acknowledged(1)),
            write(2, WriteOutcome::Acknowledged(1)),
            write(3, WriteOutcome::Unknown(String::new())),
        ];
        assert_eq!(
            tally(&writes),
            Tally {
                acknowledged: 2,
                refused: 0,
                unknown: 1
            }
        );
    }
}
