//! When an invalid new file is reported: a function without I/O.

/// Files that could not be used at the last check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) error: String,
    /// It is in the log and in the status.
    pub(super) reported: bool,
}

/// The failure after another check that ended with `error`. A certificate and its key are often written one
/// after the other, so an error is reported only if two checks in a row find it, and only once.
pub(super) fn after(previous: Option<&Failure>, error: String) -> Failure {
    let reported = previous.is_some_and(|previous| previous.error == error);
    Failure { error, reported }
}

/// It is to be reported now.
pub(super) fn is_news(previous: Option<&Failure>, now: &Failure) -> bool {
    now.reported
        && !previous.is_some_and(|previous| previous.reported && previous.error == now.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once_when_it_lasts() {
        let mut last: Option<Failure> = None;
        let mut seen = Vec::new();
        for error in ["a", "a", "a", "b", "a", "a", "c", "c"] {
            let now = after(last.as_ref(), error.to_owned());
            seen.push((error, is_news(last.as_ref(), &now)));
            last = Some(now);
        }
        let news: Vec<usize> = (0..seen.len()).filter(|at| seen[*at].1).collect();
        assert_eq!(news, [1, 5, 7], "{seen:?}");
    }
}
