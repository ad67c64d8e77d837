//! A request without its body: parameters, headers and credentials, and what the store needs of them.
use std::{net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, Uri,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE},
};
use node_api::{QueryParams, parse_statements};
use node_values::Statement;

use super::{error::Failure, route::Route};
use crate::{
    audit::{Counts, Notes, counts_of},
    store::Caller,
    store_types::{Credentials, ReadOptions},
};

/// A request that passed the checks of `dispatch.rs`, without its body.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) route: &'static Route,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) params: QueryParams,
    pub(super) credentials: Option<Credentials>,
    /// Address of the client.
    pub(super) client: Option<SocketAddr>,
    /// For the audit log, if there is one.
    pub(super) notes: Option<Arc<Notes>>,
}

impl Call {
    pub(super) fn caller(&self) -> Caller {
        Caller {
            credentials: self.credentials.clone(),
            timeout: self.params.timeout,
            retries: self.params.retries,
            client: self.client,
        }
    }

    pub(super) fn read_options(&self) -> ReadOptions {
        ReadOptions {
            level: self.params.level,
            freshness: self.params.freshness,
            freshness_strict: self.params.freshness_strict,
            linearizable_timeout: self.params.linearizable_timeout,
        }
    }

    /// Notes statements that read or write, for the audit log.
    pub(super) fn note_statements(&self, reads: usize, writes: usize) {
        if let Some(notes) = &self.notes {
            notes.statements(Counts {
                reads: reads as u64,
                writes: writes as u64,
            });
        }
    }

    /// Notes statements of a request that may read and write.
    pub(super) fn note_mixed(&self, statements: &[Statement]) {
        if let Some(notes) = &self.notes {
            notes.statements(counts_of(statements.iter().map(|one| one.sql.as_str())));
        }
    }

    /// Notes how many statements have failed.
    pub(super) fn note_failed(&self, failed: usize) {
        if let Some(notes) = &self.notes {
            notes.failed(failed);
        }
    }

    fn content_type(&self) -> &[u8] {
        self.headers
            .get(CONTENT_TYPE)
            .map_or(b"", |value| value.as_bytes())
    }

    /// The body is one SQL statement, not JSON.
    pub(super) fn is_plain_sql(&self) -> bool {
        self.content_type().starts_with(b"text/plain")
    }

    /// True if the body is declared as JSON with a length. Only then does `/leader` read it.
    pub(super) fn announces_json(&self) -> bool {
        self.content_type() == b"application/json" && self.headers.contains_key(CONTENT_LENGTH)
    }

    /// The statement of a GET. A missing one is empty, which has no result.
    pub(super) fn statement_of_url(&self) -> Vec<Statement> {
        vec![plain(self.params.q.clone().unwrap_or_default())]
    }

    /// The statements of a body, which is JSON or, by its content type and if not for the queue, plain SQL.
    pub(super) fn statements(&self, body: &[u8]) -> Result<Vec<Statement>, Failure> {
        if self.is_plain_sql() && !self.params.queue {
            return Ok(vec![plain(String::from_utf8_lossy(body).into_owned())]);
        }
        parse_statements(body).map_err(Failure::Statements)
    }
}

fn plain(sql: String) -> Statement {
    Statement {
        sql,
        parameters: Vec::new(),
    }
}

/// HTTP Basic credentials. Other schemes and malformed headers count as no credentials.
pub(super) fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn basic_credentials() {
        let cases = [
            ("Basic Ym9iOnNlY3JldA==", Some(("bob", "secret"))),
            ("basic Ym9iOnNlY3JldA==", Some(("bob", "secret"))),
            // "bob:a:b", ":", and "bob" without a colon.
            ("Basic Ym9iOmE6Yg==", Some(("bob", "a:b"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic Ym9i", None),
            ("Basic !", None),
            ("Bearer Ym9iOnNlY3JldA==", None),
            ("Basic", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            let expected = expected.map(|(name, password)| Credentials {
                username: name.to_owned(),
                password: password.to_owned(),
            });
            assert_eq!(credentials(&headers), expected, "{value}");
        }
        assert_eq!(credentials(&HeaderMap::new()), None);
    }
}
