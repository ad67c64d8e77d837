//! The parts of a Rust file's text: comments, strings and names, each with its line. Enough of a lexer for
//! that and no more.

/// What a [`Part`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Text behind `//`, or one line of `/* … */`.
    Comment,
    /// One line of the inside of a string literal, escapes as written.
    String,
    /// An identifier or keyword.
    Name,
}

/// A piece of a file's text within one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part<'a> {
    /// What it is.
    pub kind: Kind,
    /// Line number from 1.
    pub line: usize,
    /// Without the slashes or quotes.
    pub text: &'a str,
}

/// The parts in order.
#[must_use]
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut lexer = Lexer {
        rest: text,
        line: 1,
        parts: Vec::new(),
    };
    while let Some(first) = lexer.rest.chars().next() {
        lexer.step(first);
    }
    lexer.parts
}

/// Numbers and widths in columns of the lines that have a comment wider than `limit`.
#[must_use]
pub fn wide_comments(text: &str, limit: usize) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut wide: Vec<(usize, usize)> = parts(text)
        .into_iter()
        .filter(|part| part.kind == Kind::Comment)
        .filter_map(|part| {
            Some((
                part.line,
                lines.get(part.line.checked_sub(1)?)?.chars().count(),
            ))
        })
        .filter(|(_, width)| *width > limit)
        .collect();
    wide.dedup();
    wide
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    parts: Vec<Part<'a>>,
}

impl<'a> Lexer<'a> {
    fn step(&mut self, first: char) {
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(Kind::Comment, 2, end, 0);
        } else if self.rest.starts_with("/*") {
            let end = end_of_block(self.rest);
            self.take(Kind::Comment, 2, end, 2);
        } else if first == '"' {
            let end = end_of_string(self.rest);
            self.take(Kind::String, 1, end, 1);
        } else if let Some((start, end, close)) = raw_string(self.rest) {
            self.take(Kind::String, start, end, close);
        } else if first == '\'' {
            self.skip(end_of_character(self.rest));
        } else if first.is_alphabetic() || first == '_' {
            let is_inside = |c: char| c.is_alphanumeric() || c == '_';
            let end = self.rest.find(|c| !is_inside(c)).unwrap_or(self.rest.len());
            self.take(Kind::Name, 0, end, 0);
        } else if first.is_ascii_digit() {
            let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
            self.skip(self.rest.find(|c| !is_inside(c)).unwrap_or(self.rest.len()));
        } else {
            self.skip(first.len_utf8());
        }
    }

    /// Takes `end` bytes; the part is what lies between `open` bytes at the front and `close` at the back.
    fn take(&mut self, kind: Kind, open: usize, end: usize, close: usize) {
        let inside = self.rest.get(open..end.saturating_sub(close).max(open));
        for (number, text) in inside.unwrap_or_default().lines().enumerate() {
            self.parts.push(Part {
                kind,
                line: self.line + number,
                text,
            });
        }
        self.skip(end);
    }

    fn skip(&mut self, bytes: usize) {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes.max(1))
            .unwrap_or((self.rest, ""));
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }
}

fn end_of_block(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Start of the inside, end of the literal and length of its closing of `r#"…"#`, with `b` or `c` before it
/// or not.
fn raw_string(text: &str) -> Option<(usize, usize, usize)> {
    let after = text.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inside = after.get(hashes..)?.strip_prefix('"')?;
    let start = text.len() - inside.len();
    let closing = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&closing).unwrap_or(inside.len());
    Some((start, start + length + closing.len(), closing.len()))
}

/// End of `'c'`, or of the quote alone where it begins a lifetime.
fn end_of_character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            characters.next();
            text.get(3..)
                .and_then(|rest| rest.find('\''))
                .map_or(1, |at| at + 4)
        }
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_names_are_told_apart() {
        let text = "fn a<'x>() { // say \"b\"\n let c = '\"'; d(\"e // f\", r#\"g\"h\"#, '\\'', b'\\n'); /* i\nj */ }";
        let found: Vec<_> = parts(text)
            .into_iter()
            .filter(|part| part.kind != Kind::Name)
            .map(|part| (part.kind, part.line, part.text.trim()))
            .collect();
        assert_eq!(
            found,
            [
                (Kind::Comment, 1, "say \"b\""),
                (Kind::String, 2, "e // f"),
                (Kind::String, 2, "g\"h"),
                (Kind::Comment, 2, "i"),
                (Kind::Comment, 3, "j"),
            ]
        );
        let names: Vec<_> = parts(text)
            .into_iter()
            .filter(|part| part.kind == Kind::Name)
            .map(|part| part.text)
            .collect();
        assert_eq!(names, ["fn", "a", "x", "let", "c", "d", "b"]);
    }

    #[test]
    fn a_wide_line_counts_only_with_a_comment() {
        let code = format!("let x = \"{}\";\n", "y".repeat(30));
        let comment = format!("// {}\n", "ü".repeat(30));
        assert_eq!(wide_comments(&(code + &comment), 20), [(2, 33)]);
    }
}
