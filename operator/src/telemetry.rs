//! Logging to stderr, as text or JSON.
use tracing_subscriber::{EnvFilter, fmt};

/// Log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Initializes logging. `level` is a level, or directives such as `info,rqlite_operator=debug`.
///
/// # Errors
/// The directives are invalid.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(level).map_err(|e| anyhow::anyhow!("--log-level {level:?}: {e}"))?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only if logging is already initialized, as in tests.
    let _ = match format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}
