//! The session that every command gets: the client, the settings, and where output goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::StatusCode;

use crate::client::{Call, Client, Response};
use crate::settings::Settings;

/// Longest part of a plain-text error body that is shown.
const MAX_ERROR_TEXT: u64 = 1024;

/// Characters that need no escape in a query value.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b',');

/// Whether a command succeeded; its failure has already been printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Well,
    Failed,
}

/// State of a session, which every command gets.
pub(crate) struct Session<'a> {
    pub(crate) client: Client,
    pub(super) settings: Settings,
    pub(super) screen: &'a mut dyn Write,
    /// Where errors are written if not to `out`.
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

    /// Flushes query output, if it goes to a file.
    pub(super) fn flush_sink(&mut self) -> Result<()> {
        match &mut self.sink {
            Some(file) => file.flush().context("output file"),
            None => Ok(()),
        }
    }

    /// Sends a request. Any status but success is an error.
    pub(super) fn request(&mut self, call: &Call) -> Result<Response> {
        let response = self.client.send(call)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            refusal(response)
        }
    }

    /// [`Session::request`], with the body read.
    pub(super) fn request_bytes(&mut self, call: &Call) -> Result<Vec<u8>> {
        body(self.request(call)?)
    }

    /// [`Session::request`], with the body read as JSON.
    pub(super) fn request_json(&mut self, call: &Call) -> Result<Value> {
        serde_json::from_slice(&self.request_bytes(call)?)
            .context("the server's response is not JSON")
    }
}

/// Reads a body to its end, without a limit: the user requested these rows.
pub(super) fn body(response: Response) -> Result<Vec<u8>> {
    Ok(response
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .read_to_vec()?)
}

/// Turns a response other than success into an error with the server's reason.
pub(super) fn refusal<T>(response: Response) -> Result<T> {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        bail!("unauthorized");
    }
    if status == StatusCode::FORBIDDEN {
        bail!("forbidden");
    }
    match error_text(response) {
        Some(reason) => bail!("server responded with {status}: {reason}"),
        None => bail!("server responded with {status}"),
    }
}

/// The first part of a plain-text error body, if there is any.
pub(super) fn error_text(response: Response) -> Option<String> {
    let mut bytes = Vec::new();
    let mut reader = io::Read::take(response.into_body().into_reader(), MAX_ERROR_TEXT);
    // A truncated reason is better than none.
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
