//! Decides which program to execute, from the arguments and the environment. A pure function.
use std::{collections::BTreeMap, time::Duration};

/// Subcommands of this program, selected by their name.
const SUBCOMMANDS: [&str; 8] = [
    "archive",
    "backup",
    "fetch",
    "hash-password",
    "inspect",
    "parked",
    "prepare",
    "skip-entry",
];
/// Directory of SQLite extensions in the image, each as `<name>.zip`.
const EXTENSIONS: &str = "/opt/extensions";
const DEFAULT_DATA: &str = "/rqlite/file/data";
const HTTP_PORT: u16 = 4001;
const RAFT_PORT: u16 = 4002;
/// Default delay in Kubernetes, where a pod's name may resolve only seconds after its start.
const KUBERNETES_DELAY: Duration = Duration::from_secs(5);
/// Longest accepted delay; a longer one is most likely in a wrong unit.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// The environment of a container.
pub(super) struct Container<'a> {
    pub(super) variables: &'a BTreeMap<String, String>,
    /// Text of `/etc/hosts`.
    pub(super) hosts: &'a str,
    pub(super) host_name: &'a str,
    /// Whether a file exists.
    pub(super) exists: &'a dyn Fn(&str) -> bool,
}

/// The program to execute.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// This program with these arguments, after the delay.
    Own { words: Vec<String>, delay: Duration },
    /// Another program.
    Other { program: String, words: Vec<String> },
}

impl Container<'_> {
    /// The value of a variable; an empty one counts as not set.
    fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// As `hostname -f`: the first name in the line of `/etc/hosts` that contains the host's name; without
    /// such a line, the host's name.
    fn full_name(&self) -> &str {
        self.hosts
            .lines()
            .filter_map(|line| {
                let entry = line.split('#').next().unwrap_or_default();
                let names: Vec<&str> = entry.split_whitespace().skip(1).collect();
                let first = *names.first()?;
                (names.contains(&self.host_name) && first != "localhost").then_some(first)
            })
            .next()
            .unwrap_or(self.host_name)
    }

    fn delay(&self) -> Result<Duration, String> {
        let Some(value) = self.variable("START_DELAY") else {
            let is_in_kubernetes = self.variable("KUBERNETES_SERVICE_HOST").is_some();
            return Ok(if is_in_kubernetes {
                KUBERNETES_DELAY
            } else {
                Duration::ZERO
            });
        };
        let seconds = value.parse::<f64>().ok();
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|delay| *delay <= LONGEST_DELAY)
            .ok_or_else(|| {
                let longest = LONGEST_DELAY.as_secs();
                format!(
                    "START_DELAY is {value:?}: it must be a number of seconds from 0 to {longest}"
                )
            })
    }

    /// The flags from variables and defaults, except those in `given`.
    fn flags(&self, given: &[String]) -> Result<Vec<String>, String> {
        let is_given = |flag: &str| given.iter().any(|word| flag_name(word) == Some(flag));
        let own = |port: u16| format!("{}:{port}", self.full_name());
        let any = |port: u16| format!("0.0.0.0:{port}");
        let defaults = [
            ("http-addr", "HTTP_ADDR", any(HTTP_PORT)),
            ("http-adv-addr", "HTTP_ADV_ADDR", own(HTTP_PORT)),
            ("raft-addr", "RAFT_ADDR", any(RAFT_PORT)),
            ("raft-adv-addr", "RAFT_ADV_ADDR", own(RAFT_PORT)),
            ("node-id", "NODE_ID", self.host_name.to_owned()),
        ];
        let mut flags = Vec::new();
        for (flag, variable, default) in defaults {
            if !is_given(flag) {
                let value = self.variable(variable).unwrap_or(&default);
                flags.push(format!("-{flag}={value}"));
            }
        }
        if let Some(paths) = self.extensions()? {
            if is_given("extensions-path") {
                return Err(
                    "SQLITE_EXTENSIONS and CUSTOM_SQLITE_EXTENSIONS_PATH cannot be set together with -extensions-path: use one of the two ways"
                        .to_owned(),
                );
            }
            flags.push(format!("-extensions-path={paths}"));
        }
        if self.variable("ENABLE_FK").is_some() && !is_given("fk") {
            flags.push("-fk".to_owned());
        }
        Ok(flags)
    }

    /// Paths of the extensions that are selected by name, then those of the user.
    fn extensions(&self) -> Result<Option<String>, String> {
        let names = self.variable("SQLITE_EXTENSIONS").unwrap_or_default();
        let mut paths = Vec::new();
        for name in names
            .split([',', ' ', '\t', '\n'])
            .filter(|name| !name.is_empty())
        {
            let path = format!("{EXTENSIONS}/{name}.zip");
            if !(self.exists)(&path) {
                return Err(format!("SQLite extension {name} does not exist"));
            }
            paths.push(path);
        }
        let custom = self.variable("CUSTOM_SQLITE_EXTENSIONS_PATH");
        paths.extend(custom.map(str::to_owned));
        Ok((!paths.is_empty()).then(|| paths.join(",")))
    }

    fn node(&self, given: &[String]) -> Result<Start, String> {
        let mut words = self.flags(given)?;
        words.extend_from_slice(given);
        words.push(self.variable("DATA_DIR").unwrap_or(DEFAULT_DATA).to_owned());
        let delay = self.delay()?;
        Ok(Start::Own { words, delay })
    }
}

/// The name of a flag: `http-addr` for `-http-addr=x` and for `--http-addr`.
fn flag_name(word: &str) -> Option<&str> {
    let flag = word.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    flag.split('=').next()
}

/// No arguments, `run`, or flags execute the node, with the data directory as the last argument. Any other
/// first argument is a program, which gets the remaining arguments.
pub(super) fn decide(words: &[String], container: &Container<'_>) -> Result<Start, String> {
    match words {
        [] => container.node(&[]),
        [run] if run == "run" => container.node(&[]),
        [run, surplus @ ..] if run == "run" => Err(format!(
            "nothing may follow the word run, but {surplus:?} does: leave run out and begin with the flags"
        )),
        [flag, ..] if flag.starts_with('-') => container.node(words),
        [word, ..] if SUBCOMMANDS.contains(&word.as_str()) => Ok(Start::Own {
            words: words.to_vec(),
            delay: Duration::ZERO,
        }),
        [program, rest @ ..] => Ok(Start::Other {
            program: program.clone(),
            words: rest.to_vec(),
        }),
    }
}

#[cfg(test)]
mod tests;
