//! The source of input lines: a terminal with editing and history, or a plain stream.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
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

    /// The next line without its end, or `None` at the end of input and on Ctrl-C.
    pub(crate) fn next(&mut self, prompt: &str, out: &mut dyn Write) -> Result<Option<String>> {
        match self {
            Input::Stream(stdin) => {
                out.write_all(prompt.as_bytes())?;
                out.flush()?;
                let mut line = String::new();
                Ok((stdin.read_line(&mut line)? > 0).then_some(line))
            }
            Input::Terminal { editor, .. } => {
                out.flush()?;
                match editor.readline(prompt) {
                    Ok(line) => Ok(Some(line)),
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
