//! The commands: each takes the [`Session`], asks the node, and prints.

mod cluster;
mod diagnostics;
mod statement;
mod transfer;

use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::StatusCode;

use crate::client::{Answer, Call, Client};
use crate::command::{Command, HELP};
use crate::settings::{Settings, Switch, on_off};

/// Longest part of a plain-text error body that is shown.
const MAX_ERROR_TEXT: u64 = 1024;

/// What may stand unescaped in a query value.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b',');

/// Whether a command that was carried out also succeeded; a failure has been printed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Well,
    Failed,
}

/// Everything a command works with.
pub(crate) struct Session<'a> {
    pub(crate) client: Client,
    settings: Settings,
    screen: &'a mut dyn Write,
    /// Where errors go when not to the screen.
    errors: Option<&'a mut dyn Write>,
    /// The file of `.output`.
    sink: Option<BufWriter<File>>,
}

impl<'a> Session<'a> {
    /// A session with default settings.
    pub(crate) fn new(
        client: Client,
        screen: &'a mut dyn Write,
        errors: Option<&'a mut dyn Write>,
    ) -> Self {
        Session {
            client,
            settings: Settings::default(),
            screen,
            errors,
            sink: None,
        }
    }

    /// Where everything but query output goes.
    pub(crate) fn screen(&mut self) -> &mut dyn Write {
        self.screen
    }

    /// Where query output goes.
    fn output(&mut self) -> &mut dyn Write {
        match &mut self.sink {
            Some(file) => file,
            None => self.screen,
        }
    }

    /// Prints an error: `ERR!` for commands, `Error:` for SQL.
    pub(crate) fn complain(&mut self, kind: &str, text: &str) -> io::Result<()> {
        let to = match &mut self.errors {
            Some(errors) => errors,
            None => &mut self.screen,
        };
        writeln!(to, "{kind} {text}")
    }

    /// Hands query output to the system, if it goes to a file.
    fn flush_sink(&mut self) -> Result<()> {
        match &mut self.sink {
            Some(file) => file.flush().context("output file"),
            None => Ok(()),
        }
    }

    /// Sends a request and takes nothing but success for an answer.
    fn ask(&mut self, call: &Call) -> Result<Answer> {
        let answer = self.client.send(call)?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            refusal(answer)
        }
    }

    /// [`Session::ask`], with the body read.
    fn ask_bytes(&mut self, call: &Call) -> Result<Vec<u8>> {
        body(self.ask(call)?)
    }

    /// [`Session::ask`], with the body read as JSON.
    fn ask_json(&mut self, call: &Call) -> Result<Value> {
        serde_json::from_slice(&self.ask_bytes(call)?).context("the server's answer is not JSON")
    }
}

/// Reads a body to its end. No limit: the user asked for these rows.
fn body(answer: Answer) -> Result<Vec<u8>> {
    Ok(answer
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .read_to_vec()?)
}

/// Turns an answer other than success into an error with the server's reason.
fn refusal<T>(answer: Answer) -> Result<T> {
    let status = answer.status();
    if status == StatusCode::UNAUTHORIZED {
        bail!("unauthorized");
    }
    match error_text(answer) {
        Some(reason) => bail!("server responded with {status}: {reason}"),
        None => bail!("server responded with {status}"),
    }
}

/// The first part of a plain-text error body, if there is any.
fn error_text(answer: Answer) -> Option<String> {
    let mut bytes = Vec::new();
    let mut reader = io::Read::take(answer.into_body().into_reader(), MAX_ERROR_TEXT);
    // Half a reason is better than none.
    let _ = io::Read::read_to_end(&mut reader, &mut bytes);
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Escapes a value for a query string.
fn encode(value: &str) -> String {
    utf8_percent_encode(value, QUERY_VALUE).to_string()
}

/// Carries out any command but [`Command::Quit`], which ends the session before this is called.
pub(crate) fn execute(session: &mut Session<'_>, command: Command) -> Result<Done> {
    let done = dispatch(session, command)?;
    session.flush_sink()?;
    Ok(done)
}

fn dispatch(session: &mut Session<'_>, command: Command) -> Result<Done> {
    match command {
        Command::Nothing | Command::Quit => Ok(Done::Well),
        Command::Sql(sql) => statement::run(session, &sql),
        Command::Read(file) => statement::read_file(session, &file),
        Command::Tables => statement::catalog(session, statement::TABLES),
        Command::Indexes => statement::catalog(session, statement::INDEXES),
        Command::Schema => statement::catalog(session, statement::SCHEMA),
        Command::Backup(file) => transfer::backup(session, &file),
        Command::Dump(file, tables) => transfer::dump(session, &file, tables.as_deref()),
        Command::Restore(file) => transfer::restore(session, &file),
        Command::Boot(file) => transfer::boot(session, &file),
        Command::Leader => cluster::leader(session),
        Command::Nodes(all) => cluster::nodes(session, all),
        Command::Ready => cluster::ready(session),
        Command::Reap => cluster::reap(session),
        Command::Remove(id) => cluster::remove(session, &id),
        Command::Snapshot(trailing_logs) => cluster::snapshot(session, trailing_logs),
        Command::Stepdown(id) => cluster::stepdown(session, id.as_deref()),
        Command::Status(key) => diagnostics::tree_of(session, "status", key.as_deref()),
        Command::Expvar(key) => diagnostics::tree_of(session, "debug/vars", key.as_deref()),
        Command::Extensions => diagnostics::extensions(session),
        Command::Sysdump(file) => diagnostics::sysdump(session, &file),
        Command::Help => print(session, HELP.trim_end()),
        Command::Mode(mode) => set_or_show(
            session,
            mode,
            |settings| &mut settings.mode,
            |value| value.as_str(),
        ),
        Command::Consistency(level) => set_or_show(
            session,
            level,
            |settings| &mut settings.consistency,
            |value| value.as_str(),
        ),
        Command::Switch(switch, value) => switch_or_show(session, switch, value),
        Command::Output(file) => output(session, file),
        Command::Show => {
            session.settings.write(session.screen)?;
            Ok(Done::Well)
        }
    }
}

/// Prints one line.
fn print(session: &mut Session<'_>, text: &str) -> Result<Done> {
    writeln!(session.screen(), "{text}")?;
    Ok(Done::Well)
}

fn set_or_show<T: Copy>(
    session: &mut Session<'_>,
    new: Option<T>,
    field: impl Fn(&mut Settings) -> &mut T,
    name: impl Fn(T) -> &'static str,
) -> Result<Done> {
    let current = field(&mut session.settings);
    match new {
        Some(value) => {
            *current = value;
            Ok(Done::Well)
        }
        None => {
            let text = name(*current);
            print(session, text)
        }
    }
}

fn switch_or_show(session: &mut Session<'_>, switch: Switch, new: Option<bool>) -> Result<Done> {
    set_or_show(session, new, |settings| settings.switch(switch), on_off)
}

fn output(session: &mut Session<'_>, file: Option<String>) -> Result<Done> {
    session.sink = match &file {
        Some(path) => Some(BufWriter::new(
            File::create(path).with_context(|| path.clone())?,
        )),
        None => None,
    };
    session.settings.output = file;
    Ok(Done::Well)
}
