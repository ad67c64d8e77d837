//! Errors as one line for people.
use operator_api::failure;

/// The whole chain of an error on one line, without repetitions.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let client = cause.downcast_ref::<kube::Error>();
        let text = client.map_or_else(|| cause.to_string(), of_kubernetes);
        let text = failure::one_line(&text);
        if !text.is_empty() && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        if client.is_some() {
            break;
        }
    }
    parts.join(": ")
}

/// The API server's message, or why there is none.
fn of_kubernetes(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if is_unknown_kind(&status.message) => {
            "this API server has no rqlite clusters: is rqlite-operator installed here?".to_owned()
        }
        kube::Error::Api(status) => failure::refused(status),
        other => failure::unanswered(other),
    }
}

fn is_unknown_kind(message: &str) -> bool {
    let known = [
        "could not find the requested resource",
        "404 page not found",
    ];
    known.iter().any(|text| message.contains(text))
}

/// A time that the API server accepts, too.
pub(crate) fn moment(text: &str) -> Result<operator_api::Moment, String> {
    let moment = operator_api::Moment::from(text);
    let parsed = moment.timestamp().map_err(|error| error.to_string());
    parsed.map(|_| moment)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use kube::core::Status;

    use super::*;

    fn refused(message: &str) -> anyhow::Error {
        let status = Status::failure(message, "Forbidden").with_code(403);
        let error = kube::Error::Api(status.boxed());
        Err::<(), _>(error).context("reading demo").unwrap_err()
    }

    #[test]
    fn each_fact_once_and_no_rust() {
        let said = line(&refused("pods \"demo-0\" is forbidden:\n no"));
        assert_eq!(said, "reading demo: pods \"demo-0\" is forbidden: no");
        let empty = line(&refused(""));
        assert_eq!(empty, "reading demo: the API server answered 403 Forbidden");
        let missing = line(&refused("the server could not find the requested resource"));
        assert!(
            missing.contains("is rqlite-operator installed"),
            "{missing}"
        );
        let plain = anyhow::anyhow!("a").context("a: b");
        assert_eq!(line(&plain), "a: b");
    }
}
