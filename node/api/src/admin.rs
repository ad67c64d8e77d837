//! Bodies of the requests that change the cluster: `DELETE /remove` and `POST /leader`.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::from_named_fields;

/// Body of `DELETE /remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// The node to remove.
    pub id: String,
}

impl RemoveRequest {
    /// Reads `{"id":"<node>"}`: exactly one key, a string. None otherwise, which is HTTP 400 with an empty
    /// body.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut fields: BTreeMap<String, String> = serde_json::from_slice(body).ok()?;
        let id = fields.remove("id")?;
        fields.is_empty().then_some(Self { id })
    }
}

/// Body of `POST /leader`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRequest {
    /// The node that is to become leader; None leaves the choice to the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The body is not valid JSON of the expected shape: HTTP 400 with the error's text.
#[derive(Debug, thiserror::Error)]
#[error("invalid JSON: {0}")]
pub struct InvalidJson(#[from] serde_json::Error);

impl LeaderRequest {
    /// Reads `{"id":"<node>"}`; `null`, a missing or an empty ID means any node. Other keys are ignored.
    ///
    /// # Errors
    /// See [`InvalidJson`].
    pub fn parse(body: &[u8]) -> Result<Self, InvalidJson> {
        let request: Option<Self> = from_named_fields(body)?;
        let id = request.unwrap_or_default().id.filter(|id| !id.is_empty());
        Ok(Self { id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remove_takes_one_string_named_id() {
        let cases: &[(&str, Option<&str>)] = &[
            (r#"{"id":"n1"}"#, Some("n1")),
            (r#" { "id" : "" } "#, Some("")),
            (r#"{"id":"n1","force":"yes"}"#, None),
            (r#"{"addr":"n1"}"#, None),
            (r#"{"id":1}"#, None),
            (r#"{"id":null}"#, None),
            (r#"["n1"]"#, None),
            ("{}", None),
            ("", None),
            (r#"{"id":"n1"} x"#, None),
        ];
        for (body, id) in cases {
            assert_eq!(
                RemoveRequest::parse(body.as_bytes())
                    .map(|r| r.id)
                    .as_deref(),
                *id,
                "{body}"
            );
        }
    }

    #[test]
    fn leader_takes_an_optional_id() {
        let cases: &[(&str, Option<&str>)] = &[
            (r#"{"id":"n1"}"#, Some("n1")),
            (r#"{"id":null}"#, None),
            (r#"{"id":""}"#, None),
            (r#"{"other":1}"#, None),
            ("{}", None),
            ("null", None),
        ];
        for (body, id) in cases {
            assert_eq!(
                LeaderRequest::parse(body.as_bytes()).unwrap().id.as_deref(),
                *id,
                "{body}"
            );
        }
        for body in [
            "",
            "{",
            r#"{"id":1}"#,
            "[]x",
            "[]",
            "[null]",
            " [\"n1\"]",
            "1",
            "\"n1\"",
        ] {
            let text = LeaderRequest::parse(body.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(text.starts_with("invalid JSON: "), "{text}");
        }
    }
}
