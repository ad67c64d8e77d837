//! An error with its causes, as one line.
use std::error::Error;

/// `head`, and each cause of `error` that says something new.
pub fn causes(head: &str, error: &dyn Error) -> String {
    let mut text = head.to_owned();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
