//! The size of a request as a log entry, and its limit.
use node_db::Request;
use node_values::{Statement, Value};

/// Largest request in its encoded form. A body of the API's 32 MiB nearly always stays below it (only numbers
/// and NULLs grow by encoding, short floats by a factor of 2.5). It leaves space in a frame between nodes, 64
/// MiB, for what is sent with it: up to 4 MiB of other entries or other forwarded writes, and headers.
pub const MAX_REQUEST_BYTES: usize = 48 << 20;

/// A request is too large for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request takes {0} bytes in the log, more than the {MAX_REQUEST_BYTES} allowed; send it in parts, or as an SQL script or database file to \
     /db/load"
)]
pub struct TooLarge(usize);

/// An upper bound of a request's encoded bytes; close to them, except for numbers.
pub fn weight(request: &Request) -> usize {
    64 + request.statements.iter().map(weight_of).sum::<usize>()
}

fn weight_of(statement: &Statement) -> usize {
    let parameters = statement.parameters.iter().map(|given| {
        let name = given.name.as_ref().map_or(0, String::len);
        let value = match &given.value {
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
        };
        16 + name + value
    });
    16 + statement.sql.len() + parameters.sum::<usize>()
}

/// Refuses a request that is too large for one entry.
///
/// # Errors
/// See [`TooLarge`].
pub fn check(request: &Request) -> Result<(), TooLarge> {
    if weight(request) <= MAX_REQUEST_BYTES {
        return Ok(());
    }
    match postcard::experimental::serialized_size(request) {
        Ok(bytes) if bytes <= MAX_REQUEST_BYTES => Ok(()),
        Ok(bytes) => Err(TooLarge(bytes)),
        Err(_) => Err(TooLarge(usize::MAX)),
    }
}

/// Splits a list into runs of at most about `max_bytes`, in order; a larger item is a run of its own.
pub fn runs<T>(items: Vec<T>, max_bytes: usize, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = weight(&item);
        match runs.last_mut() {
            Some(run) if bytes + more <= max_bytes => {
                bytes += more;
                run.push(item);
            }
            _ => {
                bytes = more;
                runs.push(vec![item]);
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use node_db::{Kind, Rules, Stamp};
    use node_values::Parameter;

    use super::*;

    fn request(values: Vec<Value>, name: Option<&str>, sql: &str) -> Request {
        let parameter = |value| Parameter {
            name: name.map(str::to_owned),
            value,
        };
        Request {
            kind: Kind::Execute,
            transaction: false,
            qualify_columns: false,
            statements: vec![Statement {
                sql: sql.to_owned(),
                parameters: values.into_iter().map(parameter).collect(),
            }],
            stamp: Stamp {
                unix_micros: i64::MIN,
                seed: u64::MAX,
            },
            rules: Rules::V1,
        }
    }

    #[test]
    fn the_weight_is_never_less_than_the_bytes() {
        let long = "n".repeat(300);
        for (values, name, sql) in [
            (vec![], None, ""),
            (vec![Value::Integer(i64::MIN); 100], None, "x"),
            (vec![Value::Real(1.5); 100], Some("n"), "x"),
            (vec![Value::Null; 100], Some(long.as_str()), &long),
            (
                vec![Value::Text(long.clone()), Value::Blob(vec![7; 70_000])],
                None,
                &long,
            ),
        ] {
            let request = request(values, name, sql);
            let bytes = postcard::to_stdvec(&request).unwrap().len();
            assert!(weight(&request) >= bytes, "{bytes}: {request:?}");
        }
    }

    #[test]
    fn too_much_is_told_by_its_encoded_size() {
        // 16 weights each, but 10 bytes.
        let floats = |count| request(vec![Value::Real(1.5); count], None, "x");
        assert_eq!(check(&floats(4_000_000)), Ok(()));
        let text = check(&floats(6_000_000)).unwrap_err().to_string();
        assert!(
            text.contains("60000030 bytes") && text.contains("/db/load"),
            "{text}"
        );
        assert_eq!(
            check(&request(vec![], None, &"x".repeat(MAX_REQUEST_BYTES - 100))),
            Ok(())
        );
    }

    #[test]
    fn runs_keep_the_order_and_the_limit() {
        let runs = |weights: &[usize]| runs(weights.to_vec(), 10, |weight| *weight);
        assert_eq!(runs(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(
            runs(&[4, 6, 1, 20, 1, 2, 8]),
            [vec![4, 6], vec![1], vec![20], vec![1, 2], vec![8]]
        );
    }
}
