//! Failed requests to the API server as one line for people. The client's errors contain their Rust values,
//! and their sources repeat the same text: of each only the API server's own message is shown.
use std::error::Error;

use kube::core::Status;

/// What the API server said.
pub fn refused(status: &Status) -> String {
    if status.message.trim().is_empty() {
        return format!("the API server answered {} {}", status.code, status.reason);
    }
    one_line(&status.message)
}

/// Why there is no answer: the innermost error.
pub fn unanswered(error: &dyn Error) -> String {
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        last = cause.to_string();
        source = cause.source();
    }
    format!("no answer from the API server: {}", one_line(&last))
}

/// Without line breaks and repeated spaces.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_line() {
        let said = Status::failure("exceeded quota:\n  pods=1", "Forbidden").with_code(403);
        assert_eq!(refused(&said), "exceeded quota: pods=1");
        let empty = Status::failure(" ", "Forbidden").with_code(403);
        assert_eq!(refused(&empty), "the API server answered 403 Forbidden");
        let inner = std::io::Error::other("connection refused");
        let outer = std::io::Error::other(inner);
        assert_eq!(
            unanswered(&outer),
            "no answer from the API server: connection refused"
        );
    }
}
