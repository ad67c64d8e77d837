//! The command line: clap's raw form and the checked [`Options`] that the rest of the shell uses.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::host::{self, HostFlags, Target};
use crate::tls::TlsFiles;
use crate::user::{self, Given, User};

const AFTER_HELP: &str = "\
Without -e the shell reads one statement or command per line from standard input, and its exit code is 0 whatever \
happened, unless --exit-on-error is given.

With -e the given lines are run in order and the shell ends: no greeting and no prompt are printed, errors go to \
standard error, and the exit code is 1 if any line failed.

Environment:
  RQLITE_HOST          [scheme:]//host[:port], used when none of -H, -p and -s is given
  RQLITE_USER          name of the user, if neither --user nor --user-file is given
  RQLITE_PASSWORD      password of the user, if it is given by name alone
  RQLITE_HISTFILESIZE  lines kept in ~/.rqlite_history (default 100; 0 or less removes the file)
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY  as usual; loopback hosts are never reached through a proxy";

#[derive(Parser, Debug)]
#[command(
    name = "rqlite",
    about = "Command-line shell for rqlite",
    after_help = AFTER_HELP,
    disable_version_flag = true,
    args_override_self = true
)]
struct Raw {
    /// Show the version and exit
    #[arg(short = 'v', long)]
    version: bool,
    /// Server host address [default: 127.0.0.1]
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Option<String>,
    /// Server host port [default: 4001]
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Protocol scheme, http or https [default: http]
    #[arg(short, long, value_name = "SCHEME")]
    scheme: Option<String>,
    /// Comma-separated list of 'host:port' to fall back to when the host cannot be reached
    #[arg(
        short,
        long,
        value_name = "LIST",
        default_value = "",
        hide_default_value = true
    )]
    alternatives: String,
    /// Path prefix of the HTTP endpoints, must end in '/'
    #[arg(short = 'P', long, value_name = "PREFIX", default_value = "/")]
    prefix: String,
    /// User, as 'name' or 'name:password'. Other users of this machine can see a password that is given here;
    /// without it, it comes from RQLITE_PASSWORD or a prompt
    #[arg(
        short,
        long,
        value_name = "NAME[:PASSWORD]",
        default_value = "",
        hide_default_value = true
    )]
    user: String,
    /// File with one line 'name:password'; - for the first line of standard input
    #[arg(long, value_name = "FILE")]
    user_file: Option<PathBuf>,
    /// Do not verify the server's certificate
    #[arg(short, long)]
    insecure: bool,
    /// CA certificate that the server's certificate is checked against (PEM), instead of the system's
    #[arg(short, long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(short = 'd', long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(short = 'k', long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// Time limit of a request, such as 500ms or 1m30s; 0 for none. Does not apply to .restore and .boot
    #[arg(short = 't', long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    http_timeout: Duration,
    /// Run this SQL statement or dot command and exit; may be repeated
    #[arg(
        short = 'e',
        long = "execute",
        value_name = "LINE",
        allow_hyphen_values = true
    )]
    execute: Vec<String>,
    /// Stop at the first line that fails and exit with code 1
    #[arg(long)]
    exit_on_error: bool,
}

/// Parses a Go duration that is not negative. A bare number is refused, except `0`.
fn duration(text: &str) -> Result<Duration, String> {
    node_contract::duration::parse_nanos(text)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("invalid duration {text:?}"))
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) enum Request {
    /// Print this text (help or version) and exit with success.
    Show(String),
    /// Run the shell.
    Work(Box<Options>),
}

/// Why a command line is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ArgsError {
    /// The command line cannot be parsed; the text is complete and ends with a line feed.
    Usage(String),
    /// A value is invalid.
    Value(String),
}

/// Checked options.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) target: Target,
    /// Begins and ends with `/`.
    pub(crate) prefix: String,
    pub(crate) user: User,
    pub(crate) tls: TlsFiles,
    /// Limit of one request; `None` for no limit.
    pub(crate) timeout: Option<Duration>,
    /// Lines to run instead of reading standard input.
    pub(crate) lines: Vec<String>,
    pub(crate) exit_on_error: bool,
}

/// Variables of the environment.
#[derive(Default)]
pub(crate) struct Environment {
    /// `RQLITE_HOST`.
    pub(crate) host: Option<String>,
    /// `RQLITE_USER`.
    pub(crate) user: Option<String>,
    /// `RQLITE_PASSWORD`.
    pub(crate) password: Option<String>,
}

/// Reads the command line (program name first), the environment and the file of `--user-file`.
pub(crate) fn parse(
    arguments: Vec<OsString>,
    environment: &Environment,
) -> Result<Request, ArgsError> {
    let raw = match Raw::try_parse_from(arguments) {
        Ok(raw) => raw,
        Err(error) if error.use_stderr() => return Err(ArgsError::Usage(error.to_string())),
        Err(help) => return Ok(Request::Show(help.to_string())),
    };
    if raw.version {
        return Ok(Request::Show(version()));
    }
    check(raw, environment)
        .map(|options| Request::Work(Box::new(options)))
        .map_err(ArgsError::Value)
}

