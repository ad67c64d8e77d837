//! Runs other programs to their end, and waits for their effects.
use std::{
    ffi::OsStr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Pause between two probes.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// If it cannot be started or fails; shows its command line and its output.
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

/// Runs `ip` with these arguments.
///
/// # Errors
/// See [`run`].
pub fn ip(args: &str) -> Result<String> {
    run(Command::new("ip").args(args.split_whitespace()))
}

/// Calls `probe` until it returns `Ok`, for at most `limit`.
///
/// # Errors
/// After `limit`: names `what` was awaited and the last error of `probe`.
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
    let args: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    args.join(" ")
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
