//! Tables of HTTP exchanges: requests and their expected replies, byte for byte.
use anyhow::{Result, bail};

use crate::client::Client;

/// One request and its expected reply.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Method.
    pub method: &'a str,
    /// Path with query string.
    pub path: &'a str,
    /// Request body.
    pub body: &'a str,
    /// Expected status.
    pub status: u16,
    /// Expected body: a pattern as described at [`matches()`].
    pub reply: &'a str,
}

/// A POST with a JSON body and the expected reply 200 `reply`.
#[must_use]
pub fn post<'a>(path: &'a str, body: &'a str, reply: &'a str) -> Exchange<'a> {
    Exchange {
        method: "POST",
        path,
        body,
        status: 200,
        reply,
    }
}

/// A GET with the expected reply 200 `reply`.
#[must_use]
pub fn get<'a>(path: &'a str, reply: &'a str) -> Exchange<'a> {
    Exchange {
        method: "GET",
        path,
        body: "",
        status: 200,
        reply,
    }
}

/// Any request with its expected status and reply.
#[must_use]
pub fn with_status<'a>(
    method: &'a str,
    path: &'a str,
    body: &'a str,
    status: u16,
    reply: &'a str,
) -> Exchange<'a> {
    Exchange {
        method,
        path,
        body,
        status,
        reply,
    }
}

/// Runs a table in order on one connection.
///
/// # Errors
/// Lists every exchange whose reply differed.
pub fn run(client: &mut Client, table: &[Exchange<'_>]) -> Result<()> {
    let mut wrong = Vec::new();
    for (number, exchange) in table.iter().enumerate() {
        let Exchange {
            method,
            path,
            body,
            status,
            reply,
        } = exchange;
        let seen = match client.send(
            method,
            path,
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        ) {
            Ok(seen) if seen.status == *status && matches(reply, &seen.text()) => continue,
            Ok(seen) => format!("{} {}", seen.status, seen.text()),
            Err(error) => error.to_string(),
        };
        wrong.push(format!(
            "#{number} {method} {path} {body}\n  wanted {status} {reply}\n  seen   {seen}"
        ));
    }
    if !wrong.is_empty() {
        bail!(
            "{} of {} exchanges differ:\n{}",
            wrong.len(),
            table.len(),
            wrong.join("\n")
        );
    }
    Ok(())
}

/// Whether `text` matches `pattern`, in which `%n` stands for a JSON number and `%*` for anything.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let special = [pattern.find("%n"), pattern.find("%*")]
        .into_iter()
        .flatten()
        .min();
    let Some(at) = special else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(&pattern[..at]) else {
        return false;
    };
    let after = &pattern[at + 2..];
    if pattern[at..].starts_with("%n") {
        let is_part =
            |byte: char| byte.is_ascii_digit() || matches!(byte, '-' | '+' | '.' | 'e' | 'E');
        let number = &rest[..rest.find(|byte| !is_part(byte)).unwrap_or(rest.len())];
        return number.parse::<f64>().is_ok() && matches(after, &rest[number.len()..]);
    }
    rest.char_indices()
        .map(|(index, _)| index)
        .chain([rest.len()])
        .any(|index| matches(after, &rest[index..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            (r#"{"time":%n}"#, r#"{"time":0.000123}"#, true),
            (r#"{"time":%n}"#, r#"{"time":1e-07}"#, true),
            (r#"{"time":%n}"#, r#"{"time":""}"#, false),
            ("a%*z", "a--z--z", true),
            ("a%*z", "a--", false),
            ("%*", "", true),
            ("%*x%n", "yyx12", true),
        ];
        for (pattern, text, fits) in cases {
            assert_eq!(matches(pattern, text), fits, "{pattern} against {text}");
        }
    }
}
