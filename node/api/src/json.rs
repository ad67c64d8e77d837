//! JSON as rqlite writes it: Go's escapes, Go's number forms, and 4-space indentation.
//!
//! Clients compare bytes, so one set of rules serves every reply: the hand-written encoder of results
//! ([`crate::write_reply`]) uses the pieces here, everything else goes through [`to_go_json`].
use std::io::{self, Write};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::ser::Formatter;

/// Below this magnitude a number is written with an exponent.
const SMALLEST_PLAIN: f64 = 1e-6;
/// From this magnitude on a number is written with an exponent.
const SMALLEST_LARGE: f64 = 1e21;
/// Doubles below 2^53 hold every integer exactly.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;
const INDENT: &[u8] = b"    ";

/// Serialises a value compactly under Go's rules. Struct fields keep their order; maps come out in their own
/// order, so use sorted ones.
///
/// # Errors
/// An error of the value's own `Serialize`, or a map key that is not a string.
pub fn to_go_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(128);
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut out,
        GoFormatter,
    ))?;
    Ok(out)
}

/// Reads a body whose fields have names. Derived readers of structs also take an array of the fields' values,
/// which nobody means.
///
/// # Errors
/// An array, or whatever the value's own `Deserialize` refuses.
pub fn from_named_fields<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, serde_json::Error> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(serde_json::Error::custom(
            "an object is expected, not an array",
        ));
    }
    serde_json::from_slice(body)
}

/// Indents compact JSON by four spaces per level. Empty arrays and objects stay on their line; no newline at
/// the end.
pub fn pretty_json(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    Indenter::default().write(&mut out, compact);
    out
}

/// Indents JSON that arrives in pieces, which may end anywhere.
#[derive(Debug, Default)]
pub(crate) struct Indenter {
    depth: usize,
    in_string: bool,
    /// After a backslash.
    escaped: bool,
    /// After an opening bracket: if the next token closes it, both stay on one line.
    opened: bool,
}

impl Indenter {
    /// Appends the next piece, indented.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        for &byte in piece {
            if self.in_string {
                out.push(byte);
                if self.escaped {
                    self.escaped = false;
                } else {
                    self.escaped = byte == b'\\';
                    self.in_string = byte != b'"';
                }
            } else if !byte.is_ascii_whitespace() {
                self.write_token(out, byte);
            }
        }
    }

    fn write_token(&mut self, out: &mut Vec<u8>, byte: u8) {
        let closes = matches!(byte, b'}' | b']');
        if self.opened {
            self.opened = false;
            if closes {
                return out.push(byte);
            }
            self.depth += 1;
            new_line(out, self.depth);
        }
        if closes {
            self.depth = self.depth.saturating_sub(1);
            new_line(out, self.depth);
        }
        out.push(byte);
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.opened = true,
            b',' => new_line(out, self.depth),
            b':' => out.push(b' '),
            _ => {}
        }
    }
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    for _ in 0..depth {
        out.extend_from_slice(INDENT);
    }
}

/// For each byte of a string: may it begin an escape? 0xE2 begins U+2028 and U+2029, which are escaped, and
/// characters that are not.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xE2] = true;
    table
};
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a string literal, quotes included.
pub(crate) fn write_str(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !SPECIAL[usize::from(byte)] {
            continue;
        }
        let length = if byte == 0xE2 {
            if !is_line_separator(&bytes[at..]) {
                continue;
            }
            3
        } else {
            1
        };
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + length;
        write_escape(out, &bytes[at..copied]);
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// Is the first character U+2028 or U+2029?
fn is_line_separator(bytes: &[u8]) -> bool {
    matches!(bytes, [0xE2, 0x80, 0xA8 | 0xA9, ..])
}

/// Appends the escape of one special character: a single byte, or the three bytes of U+2028 and U+2029.
fn write_escape(out: &mut Vec<u8>, character: &[u8]) {
    let short = match character {
        [b'"'] => b'"',
        [b'\\'] => b'\\',
        [0x08] => b'b',
        [0x0C] => b'f',
        [b'\n'] => b'n',
        [b'\r'] => b'r',
        [b'\t'] => b't',
        [byte] => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 0xF)]);
            return;
        }
        [.., last] => {
            out.extend_from_slice(b"\\u202");
            out.push(HEX[usize::from(last & 0xF)]);
            return;
        }
        [] => return,
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends an integer.
pub(crate) fn write_integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a number in its shortest form that reads back the same; `null` for NaN and infinities.
pub(crate) fn write_f64(out: &mut Vec<u8>, number: f64) {
    let magnitude = number.abs();
    if !number.is_finite() {
        out.extend_from_slice(b"null");
    } else if number == 0.0 {
        out.extend_from_slice(if number.is_sign_negative() {
            b"-0"
        } else {
            b"0"
        });
    } else if magnitude < EXACT_INTEGERS && number.fract() == 0.0 {
        write_integer(out, number as i64);
    } else {
        let mut buffer = zmij::Buffer::new();
        let shortest = buffer.format_finite(number);
        match shortest.split_once('e') {
            None => {
                out.extend_from_slice(shortest.strip_suffix(".0").unwrap_or(shortest).as_bytes())
            }
            Some((mantissa, exponent)) if (SMALLEST_PLAIN..SMALLEST_LARGE).contains(&magnitude) => {
                write_plain(out, mantissa, exponent.parse().unwrap_or(0));
            }
            Some((mantissa, exponent)) => {
                out.extend_from_slice(mantissa.as_bytes());
                out.extend_from_slice(if exponent.starts_with('-') {
                    b"e"
                } else {
                    b"e+"
                });
                out.extend_from_slice(exponent.trim_start_matches('+').as_bytes());
            }
        }
    }
}

/// Appends `mantissa` times ten to the `exponent` without an exponent. The number is below 1 or has no
/// fraction.
fn write_plain(out: &mut Vec<u8>, mantissa: &str, exponent: i32) {
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa),
    };
    out.extend_from_slice(sign.as_bytes());
    let zeros = |out: &mut Vec<u8>, count: usize| out.resize(out.len() + count, b'0');
    let digits = digits.bytes().filter(|digit| *digit != b'.');
    match usize::try_from(exponent) {
        Ok(exponent) => {
            let start = out.len();
            out.extend(digits);
            let written = out.len() - start;
            zeros(out, (exponent + 1).saturating_sub(written));
        }
        Err(_) => {
            out.extend_from_slice(b"0.");
            zeros(out, exponent.unsigned_abs() as usize - 1);
            out.extend(digits);
        }
    }
}

/// Appends bytes as a string of padded standard base64.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let _ = write!(out, "{}", Base64Display::new(bytes, &STANDARD));
    out.push(b'"');
}

/// serde_json's compact form with Go's escapes and number forms.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let mut out = Vec::with_capacity(24);
        write_f64(&mut out, value);
        writer.write_all(&out)
    }

    fn write_f32<W: ?Sized + Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        self.write_f64(writer, f64::from(value))
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // serde_json cuts out quotes, backslashes and controls itself; only Go's additions are left to find.
        let bytes = fragment.as_bytes();
        let mut copied = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let length = match byte {
                b'<' | b'>' | b'&' => 1,
                0xE2 if is_line_separator(&bytes[at..]) => 3,
                _ => continue,
            };
            writer.write_all(&bytes[copied..at])?;
            copied = at + length;
            let mut escape = Vec::with_capacity(6);
            write_escape(&mut escape, &bytes[at..copied]);
            writer.write_all(&escape)?;
        }
        writer.write_all(&bytes[copied..])
    }
}

#[cfg(test)]
mod tests;
