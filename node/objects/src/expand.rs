//! `$VAR` and `${VAR}` in a configuration file, before it is read as JSON.

/// The text with variables replaced. Within a JSON string the value is escaped, so that it may contain quotes
/// and backslashes. `$$` is a dollar sign; a dollar before anything else is left as it is.
///
/// # Errors
/// A variable that is not set, or `${` without `}`.
pub(crate) fn expand(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '$' {
            let (value, left) = variable(rest, environment)?;
            match in_string {
                true => out.push_str(&quoted(&value)),
                false => out.push_str(&value),
            }
            rest = left;
            escaped = false;
            continue;
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    Ok(out)
}

/// The value of the variable at the beginning of `text`, and the text after it.
fn variable<'a>(
    text: &'a str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, &'a str), String> {
    let after = text.strip_prefix('$').unwrap_or(text);
    if let Some(left) = after.strip_prefix('$') {
        return Ok(("$".to_owned(), left));
    }
    let (name, left) = match after.strip_prefix('{') {
        Some(inner) => inner
            .split_once('}')
            .ok_or("a '${' is not closed by '}'; write $$ for a dollar sign")?,
        None => {
            let end = after
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(after.len());
            after.split_at_checked(end).unwrap_or((after, ""))
        }
    };
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(("$".to_owned(), after));
    }
    environment(name).map(|value| (value, left)).ok_or_else(|| {
        format!(
            "${name} is not set in the environment; set it (it may be empty), or write $$ for a dollar sign"
        )
    })
}

fn quoted(value: &str) -> String {
    let json = serde_json::Value::from(value).to_string();
    let inner = json.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "QUOTE" => Some("a\"b\\c".into()),
            "EMPTY" => Some(String::new()),
            "YES" => Some("true".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_and_escaped_within_strings() -> Result<(), String> {
        for (text, expected) in [
            (r#"{"a":"$A"}"#, r#"{"a":"one"}"#),
            (r#"{"a":"x${A}y"}"#, r#"{"a":"xoney"}"#),
            (r#"{"a":$YES}"#, r#"{"a":true}"#),
            (r#"{"a":"$QUOTE"}"#, r#"{"a":"a\"b\\c"}"#),
            (r#"{"a":"$EMPTY"}"#, r#"{"a":""}"#),
            (r#"{"a":"p$$q"}"#, r#"{"a":"p$q"}"#),
            (r#"{"a":"p$ $1 $"}"#, r#"{"a":"p$ $1 $"}"#),
            (r#"{"a":"\"$A"}"#, r#"{"a":"\"one"}"#),
            (r#"{"a":"\\","b":$YES}"#, r#"{"a":"\\","b":true}"#),
            ("ä$A", "äone"),
        ] {
            assert_eq!(expand(text, &environment)?, expected, "{text}");
        }
        Ok(())
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let why = expand(r#"{"a":"$NOPE"}"#, &environment).err();
        assert!(why.is_some_and(|why| why.contains("$NOPE")));
        assert!(expand("${A", &environment).is_err());
    }
}
