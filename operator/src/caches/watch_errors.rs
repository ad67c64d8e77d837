//! Logging of watch errors. A watch restarts by itself with backoff; the same error is logged once, not at
//! every attempt.
use std::time::{Duration, Instant};

use kube::runtime::watcher;

/// A persisting error is logged again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(600);

/// The current error of one watch, and when it was last logged.
#[derive(Debug, Default)]
pub(super) struct WatchErrors(Option<(String, Instant)>);

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Failed(String),
    Recovered,
}

impl WatchErrors {
    /// Processes an event of a watch of this kind and logs what has changed.
    pub(super) fn observe<K>(
        &mut self,
        kind: &str,
        event: &Result<watcher::Event<K>, watcher::Error>,
    ) {
        // Sent before every attempt, including those that fail.
        if matches!(event, Ok(watcher::Event::Init)) {
            return;
        }
        let failure = event.as_ref().err().map(|error| match is_forbidden(error) {
            true => format!(
                "{error}. If the namespace no longer exists, remove it from --namespaces; otherwise create the operator's Role in it"
            ),
            false => error.to_string(),
        });
        match self.note(failure, Instant::now()) {
            Some(Change::Failed(text)) => tracing::warn!("watching {kind}: {text}"),
            Some(Change::Recovered) => tracing::info!("watching {kind} has recovered"),
            None => {}
        }
    }

    fn note(&mut self, failure: Option<String>, now: Instant) -> Option<Change> {
        let Some(text) = failure else {
            return self.0.take().map(|_| Change::Recovered);
        };
        let is_known = self.0.as_ref().is_some_and(|(last, at)| {
            *last == text && now.saturating_duration_since(*at) < REPEAT_AFTER
        });
        if is_known {
            return None;
        }
        self.0 = Some((text.clone(), now));
        Some(Change::Failed(text))
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_until_it_changes_or_works() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let failed = |text: &str| Some(Change::Failed(text.to_owned()));
        let mut errors = WatchErrors::default();
        let steps = [
            (0, None, None),
            (1, Some("403"), failed("403")),
            (2, Some("403"), None),
            (600, Some("403"), None),
            (601, Some("403"), failed("403")),
            (602, Some("503"), failed("503")),
            (603, None, Some(Change::Recovered)),
            (604, None, None),
            (605, Some("503"), failed("503")),
        ];
        for (second, failure, expected) in steps {
            let change = errors.note(failure.map(str::to_owned), at(second));
            assert_eq!(change, expected, "{second}");
        }
    }
}
