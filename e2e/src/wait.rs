//! Waits for conditions with a deadline. The only place in this crate that sleeps.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Pause between two probes.
const POLL_PERIOD: Duration = Duration::from_millis(15);

/// Calls `probe` until it returns `Ok`, for at most `limit`.
///
/// # Errors
/// After `limit`: names `what` was awaited and the last error of `probe`.
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

/// Calls `probe` for the whole of `span`: for conditions that must keep holding.
///
/// # Errors
/// Immediately, with the first error of `probe`.
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

/// Sleeps for `span`: for pacing a load or a nemesis, never as a substitute for [`until`].
pub fn sleep(span: Duration) {
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
