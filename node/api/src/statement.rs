//! Reads the JSON body of a request into statements in one pass, without building a document in between.
//!
//! A body is checked element by element, and within an element syntax before meaning: a wrong meaning is
//! recorded as a fault while the element is read to its end, and a syntax error in the same element takes
//! precedence.
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::json;
use literals::as_go_reads;
use node_values::{Parameter, Statement, Value};

mod literals;

/// Why a body is not a list of statements. The texts are part of the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON as far as it had to be read.
    #[error("invalid JSON body")]
    Json,
    /// JSON, but not a list of statement forms.
    #[error("invalid request")]
    Request,
    /// An empty list.
    #[error("no statements")]
    Empty,
    /// A parameter of a kind that cannot be bound; holds the kind's name, or the number that is not a byte.
    #[error("unsupported type {0}")]
    Unsupported(String),
    /// A number beyond the range of a double; holds it as written.
    #[error("invalid number {0}")]
    Number(String),
}

/// A rough size of one statement in a long body; only sizes the first allocation.
const BYTES_PER_STATEMENT: usize = 128;
/// Bound of the first allocation, whatever the body's length claims.
const MAX_PRESIZED: usize = 1024;
const OBJECT: &str = "map[string]interface {}";
const ARRAY: &str = "[]interface {}";

/// Reads a body: a JSON array of SQL strings and of arrays `[sql, parameter, …]`. Bytes after the array are
/// ignored; bytes that are not UTF-8 are read as U+FFFD.
///
/// # Errors
/// See [`ParseError`]; each means HTTP 400 with the error's text.
pub fn parse_statements(body: &[u8]) -> Result<Vec<Statement>, ParseError> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(body),
    };
    let text = as_go_reads(text);
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let list = List {
        capacity: (text.len() / BYTES_PER_STATEMENT).clamp(1, MAX_PRESIZED),
        fault: &mut fault,
    };
    let read = deserializer.deserialize_seq(list);
    if let Some(fault) = fault {
        return Err(fault);
    }
    match read {
        Ok(statements) if statements.is_empty() => Err(ParseError::Empty),
        Ok(statements) => Ok(statements),
        Err(error) => Err(classify(&error, &text)),
    }
}

/// Distinguishes a body of another shape, a number out of range, and broken JSON. Off the hot path.
fn classify(error: &serde_json::Error, text: &str) -> ParseError {
    if error.is_data() {
        return ParseError::Request;
    }
    if error.to_string().starts_with("number out of range")
        && let Some(number) = number_at(text, error.line(), error.column())
    {
        return ParseError::Number(number);
    }
    ParseError::Json
}

/// The number literal that ends at or covers `line` and `column` (both from 1).
fn number_at(text: &str, line: usize, column: usize) -> Option<String> {
    let is_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let line = text.split('\n').nth(line.checked_sub(1)?)?.as_bytes();
    let at = column.min(line.len());
    let before = line[..at].iter().rev().take_while(|b| is_number(b)).count();
    let after = line[at..].iter().take_while(|b| is_number(b)).count();
    let literal = std::str::from_utf8(&line[at - before..at + after]).ok()?;
    (!literal.is_empty()).then(|| literal.to_owned())
}

/// The outer array.
struct List<'f> {
    capacity: usize,
    fault: &'f mut Option<ParseError>,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Statement>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of statements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut statements = Vec::with_capacity(self.capacity);
        loop {
            match array.next_element_seed(At(Element { fault: self.fault })) {
                Ok(Some(statement)) => statements.push(statement),
                Ok(None) => return Ok(statements),
                Err(error) => {
                    *self.fault = None;
                    return Err(error);
                }
            }
            // The first fault decides; later elements are not read.
            if self.fault.is_some() {
                return Ok(statements);
            }
        }
    }
}

/// A JSON value that is neither an array nor an object.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Real(f64),
    Text(&'a str),
}

impl Scalar<'_> {
    /// How an error names the value where a byte was expected.
    fn describe(&self) -> String {
        match self {
            Self::Null => "<nil>".to_owned(),
            Self::Bool(_) => "bool".to_owned(),
            Self::Integer(n) => n.to_string(),
            Self::Real(x) => {
                let mut out = Vec::new();
                json::write_f64(&mut out, *x);
                String::from_utf8_lossy(&out).into_owned()
            }
            Self::Text(_) => "string".to_owned(),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Integer(i64::from(b)),
            Self::Integer(n) => Value::Integer(n),
            Self::Real(x) => Value::Real(x),
            Self::Text(text) => match hex_blob(text) {
                Some(blob) => Value::Blob(blob),
                None => Value::Text(text.to_owned()),
            },
        }
    }
}

