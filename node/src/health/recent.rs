//! An answer that many ask for at the same time and that is found out once: clients may ask as often as
//! they like, but not make the node work as often.
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The last answer.
#[derive(Debug)]
pub(super) struct Recent<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Recent<T> {
    /// The last answer if it is not older than `fresh`, else a new one. Whoever asks meanwhile waits for it.
    pub(super) async fn get(&self, fresh: Duration, find_out: impl Future<Output = T>) -> T {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < fresh
        {
            return answer.clone();
        }
        let answer = find_out.await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[tokio::test]
    async fn many_ask_and_one_finds_out() {
        let (recent, asked) = (Recent::default(), AtomicU32::new(0));
        let find_out = || async {
            tokio::task::yield_now().await;
            asked.fetch_add(1, Relaxed)
        };
        let long = Duration::from_secs(3600);
        let answers = tokio::join!(
            recent.get(long, find_out()),
            recent.get(long, find_out()),
            recent.get(long, find_out())
        );
        assert_eq!(answers, (0, 0, 0));
        assert_eq!(recent.get(Duration::ZERO, find_out()).await, 1);
        assert_eq!(asked.load(Relaxed), 2);
    }
}
