//! JSON literals that Go reads and the JSON reader here does not, or reads as something else.
use std::borrow::Cow;

/// What a lone half of a surrogate pair becomes.
const REPLACEMENT: &[u8; 6] = b"\\ufffd";

/// The text with lone surrogates (`\ud800`) as U+FFFD, and the integer `-0` as ` 0`: the reader refuses the
/// former and takes the latter for a REAL. All else stays at its place.
pub(super) fn as_go_reads(text: Cow<'_, str>) -> Cow<'_, str> {
    if !has_surrogate(&text) && !has_negative_zero(&text) {
        return text;
    }
    let mut bytes = text.into_owned().into_bytes();
    let mut at = 0;
    let mut in_string = false;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'\\' if in_string => match surrogate(&bytes, at) {
                None => 2,
                Some(Half::High) if surrogate(&bytes, at + 6) == Some(Half::Low) => 12,
                Some(_) => {
                    if let Some(escape) = bytes.get_mut(at..at + 6) {
                        escape.copy_from_slice(REPLACEMENT);
                    }
                    6
                }
            },
            b'"' => {
                in_string = !in_string;
                1
            }
            b'-' if !in_string && is_negative_zero(&bytes, at) => {
                if let Some(sign) = bytes.get_mut(at) {
                    *sign = b' ';
                }
                1
            }
            _ => 1,
        };
    }
    // ASCII was replaced by ASCII.
    Cow::Owned(String::from_utf8(bytes).unwrap_or_default())
}

fn has_surrogate(text: &str) -> bool {
    text.contains("\\ud") || text.contains("\\uD")
}

fn has_negative_zero(text: &str) -> bool {
    let mut signs = text.match_indices("-0");
    signs.any(|(at, _)| is_negative_zero(text.as_bytes(), at))
}

/// The literal `-0` and nothing more of a number begins here.
fn is_negative_zero(bytes: &[u8], at: usize) -> bool {
    let ends = |byte: Option<&u8>| {
        matches!(
            byte,
            Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
        )
    };
    let begins = |byte: &u8| matches!(byte, b',' | b'[' | b':' | b' ' | b'\t' | b'\r' | b'\n');
    bytes.get(at + 1) == Some(&b'0')
        && ends(bytes.get(at + 2))
        && at
            .checked_sub(1)
            .and_then(|before| bytes.get(before))
            .is_some_and(begins)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

/// The half of a surrogate pair whose escape begins here.
fn surrogate(bytes: &[u8], at: usize) -> Option<Half> {
    let [b'\\', b'u', digits @ ..] = bytes.get(at..at + 6)? else {
        return None;
    };
    let digits = std::str::from_utf8(digits).ok()?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xD800..=0xDBFF => Some(Half::High),
        0xDC00..=0xDFFF => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_literals_change() {
        let cases = [
            (r#"["\ud800"]"#, r#"["\ufffd"]"#),
            (r#"["a\uDC00b"]"#, r#"["a\ufffdb"]"#),
            (r#"["\ud83d\ude00"]"#, r#"["\ud83d\ude00"]"#),
            (r#"["\ud83d\ud83d\ude00"]"#, r#"["\ufffd\ud83d\ude00"]"#),
            (r#"["\ud83d","\ude00"]"#, r#"["\ufffd","\ufffd"]"#),
            // An escaped backslash, and text that is cut short.
            (r#"["\\ud800"]"#, r#"["\\ud800"]"#),
            (r#"["\ud8"#, r#"["\ud8"#),
            (r#"["\ud80g"]"#, r#"["\ud80g"]"#),
            ("[-0]", "[ 0]"),
            (
                r#"[["s",-0,{"a":-0},[-0 ]]]"#,
                r#"[["s", 0,{"a": 0},[ 0 ]]]"#,
            ),
            ("[-0.0,-0e1,-01,1-0,--0]", "[-0.0,-0e1,-01,1-0,--0]"),
            (r#"[["a, -0, \" -0 ,"],-0]"#, r#"[["a, -0, \" -0 ,"], 0]"#),
        ];
        for (text, expected) in cases {
            assert_eq!(as_go_reads(text.into()), expected, "{text}");
        }
    }
}
