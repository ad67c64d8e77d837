//! Logging in rqlite's format: `[component] YYYY/MM/DD HH:MM:SS message` on stderr.
use std::fmt;

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let target = event.metadata().target();
        let component = target.split("::").next().unwrap_or(target);
        write!(writer, "[{component}] {} ", now())?;
        if *event.metadata().level() <= Level::WARN {
            write!(writer, "{}: ", event.metadata().level())?;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        writeln!(writer, "{}", text.0)
    }
}

/// The text of an event: its message, then its fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        let written = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
        // Writing to a String cannot fail.
        let _ = written;
    }
}

fn now() -> String {
    let local = time::OffsetDateTime::from_unix_timestamp_nanos(
        i128::from(crate::clock::unix_micros()) * 1000,
    );
    match local {
        Ok(t) => format!(
            "{:04}/{:02}/{:02} {:02}:{:02}:{:02}",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
        Err(_) => "0000/00/00 00:00:00".into(),
    }
}

/// Starts logging: this program's components from INFO, the Raft libraries from `library_level`
/// (`-raft-log-level`: ERROR, WARN, INFO, DEBUG), except that their levels are one lower than named.
pub fn start(library_level: &str) {
    let (library, own) = match library_level.to_ascii_uppercase().as_str() {
        "DEBUG" => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        "INFO" => (LevelFilter::WARN, LevelFilter::INFO),
        // openraft warns of every failed attempt; this program's own modules log the relevant ones once.
        "WARN" => (LevelFilter::ERROR, LevelFilter::INFO),
        _ => (LevelFilter::OFF, LevelFilter::INFO),
    };
    let filter = Targets::new()
        .with_default(own)
        .with_target("openraft", library)
        .with_target("raft_log", library)
        .with_target("chunked_wal", library)
        .with_target("hyper", LevelFilter::WARN);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines)
        .with_writer(std::io::stderr);
    // Fails only if logging has been started before, as in tests.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
}
