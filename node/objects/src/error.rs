//! Errors of object stores, as texts that name the object and say what to check.
use std::fmt;

/// Longest part of a server's response that an error shows, in characters.
const MAX_SHOWN_CHARS: usize = 400;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such object, bucket or container.
    NotFound,
    /// The credentials are wrong or lack the permission.
    Denied,
    /// The server cannot be reached, or the connection broke.
    Unreachable,
    /// No response within the time limit.
    Slow,
    /// The store or the disk has no room, or a quota is used up.
    Full,
    /// The object was replaced, or a condition of the request did not hold.
    Changed,
    /// The store cannot do this.
    Unsupported,
    /// The object is larger than the caller accepts.
    TooLarge,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether the same request may succeed later without any change by a person.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::Slow | Self::Full | Self::Other
        )
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NotFound => "; check the bucket or container and the name",
            Self::Denied => {
                "; check the credentials, and that they may read, write, list and delete here"
            }
            Self::Unreachable => {
                "; check the endpoint, the network and the certificate authorities (ca_file)"
            }
            Self::Slow => "; check the endpoint and the network",
            Self::Full => "; free space there, or raise the quota",
            Self::Changed | Self::Unsupported | Self::TooLarge | Self::Other => "",
        }
    }
}

/// A failed operation on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectError {
    /// What kind of failure it was.
    pub kind: Kind,
    /// The object's whole name.
    pub object: String,
    /// The store: bucket and endpoint, or folder.
    pub place: String,
    /// `reading`, `writing`, …
    pub doing: &'static str,
    /// The reason, as the server gives it.
    pub why: String,
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            object,
            place,
            doing,
            why,
        } = self;
        write!(
            f,
            "{doing} object '{object}' in {place}: {why}{}",
            kind.advice()
        )
    }
}

impl std::error::Error for ObjectError {}

/// The kind and the text of an error of `object_store`.
pub(crate) fn explain(error: &object_store::Error) -> (Kind, String) {
    use object_store::Error;
    let text = words(error);
    let kind = match error {
        Error::NotFound { .. } => Kind::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
            Kind::Changed
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Kind::Denied,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => Kind::Unsupported,
        _ => kind_of_text(&text),
    };
    (kind, text)
}

/// `object_store` does not expose status codes of other errors, so the kind is derived from the text.
fn kind_of_text(text: &str) -> Kind {
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if any(&[
        "No space left",
        "QuotaExceeded",
        "quota exceeded",
        "StorageFull",
        "InsufficientStorage",
        "507 Insufficient",
        "Disk quota",
    ]) {
        Kind::Full
    } else if any(&[
        "ermission denied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "invalid_grant",
    ]) {
        Kind::Denied
    // A refused certificate is retried, too, and then reported as a timeout.
    } else if any(&["timed out"]) && !any(&["certificate"]) {
        Kind::Slow
    } else if any(&[
        "error sending request",
        "onnection refused",
        "onnection reset",
        "dns error",
        "certificate",
        "closed before",
        "error decoding response body",
        "Broken pipe",
    ]) {
        Kind::Unreachable
    } else {
        Kind::Other
    }
}

/// `head` and each cause of `error` that adds something, on one line.
pub fn causes(head: &str, error: &dyn std::error::Error) -> String {
    let mut text = head.to_owned();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if text.is_empty() {
            text = inner_text;
        } else if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// The innermost causes without the library's wrapping, on one line.
fn words(error: &object_store::Error) -> String {
    let mut text = causes("", error);
    if text.is_empty() {
        text = error.to_string();
    }
    shorten(&text)
}

/// A response on one line and at most [`MAX_SHOWN_CHARS`] long, an XML one reduced to its code and message.
pub(crate) fn shorten(text: &str) -> String {
    let text = match text.find("<?xml").or_else(|| text.find("<Error")) {
        None => text.to_owned(),
        Some(at) => {
            let (before, xml) = text.split_at_checked(at).unwrap_or((text, ""));
            let code = element(xml, "Code").unwrap_or_default();
            let message = element(xml, "Message").unwrap_or_default();
            format!("{before}{code} {message}")
        }
    };
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(MAX_SHOWN_CHARS) {
        None => line,
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
    }
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_xml_is_reduced_to_what_people_need() {
        let text = "PUT failed: 403:\n <?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>\n<Message>No way.</Message><RequestId>1</RequestId></Error>";
        assert_eq!(shorten(text), "PUT failed: 403: AccessDenied No way.");
        assert!(shorten(&"x".repeat(5000)).chars().count() <= MAX_SHOWN_CHARS + 1);
    }

    #[test]
    fn texts_have_kinds() {
        for (text, kind) in [
            ("write: No space left on device (os error 28)", Kind::Full),
            (
                "error sending request: tcp connect error: Connection refused",
                Kind::Unreachable,
            ),
            ("operation timed out", Kind::Slow),
            (
                "after 20 retries, retry_timeout: 20s - invalid peer certificate: BadSignature",
                Kind::Unreachable,
            ),
            ("something else", Kind::Other),
        ] {
            assert_eq!(kind_of_text(text), kind, "{text}");
        }
    }
}
