//! Divides SQL that is piped into the plugin into statements, as SQLite's own shell does: a statement ends
//! with a line whose last character is a semicolon outside of strings, comments and trigger bodies. A line
//! that begins with a dot is a command of the shell.

/// Where a position of the text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Quotes(char),
    LineComment,
    BlockComment,
}

/// The statements and commands of a text, in order. What follows the last semicolon is one, too.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut statement = String::new();
    for line in text.lines() {
        if statement.is_empty() && (line.trim().is_empty() || line.trim().starts_with("--")) {
            continue;
        }
        if statement.is_empty() && line.trim_start().starts_with('.') {
            all.push(line.trim().to_owned());
            continue;
        }
        if !statement.is_empty() {
            statement.push('\n');
        }
        statement.push_str(line);
        if is_complete(&statement) {
            all.push(std::mem::take(&mut statement).trim().to_owned());
        }
    }
    if !statement.trim().is_empty() {
        all.push(statement.trim().to_owned());
    }
    all
}

fn is_complete(statement: &str) -> bool {
    let code = code(statement);
    let code = code.trim_end();
    if !code.ends_with(';') {
        return false;
    }
    let words: Vec<String> = code
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_uppercase)
        .collect();
    let begins_trigger = words.first().is_some_and(|word| word == "CREATE")
        && words.iter().take(4).any(|word| word == "TRIGGER");
    !begins_trigger || words.last().is_some_and(|word| word == "END")
}

/// The text without what is within quotes and comments.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut within = Within::Nothing;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let next = characters.peek().copied();
        within = match (within, c, next) {
            (Within::Nothing, '-', Some('-')) => Within::LineComment,
            (Within::Nothing, '/', Some('*')) => Within::BlockComment,
            (Within::Nothing, '\'' | '"' | '`', _) => Within::Quotes(c),
            (Within::Nothing, '[', _) => Within::Quotes(']'),
            (Within::Nothing, ..) => {
                code.push(c);
                Within::Nothing
            }
            (Within::Quotes(end), ..) if c == end => Within::Nothing,
            (Within::LineComment, '\n', _) => Within::Nothing,
            (Within::BlockComment, '*', Some('/')) => {
                characters.next();
                Within::Nothing
            }
            (inside, ..) => inside,
        };
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_several_lines() {
        let cases: [(&str, &[&str]); 9] = [
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1;\n\nSELECT 2;\n", &["SELECT 1;", "SELECT 2;"]),
            (
                "CREATE TABLE t (\n  id INTEGER\n);",
                &["CREATE TABLE t (\n  id INTEGER\n);"],
            ),
            ("-- hello\n.tables\nSELECT 1;", &[".tables", "SELECT 1;"]),
            (
                "INSERT INTO t VALUES ('a;\nb');",
                &["INSERT INTO t VALUES ('a;\nb');"],
            ),
            ("SELECT 'it''s;';", &["SELECT 'it''s;';"]),
            (
                "SELECT 1 /* ;\n*/ + 1; -- done",
                &["SELECT 1 /* ;\n*/ + 1; -- done"],
            ),
            (
                "CREATE TRIGGER x AFTER INSERT ON t BEGIN\nDELETE FROM u;\nEND;\nSELECT 1;",
                &[
                    "CREATE TRIGGER x AFTER INSERT ON t BEGIN\nDELETE FROM u;\nEND;",
                    "SELECT 1;",
                ],
            ),
            ("  \n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
