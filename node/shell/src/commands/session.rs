//! What every command works with: the client, the settings, and where output goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::StatusCode;

use crate::client::{Answer, Call, Client};
use crate::settings::Settings;

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
    pub(super) settings: Settings,
    pub(super) screen: &'a mut dyn Write,
    /// Where errors go when not to the screen.
    errors: Option<&'a mut dyn Write>,
    /// The file of `.output`.
    pub(super) sink: Option<BufWriter<File>>,
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
    pub(super) fn output(&mut self) -> &mut dyn Write {
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
    pub(super) fn flush_sink(&mut self) -> Result<()> {
        match &mut self.sink {
            Some(file) => file.flush().context("output file"),
            None => Ok(()),
        }
    }

    /// Sends a request and takes nothing but success for an answer.
    pub(super) fn ask(&mut self, call: &Call) -> Result<Answer> {
        let answer = self.client.send(call)?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            refusal(answer)
        }
    }

    /// [`Session::ask`], with the body read.
    pub(super) fn ask_bytes(&mut self, call: &Call) -> Result<Vec<u8>> {
        body(self.ask(call)?)
    }

    /// [`Session::ask`], with the body read as JSON.
    pub(super) fn ask_json(&mut self, call: &Call) -> Result<Value> {
        serde_json::from_slice(&self.ask_bytes(call)?).context("the server's answer is not JSON")
    }
}

/// Reads a body to its end. No limit: the user asked for these rows.
pub(super) fn body(answer: Answer) -> Result<Vec<u8>> {
    Ok(answer
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .read_to_vec()?)
}

/// Turns an answer other than success into an error with the server's reason.
pub(super) fn refusal<T>(answer: Answer) -> Result<T> {
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
pub(super) fn error_text(answer: Answer) -> Option<String> {
    let mut bytes = Vec::new();
    let mut reader = io::Read::take(answer.into_body().into_reader(), MAX_ERROR_TEXT);
    // Half a reason is better than none.
    let _ = io::Read::read_to_end(&mut reader, &mut bytes);
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Escapes a value for a query string.
pub(super) fn encode(value: &str) -> String {
    utf8_percent_encode(value, QUERY_VALUE).to_string()
}

/// Prints one line.
pub(super) fn print(session: &mut Session<'_>, text: &str) -> Result<Done> {
    writeln!(session.screen(), "{text}")?;
    Ok(Done::Well)
}
