//! Escapes request targets: `curl` and browsers' address bars leave characters unescaped that hyper refuses
//! and rqlite accepts.
//!
//! Percent-encoding them does not change their meaning.
use std::io::Write as _;

/// The position in a request's first line, which may arrive in several reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Target {
    /// Before the target: in front of the line, or in its method.
    #[default]
    Before,
    Inside,
    Behind,
}

/// True for every byte that rqlite accepts in a target and hyper may refuse, or cut the target at (`#`). A
/// space ends the target for both, and both refuse control characters.
fn needs_escape(byte: u8) -> bool {
    matches!(
        byte,
        b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..
    )
}

impl Target {
    /// Processes the next bytes of a head. Returns their replacement if a byte has to be escaped.
    pub(super) fn escaped(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut at = 0;
        if *self == Self::Before {
            at = self.skip_method(bytes)?;
        }
        if *self != Self::Inside {
            return None;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let end = rest.iter().position(|b| matches!(b, b' ' | b'\r' | b'\n'));
        if end.is_some() {
            *self = Self::Behind;
        }
        let end = at + end.unwrap_or(rest.len());
        let target = bytes.get(at..end).unwrap_or_default();
        if !target.iter().any(|b| needs_escape(*b)) {
            return None;
        }
        let mut escaped = bytes.get(..at).unwrap_or_default().to_vec();
        for byte in target {
            if needs_escape(*byte) {
                // Writing to memory cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            } else {
                escaped.push(*byte);
            }
        }
        escaped.extend_from_slice(bytes.get(end..).unwrap_or_default());
        Some(escaped)
    }

    /// Where the target begins in these bytes; `None` if it does not.
    fn skip_method(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b' ' => {
                    *self = Self::Inside;
                    return Some(at + 1);
                }
                // Empty lines in front are skipped. A method holds no other bytes, so anything else is no
                // valid request and is left to hyper.
                b'\r' | b'\n' | b'A'..=b'Z' | b'a'..=b'z' => {}
                _ => {
                    *self = Self::Behind;
                    return None;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(pieces: &[&[u8]]) -> Vec<u8> {
        let mut target = Target::default();
        let mut out = Vec::new();
        for piece in pieces {
            match target.escaped(piece) {
                Some(escaped) => out.extend(escaped),
                None => out.extend_from_slice(piece),
            }
        }
        out
    }

    #[test]
    fn only_what_is_refused_in_a_target_is_escaped() {
        let cases: [(&[u8], &[u8]); 8] = [
            (
                b"GET /db/query?q=SELECT%20\"a\"<>1&x='y' HTTP/1.1\r\nX: \"<\xff\r\n\r\n",
                b"GET /db/query?q=SELECT%20%22a%22%3C%3E1&x='y' HTTP/1.1\r\nX: \"<\xff\r\n\r\n",
            ),
            (
                b"GET /?q=\xc3\xa4\xff#f|{}^`\\ HTTP/1.1\r\n\r\n",
                b"GET /?q=%C3%A4%FF%23f%7C%7B%7D%5E%60%5C HTTP/1.1\r\n\r\n",
            ),
            (
                b"\r\n\r\nPOST /<> HTTP/1.0\r\n\r\n{\"a\"}",
                b"\r\n\r\nPOST /%3C%3E HTTP/1.0\r\n\r\n{\"a\"}",
            ),
            (
                b"GET /status HTTP/1.1\r\n\r\n",
                b"GET /status HTTP/1.1\r\n\r\n",
            ),
            (b"GET /<\r\n", b"GET /%3C\r\n"),
            (
                b"{\"no\": \"request\"} \"<>\"",
                b"{\"no\": \"request\"} \"<>\"",
            ),
            (b"\x16\x03\x01 <", b"\x16\x03\x01 <"),
            (b"", b""),
        ];
        for (sent, expected) in cases {
            let name = String::from_utf8_lossy(sent).into_owned();
            assert_eq!(through(&[sent]), expected, "{name}");
            for cut in 0..sent.len() {
                let (first, second) = sent.split_at(cut);
                assert_eq!(through(&[first, second]), expected, "{name} cut at {cut}");
            }
            let single: Vec<&[u8]> = sent.chunks(1).collect();
            assert_eq!(through(&single), expected, "{name} byte by byte");
        }
    }
}