/// The first line of standard input; the rest stays to be read.
fn first_line() -> std::io::Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line)
}

fn check(raw: Raw, environment: &Environment) -> Result<Options, String> {
    let flags = HostFlags {
        host: raw.host.as_deref(),
        port: raw.port,
        scheme: raw.scheme.as_deref(),
        alternatives: &raw.alternatives,
    };
    let target = host::resolve(&flags, environment.host.as_deref())?;
    if !raw.prefix.ends_with('/') {
        return Err(format!("path prefix {:?} does not end in '/'", raw.prefix));
    }
    let prefix = if raw.prefix.starts_with('/') {
        raw.prefix
    } else {
        format!("/{}", raw.prefix)
    };
    let file = match &raw.user_file {
        Some(path) => {
            let read = match path.as_os_str() == "-" {
                // What follows is for the shell.
                true => first_line(),
                false => std::fs::read_to_string(path),
            };
            Some(read.map_err(|error| format!("{}: {error}", path.display()))?)
        }
        None => None,
    };
    let user = user::choose(&Given {
        flag: &raw.user,
        file: file.as_deref(),
        variable: environment.user.as_deref(),
        password: environment.password.as_deref(),
    })?;
    Ok(Options {
        target,
        prefix,
        user,
        tls: TlsFiles {
            insecure: raw.insecure,
            ca_cert: raw.ca_cert,
            client_cert: raw.client_cert,
            client_key: raw.client_key,
        },
        timeout: (!raw.http_timeout.is_zero()).then_some(raw.http_timeout),
        lines: raw.execute,
        exit_on_error: raw.exit_on_error,
    })
}

fn version() -> String {
    format!(
        "Version {}, commit {}, built on {}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("RQLITE_COMMIT").unwrap_or("unknown"),
        option_env!("RQLITE_BUILD_TIME").unwrap_or("unknown"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, ArgsError> {
        let all = std::iter::once("rqlite")
            .chain(arguments.iter().copied())
            .map(OsString::from)
            .collect();
        match parse(all, &Environment::default())? {
            Request::Work(options) => Ok(*options),
            Request::Show(text) => panic!("expected options, got {text}"),
        }
    }

    #[test]
    fn defaults() {
        let options = options(&[]).unwrap();
        assert_eq!(options.target.hosts, ["127.0.0.1:4001"]);
        assert_eq!(options.prefix, "/");
        assert_eq!(options.timeout, Some(Duration::from_secs(30)));
        assert!(
            options.user == User::Anonymous && options.lines.is_empty() && !options.exit_on_error
        );
    }

    #[test]
    fn every_short_flag() {
        let options = options(&[
            "-H",
            "db",
            "-p",
            "1",
            "-s",
            "https",
            "-a",
            "x:2",
            "-P",
            "api/",
            "-u",
            "bob:pw",
            "-i",
            "-c",
            "ca",
            "-d",
            "cert",
            "-k",
            "key",
            "-t",
            "0",
            "-e",
            "SELECT 1",
            "-e",
            "-- note",
            "--exit-on-error",
        ])
        .unwrap();
        assert_eq!(options.target.hosts, ["db:1", "x:2"]);
        assert_eq!(options.prefix, "/api/");
        assert_eq!(options.user, User::Known("bob".to_owned(), "pw".to_owned()));
        assert!(
            options.tls.insecure
                && options.tls.ca_cert.is_some()
                && options.tls.client_key.is_some()
        );
        assert_eq!(options.timeout, None);
        assert_eq!(options.lines, ["SELECT 1", "-- note"]);
        assert!(options.exit_on_error);
    }

    #[test]
    fn the_last_of_repeated_flags_wins() {
        assert_eq!(
            options(&["-p", "1", "-p", "2"]).unwrap().target.hosts,
            ["127.0.0.1:2"]
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for (arguments, text) in [
            (
                ["-u", "a:b:c"],
                "invalid Basic Auth credential format: a password with a colon goes into --user-file or RQLITE_PASSWORD",
            ),
            (
                ["--user-file", "/no/such/file"],
                "/no/such/file: No such file or directory (os error 2)",
            ),
            (["-s", "ftp"], "unsupported protocol ftp"),
            (["-P", "/x"], "path prefix \"/x\" does not end in '/'"),
        ] {
            assert_eq!(
                options(&arguments).unwrap_err(),
                ArgsError::Value(text.to_owned())
            );
        }
        for arguments in [["-p", "0"], ["-p", "70000"], ["-t", "30"], ["-x", "1"]] {
            assert!(
                matches!(options(&arguments), Err(ArgsError::Usage(_))),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn help_and_version_are_texts() {
        for (flag, start) in [
            ("-v", "Version "),
            ("--help", "Command-line shell for rqlite"),
            ("-h", "Command-line"),
        ] {
            match parse(vec!["rqlite".into(), flag.into()], &Environment::default()) {
                Ok(Request::Show(text)) => assert!(text.starts_with(start), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn durations_are_positive_and_have_units() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["", "30", "-1s", "1 s", "300000000h"] {
            assert_eq!(duration(text), Err(format!("invalid duration {text:?}")));
        }
    }
}
