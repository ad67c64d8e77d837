//! Running other programs to their end, and waiting for what they bring about.
use std::{
    ffi::OsStr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Between two looks at a condition.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails; with its command line and what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let line = spelled(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {line}: is it installed? (.ci/install)"))?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        bail!("{line}: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `ip` with these words.
///
/// # Errors
/// As [`run`].
pub fn ip(words: &str) -> Result<String> {
    run(Command::new("ip").args(words.split_whitespace()))
}

/// Calls `probe` until it gives `Ok`, at most for `limit`.
///
/// # Errors
/// After `limit`: names `what` was awaited and the last reason that `probe` gave.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                return Err(last.context(format!("waited {:.1} s for {what}", limit.as_secs_f64())));
            }
            Err(_) => thread::sleep(POLL_PERIOD),
        }
    }
}

fn spelled(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_run_and_why() {
        let error = run(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo no >&2; exit 3: no");
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().contains(".ci/install"), "{error}");
    }

    #[test]
    fn waiting_ends_with_the_last_reason() {
        let error = until::<()>("it", Duration::ZERO, || bail!("not yet")).unwrap_err();
        assert_eq!(format!("{error:#}"), "waited 0.0 s for it: not yet");
    }
}
