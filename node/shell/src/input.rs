//! The source of input lines: a terminal with editing and history, or a plain stream.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// Default of `RQLITE_HISTFILESIZE`: history lines that are kept.
const DEFAULT_HISTORY_SIZE: i64 = 100;

/// A source of lines.
pub(crate) enum Input {
    /// Standard input without editing; the prompt is printed too.
    Stream(io::StdinLock<'static>),
    /// A terminal.
    Terminal {
        editor: Box<DefaultEditor>,
        history: Option<PathBuf>,
    },
}

impl Input {
    /// A terminal if both standard input and output are one, otherwise a stream.
    pub(crate) fn open() -> Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Input::Stream(io::stdin().lock()));
        }
        let path = std::env::home_dir().map(|home| home.join(".rqlite_history"));
        let size = history_size(std::env::var("RQLITE_HISTFILESIZE").ok().as_deref());
        let config = rustyline::Config::builder()
            .max_history_size(size)?
            .auto_add_history(true)
            .build();
        let mut editor = Box::new(DefaultEditor::with_config(config)?);
        let Some(path) = path else {
            return Ok(Input::Terminal {
                editor,
                history: None,
            });
        };
        if size == 0 {
            // A missing file needs no removal.
            let _ = std::fs::remove_file(&path);
            return Ok(Input::Terminal {
                editor,
                history: None,
            });
        }
        // A first session has no history to load.
        let _ = editor.load_history(&path);
        Ok(Input::Terminal {
            editor,
            history: Some(path),
        })
    }

    /// The next line for [`text`], or `None` at the end of input and on Ctrl-C.
    pub(crate) fn next(&mut self, prompt: &str, out: &mut dyn Write) -> Result<Option<Vec<u8>>> {
        match self {
            Input::Stream(stdin) => {
                out.write_all(prompt.as_bytes())?;
                out.flush()?;
                let mut line = Vec::new();
                Ok((stdin.read_until(b'\n', &mut line)? > 0).then_some(line))
            }
            Input::Terminal { editor, .. } => {
                out.flush()?;
                match editor.readline(prompt) {
                    Ok(line) => Ok(Some(line.into_bytes())),
                    Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Saves the history.
    pub(crate) fn close(self) -> Result<()> {
        match self {
            Input::Terminal {
                mut editor,
                history: Some(path),
            } => Ok(editor.save_history(&path)?),
            _ => Ok(()),
        }
    }
}

/// The text of a line. One that is no text is refused, because its replacement would be other data; the lines
/// after it are not concerned.
pub(crate) fn text(line: Vec<u8>) -> Result<String> {
    String::from_utf8(line).map_err(|error| {
        let column = error.utf8_error().valid_up_to() + 1;
        anyhow!("the line is not UTF-8 (byte {column}) and is not run")
    })
}

fn history_size(text: Option<&str>) -> usize {
    let wanted = text
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT_HISTORY_SIZE);
    usize::try_from(wanted).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_or_refused() {
        assert_eq!(text("é\n".into()).unwrap(), "é\n");
        let refused = text(b"ab\xff\n".to_vec()).unwrap_err().to_string();
        assert_eq!(refused, "the line is not UTF-8 (byte 3) and is not run");
    }

    #[test]
    fn the_history_size_has_a_default_and_a_floor() {
        for (text, size) in [
            (None, 100),
            (Some("7"), 7),
            (Some("0"), 0),
            (Some("-3"), 0),
            (Some("x"), 100),
        ] {
            assert_eq!(history_size(text), size, "{text:?}");
        }
    }
}
