//! Flags that are parsed and checked, but not implemented yet. A node with such a flag must refuse to start:
//! a backup that is silently never made is worse than no backup.
use super::{table::FLAGS, values::Config};

/// A flag, and what is missing if it is set to anything but its default.
struct Missing {
    flag: &'static str,
    what: &'static str,
}

const fn missing(flag: &'static str, what: &'static str) -> Missing {
    Missing { flag, what }
}

const OTLP: &str = "this program does not export metrics over OTLP yet";
const PROFILES: &str = "this program does not write profiles";

/// An entry is removed when its flag is implemented.
const MISSING: &[Missing] = &[
    missing(
        "extensions-path",
        "this program does not load SQLite extensions yet",
    ),
    missing("cdc-config", "this program does not capture changes yet"),
    missing("otlp-endpoint", OTLP),
    missing("cpu-profile", PROFILES),
    missing("mem-profile", PROFILES),
    missing("trace-profile", PROFILES),
];

/// A sentence for each flag that is set and not implemented; empty if the node can start.
pub fn unsupported(config: &Config) -> Vec<String> {
    MISSING
        .iter()
        .filter(|missing| is_set(config, missing))
        .map(sentence)
        .collect()
}

fn is_set(config: &Config, missing: &Missing) -> bool {
    let Some(flag) = FLAGS.iter().find(|flag| flag.name == missing.flag) else {
        return false;
    };
    let mut without = config.clone();
    flag.field.reset(&mut without);
    without != *config
}

fn sentence(missing: &Missing) -> String {
    format!("-{}: {}", missing.flag, missing.what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::defaults;

    #[test]
    fn every_row_names_a_flag() {
        for row in MISSING {
            assert!(
                FLAGS.iter().any(|flag| flag.name == row.flag),
                "{}",
                row.flag
            );
        }
    }

    #[test]
    fn nothing_is_missing_by_default() {
        assert!(unsupported(&defaults()).is_empty());
    }

    #[test]
    fn what_is_set_is_named() {
        let mut config = defaults();
        config.cpu_profile = Some("b".into());
        config.otlp_endpoint = "c:4317".to_owned();
        assert_eq!(
            unsupported(&config),
            [
                "-otlp-endpoint: this program does not export metrics over OTLP yet",
                "-cpu-profile: this program does not write profiles",
            ]
        );
    }
}
