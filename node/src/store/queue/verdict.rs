//! The next step for a queued write, decided from its outcome alone.
use node_values::StatementResult;

use crate::store_types::{Served, StoreError};

/// The final result of a queued request: the error that a caller of
/// [`Store::execute`](crate::store::Store::execute) would have got, or that of the request's first failed
/// statement.
pub type Decision = Result<(), StoreError>;

/// The next step for a write.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Written,
    /// It had no effect. Retry; counts against the limit of attempts only if `limited`.
    Retry {
        error: StoreError,
        limited: bool,
    },
    /// It had no effect and can never succeed as it is.
    Refused(StoreError),
    /// It may have taken effect. A retry could write it twice.
    Unknown(StoreError),
}

pub(super) fn classify(outcome: &Result<Served, StoreError>, transaction: bool) -> Verdict {
    match outcome {
        Ok(Served {
            error: Some(why), ..
        }) => Verdict::Refused(StoreError::Refused(why.clone())),
        Ok(served) => match first_error(&served.results) {
            // Everything was rolled back, including the statements of other requests.
            Some(why) if transaction => Verdict::Refused(why),
            _ => Verdict::Written,
        },
        Err(error) => match error {
            StoreError::LeaderNotFound
            | StoreError::NotLeader
            | StoreError::NotOpen
            | StoreError::NotReady => Verdict::Retry {
                error: error.clone(),
                limited: false,
            },
            StoreError::Refused(_) => Verdict::Retry {
                error: error.clone(),
                limited: true,
            },
            StoreError::Unknown(_) => Verdict::Unknown(error.clone()),
            StoreError::Unauthorized(_) | StoreError::TooLarge(_) => {
                Verdict::Refused(error.clone())
            }
        },
    }
}

fn first_error(results: &[StatementResult]) -> Option<StoreError> {
    results.iter().find_map(|result| match result {
        StatementResult::Error(why) => Some(StoreError::Refused(why.clone())),
        _ => None,
    })
}

/// Why a write has no result.
pub(super) enum Failed {
    /// It had no effect.
    Refused(StoreError),
    /// It may have had its effect.
    Unknown(StoreError),
}

/// The result of each request of a write, given the number of its statements.
pub(super) fn shares(
    counts: impl Iterator<Item = usize>,
    results: &[StatementResult],
) -> Vec<Decision> {
    let mut rest = results;
    let share = |count: usize| {
        let (own, others) = rest.split_at(count.min(rest.len()));
        rest = others;
        first_error(own).map_or(Ok(()), Err)
    };
    counts.map(share).collect()
}

#[cfg(test)]
mod tests {
    use node_values::WriteResult;

    use super::*;

    fn served(results: Vec<StatementResult>, error: Option<&str>) -> Result<Served, StoreError> {
        Ok(Served {
            results,
            error: error.map(str::to_owned),
            raft_index: Some(1),
            served_by: String::new(),
        })
    }

    fn good() -> StatementResult {
        StatementResult::Write(WriteResult::default())
    }

    fn bad() -> StatementResult {
        StatementResult::Error("no such table: t".into())
    }

    #[test]
    fn only_what_certainly_had_no_effect_is_tried_again() {
        let refused = |text: &str| StoreError::Refused(text.into());
        let retry = |error: StoreError, limited| Verdict::Retry { error, limited };
        let unknown = StoreError::Unknown("lost".into());
        let denied = StoreError::Unauthorized("remote Execute not authorized".into());
        let large = StoreError::TooLarge("too large".into());
        let table = [
            (served(vec![good()], None), false, Verdict::Written),
            (served(vec![good()], None), true, Verdict::Written),
            (served(vec![good(), bad()], None), false, Verdict::Written),
            (
                served(vec![good(), bad()], None),
                true,
                Verdict::Refused(refused("no such table: t")),
            ),
            (
                served(vec![], Some("disallowed pragma")),
                false,
                Verdict::Refused(refused("disallowed pragma")),
            ),
            (Err(unknown.clone()), false, Verdict::Unknown(unknown)),
            (Err(denied.clone()), false, Verdict::Refused(denied)),
            (Err(large.clone()), false, Verdict::Refused(large)),
            (Err(refused("full")), false, retry(refused("full"), true)),
            (
                Err(StoreError::LeaderNotFound),
                false,
                retry(StoreError::LeaderNotFound, false),
            ),
            (
                Err(StoreError::NotLeader),
                false,
                retry(StoreError::NotLeader, false),
            ),
        ];
        for (outcome, transaction, want) in table {
            assert_eq!(classify(&outcome, transaction), want, "{outcome:?}");
        }
    }

    #[test]
    fn everybody_is_told_his_own_statements_errors() {
        let reported = |counts: &[usize], results: &[StatementResult]| {
            let decisions = shares(counts.iter().copied(), results);
            decisions.iter().map(Result::is_ok).collect::<Vec<_>>()
        };
        assert_eq!(
            reported(&[1, 2, 0, 1], &[good(), good(), bad(), good()]),
            [true, false, true, true]
        );
        assert_eq!(
            reported(&[2, 1], &[bad()]),
            [false, true],
            "the rest did not run"
        );
    }
}
