//! Waiting for a condition with a deadline: the only place in this crate that sleeps.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long a probe may take to see a change that has happened.
const POLL_PERIOD: Duration = Duration::from_millis(15);

/// Calls `probe` until it gives `Ok`, at most for `limit`.
///
/// # Errors
/// After `limit`: names `what` was awaited and the last reason that `probe` gave.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                bail!(
                    "waited {:.1}s for {what}; last seen: {last}",
                    limit.as_secs_f64()
                );
            }
            Err(_) => thread::sleep(POLL_PERIOD),
        }
    }
}

/// Calls `probe` for the whole of `span`: for things that must *not* happen.
///
/// # Errors
/// At once, with the reason that `probe` gave.
pub fn throughout(
    what: &str,
    span: Duration,
    mut probe: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(seen) = probe() {
            bail!(
                "{what} did not hold after {:.1}s: {seen}",
                start.elapsed().as_secs_f64()
            );
        }
        thread::sleep(POLL_PERIOD);
    }
    Ok(())
}

/// Lets `span` pass; for pacing a load or a nemesis, never for hoping that something has settled.
pub fn pace(span: Duration) {
    thread::sleep(span);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_of_the_first_success() {
        let mut calls = 0;
        let got = until("three calls", Duration::from_secs(5), || {
            calls += 1;
            if calls == 3 {
                Ok(calls)
            } else {
                Err(format!("{calls} calls"))
            }
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn says_what_it_saw_last() {
        let error = until::<()>("the impossible", Duration::ZERO, || {
            Err("nothing".to_owned())
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0.0s for the impossible; last seen: nothing"
        );
    }

    #[test]
    fn a_broken_promise_ends_at_once() {
        let error =
            throughout("peace", Duration::from_secs(60), || Err("war".to_owned())).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("peace did not hold after 0.0s: war"),
            "{error}"
        );
    }
}