/// The bytes of `x'…'` or `X'…'`, blanks around it allowed. None: the string is text.
fn hex_blob(text: &str) -> Option<Vec<u8>> {
    let inner = text
        .trim()
        .strip_prefix(['x', 'X'])?
        .strip_prefix('\'')?
        .strip_suffix('\'')?;
    let (pairs, []) = inner.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// A position in the body, and how a value found there is interpreted.
trait Place<'de>: Sized {
    type Value;
    fn scalar(self, scalar: Scalar<'_>) -> Self::Value;
    fn array<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error>;
    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error>;
}

/// Lets serde visit a [`Place`].
struct At<P>(P);

impl<'de, P: Place<'de>> DeserializeSeed<'de> for At<P> {
    type Value = P::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Place<'de>> Visitor<'de> for At<P> {
    type Value = P::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.0.scalar(Scalar::Null))
    }

    fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
        Ok(self.0.scalar(Scalar::Bool(b)))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Ok(self.0.scalar(Scalar::Integer(n)))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        // Beyond int64 the literal is a REAL; the cast rounds to nearest, as parsing it as a double would.
        Ok(self
            .0
            .scalar(i64::try_from(n).map_or(Scalar::Real(n as f64), Scalar::Integer)))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Self::Value, E> {
        Ok(self.0.scalar(Scalar::Real(x)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.scalar(Scalar::Text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error> {
        self.0.array(array)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        self.0.object(object)
    }
}

/// Reads the rest of an array for its syntax only.
fn skip_array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<(), A::Error> {
    while array.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Reads the rest of an object for its syntax only.
fn skip_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<(), A::Error> {
    while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Of several parameters of one name the last one counts, as in rqlite. SQLite is given the first one of a
/// name, so that one takes its value here, before there is a log entry.
fn last_of_a_name_counts(parameters: &mut [Parameter]) {
    let named = parameters.iter().filter(|one| one.name.is_some()).count();
    if named < 2 {
        return;
    }
    let mut positions: HashMap<&str, (usize, usize)> = HashMap::with_capacity(named);
    for (at, parameter) in parameters.iter().enumerate() {
        if let Some(name) = &parameter.name {
            positions.entry(name).or_insert((at, at)).1 = at;
        }
    }
    if positions.len() == named {
        return;
    }
    let repeated: Vec<_> = positions.into_values().collect();
    for (first, last) in repeated {
        let value = parameters
            .get_mut(last)
            .map(|one| std::mem::replace(&mut one.value, Value::Null));
        if let (Some(parameter), Some(value)) = (parameters.get_mut(first), value) {
            parameter.value = value;
        }
    }
}

/// One element of the outer array.
struct Element<'f> {
    fault: &'f mut Option<ParseError>,
}

impl<'de> Place<'de> for Element<'_> {
    type Value = Statement;

    fn scalar(self, scalar: Scalar<'_>) -> Statement {
        if let Scalar::Text(sql) = scalar {
            return Statement {
                sql: sql.to_owned(),
                parameters: Vec::new(),
            };
        }
        *self.fault = Some(ParseError::Request);
        Statement::default()
    }

    fn array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Statement, A::Error> {
        let Some(Some(sql)) = array.next_element_seed(At(Sql))? else {
            *self.fault = Some(ParseError::Request);
            skip_array(array)?;
            return Ok(Statement::default());
        };
        let mut parameters = Vec::new();
        while array
            .next_element_seed(At(Argument {
                parameters: &mut parameters,
                fault: self.fault,
            }))?
            .is_some()
        {}
        let mut statement = Statement { sql, parameters };
        last_of_a_name_counts(&mut statement.parameters);
        Ok(statement)
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Statement, A::Error> {
        *self.fault = Some(ParseError::Request);
        skip_object(object)?;
        Ok(Statement::default())
    }
}

/// The first element of a statement's array; None if it is not a string.
struct Sql;

impl<'de> Place<'de> for Sql {
    type Value = Option<String>;

    fn scalar(self, scalar: Scalar<'_>) -> Self::Value {
        match scalar {
            Scalar::Text(sql) => Some(sql.to_owned()),
            _ => None,
        }
    }

    fn array<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error> {
        skip_array(array).map(|()| None)
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        skip_object(object).map(|()| None)
    }
}

/// A further element of a statement's array: a positional parameter, or an object of named ones.
struct Argument<'f> {
    parameters: &'f mut Vec<Parameter>,
    fault: &'f mut Option<ParseError>,
}

impl<'de> Place<'de> for Argument<'_> {
    type Value = ();

    fn scalar(self, scalar: Scalar<'_>) {
        self.parameters.push(Parameter {
            name: None,
            value: scalar.into_value(),
        });
    }

    fn array<A: SeqAccess<'de>>(self, array: A) -> Result<(), A::Error> {
        let value = Bound { fault: self.fault }.array(array)?;
        self.parameters.push(Parameter { name: None, value });
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(name) = object.next_key::<String>()? {
            let value = object.next_value_seed(At(Bound { fault: self.fault }))?;
            // An empty name counts as none.
            let name = (!name.is_empty()).then_some(name);
            self.parameters.push(Parameter { name, value });
        }
        Ok(())
    }
}

/// A value to bind: a scalar or an array of bytes.
struct Bound<'f> {
    fault: &'f mut Option<ParseError>,
}

impl<'de> Place<'de> for Bound<'_> {
    type Value = Value;

    fn scalar(self, scalar: Scalar<'_>) -> Value {
        scalar.into_value()
    }

    fn array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
        let mut blob = Vec::new();
        while let Some(byte) = array.next_element_seed(At(Byte))? {
            match byte {
                Ok(byte) => blob.push(byte),
                Err(kind) => {
                    self.fault.get_or_insert(ParseError::Unsupported(kind));
                    skip_array(array)?;
                    break;
                }
            }
        }
        Ok(Value::Blob(blob))
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Value, A::Error> {
        self.fault
            .get_or_insert_with(|| ParseError::Unsupported(OBJECT.to_owned()));
        skip_object(object).map(|()| Value::Null)
    }
}

/// An element of an array that has to be a blob; otherwise the name of what it is.
struct Byte;

impl<'de> Place<'de> for Byte {
    type Value = Result<u8, String>;

    fn scalar(self, scalar: Scalar<'_>) -> Self::Value {
        match scalar {
            Scalar::Integer(n) => u8::try_from(n).map_err(|_| scalar.describe()),
            _ => Err(scalar.describe()),
        }
    }

    fn array<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error> {
        skip_array(array).map(|()| Err(ARRAY.to_owned()))
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        skip_object(object).map(|()| Err(OBJECT.to_owned()))
    }
}

#[cfg(test)]
mod tests;
