//! Exponential backoff of failed reconciles, separately for each cluster.
use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

use crate::error::Class;

/// First wait after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// Maximum wait.
const LONGEST: Duration = Duration::from_secs(300);
/// Wait after a conflict; the caches catch up within milliseconds.
const CONFLICT_WAIT: Duration = Duration::from_millis(500);
/// Waits vary by this fraction in both directions, so that many clusters do not retry at the same moment.
const JITTER: f64 = 0.2;

/// The wait after this number of consecutive failures, before jitter.
fn wait(class: Class, failures: u32) -> Duration {
    match class {
        // Many consecutive conflicts are not explained by lagging caches.
        Class::Conflict if failures <= 10 => CONFLICT_WAIT,
        Class::Conflict | Class::Transient | Class::Refused | Class::NotLeading => {
            let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
            FIRST.saturating_mul(doubled).min(LONGEST)
        }
    }
}

/// Applies jitter to a wait. `chance` is a random number between 0 and 1.
pub fn varied(wait: Duration, chance: f64) -> Duration {
    wait.mul_f64(1.0 + JITTER * (2.0 * chance.clamp(0.0, 1.0) - 1.0))
}

/// Consecutive failures, by cluster.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// Counts a failure. Returns the wait and the number of consecutive failures.
    pub fn failed(&self, key: &str, class: Class) -> (Duration, u32) {
        let mut all = self.0.lock();
        let failures = all.entry(key.to_owned()).or_default();
        *failures = failures.saturating_add(1);
        (
            varied(wait(class, *failures), rand::random::<f64>()),
            *failures,
        )
    }

    /// Resets the failures of a cluster that succeeded or was deleted.
    pub fn forget(&self, key: &str) {
        let mut all = self.0.lock();
        all.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let cases = [
            (Class::Transient, 1, 1000),
            (Class::Transient, 2, 2000),
            (Class::Transient, 5, 16_000),
            (Class::Transient, 9, 256_000),
            (Class::Transient, 10, 300_000),
            (Class::Refused, u32::MAX, 300_000),
            (Class::Conflict, 1, 500),
            (Class::Conflict, 10, 500),
            (Class::Conflict, 11, 300_000),
        ];
        for (class, failures, ms) in cases {
            assert_eq!(
                wait(class, failures),
                Duration::from_millis(ms),
                "{class:?} {failures}"
            );
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let ten = Duration::from_secs(10);
        let cases = [(0.0, 8), (0.5, 10), (1.0, 12), (7.0, 12)];
        for (chance, s) in cases {
            assert_eq!(varied(ten, chance).as_secs_f64().round(), f64::from(s));
        }
    }

    #[test]
    fn each_cluster_for_itself() {
        let backoff = Backoff::default();
        for n in 1..4 {
            assert_eq!(backoff.failed("a", Class::Transient).1, n);
        }
        assert_eq!(backoff.failed("b", Class::Transient).1, 1);
        backoff.forget("a");
        assert_eq!(backoff.failed("a", Class::Transient).1, 1);
    }
}
