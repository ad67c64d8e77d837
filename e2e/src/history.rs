//! What clients did and what they were told, and whether the database agrees with it afterwards.
use std::collections::BTreeMap;

use crate::client::Outcome;

/// One numbered write: the row `(writer, number)` was sent once.
#[derive(Clone, Debug)]
pub struct NumberedWrite {
    /// Who sent it.
    pub writer: u64,
    /// Rises by one with every write of this writer.
    pub number: u64,
    /// What the writer was told.
    pub outcome: Outcome,
}

/// How many writes ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Must be present.
    pub acknowledged: usize,
    /// Must be absent.
    pub refused: usize,
    /// May be either.
    pub unknown: usize,
}

/// Counts the outcomes.
#[must_use]
pub fn tally(writes: &[NumberedWrite]) -> Tally {
    let mut tally = Tally::default();
    for write in writes {
        match write.outcome {
            Outcome::Acknowledged(_) => tally.acknowledged += 1,
            Outcome::Refused(_) => tally.refused += 1,
            Outcome::Unknown(_) => tally.unknown += 1,
        }
    }
    tally
}

/// What writers were told when a write was not acknowledged, with how often; the most frequent first. Numbers are left
/// out, so that equal reasons count together.
#[must_use]
pub fn reasons(writes: &[NumberedWrite]) -> Vec<(usize, String)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes {
        let (kind, text) = match &write.outcome {
            Outcome::Acknowledged(_) => continue,
            Outcome::Refused(text) => ("refused", text),
            Outcome::Unknown(text) => ("unknown", text),
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

/// Compares the writes with the rows found (`(writer, number)` to how often): acknowledged ones exactly once, refused ones
/// never, unknown ones at most once, and nothing that nobody wrote. Gives every contradiction.
#[must_use]
pub fn contradictions(writes: &[NumberedWrite], found: &BTreeMap<(u64, u64), u64>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sent = BTreeMap::new();
    for write in writes {
        let key = (write.writer, write.number);
        let count = found.get(&key).copied().unwrap_or(0);
        sent.insert(key, ());
        let fits = match write.outcome {
            Outcome::Acknowledged(_) => count == 1,
            Outcome::Refused(_) => count == 0,
            Outcome::Unknown(_) => count <= 1,
        };
        if !fits {
            wrong.push(format!(
                "row {key:?} is there {count} times, its writer was told {:?}",
                write.outcome
            ));
        }
    }
    wrong.extend(
        found
            .keys()
            .filter(|key| !sent.contains_key(*key))
            .map(|key| format!("nobody wrote row {key:?}")),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(number: u64, outcome: Outcome) -> NumberedWrite {
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
            Outcome::Acknowledged(1),
            Outcome::Refused("no".to_owned()),
            Outcome::Unknown("lost".to_owned()),
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
            ["nobody wrote row (1, 1)"]
        );
    }

    #[test]
    fn reasons_count_without_their_numbers() {
        let writes = [
            write(1, Outcome::Unknown("dial 127.0.0.1:1".to_owned())),
            write(2, Outcome::Unknown("dial 127.0.0.1:22".to_owned())),
            write(3, Outcome::Refused("503 no".to_owned())),
            write(4, Outcome::Acknowledged(1)),
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
            write(1, Outcome::Acknowledged(1)),
            write(2, Outcome::Acknowledged(1)),
            write(3, Outcome::Unknown(String::new())),
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
