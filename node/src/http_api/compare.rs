//! `POST /db/compare`: compares the copies of all members, by a hash of their content at one entry of the log. Ours, not rqlite's.
use std::sync::Arc;

use serde_json::json;

use super::{Edge, error::Failure, param::Call, reply::Response};
use crate::{store::Caller, store_types::Verdict};

pub(super) async fn answer(
    edge: &Arc<Edge>,
    call: &Call,
    caller: &Caller,
) -> Result<Response, Failure> {
    let comparison = edge.store.compare(caller).await.map_err(Failure::Call)?;
    let members: Vec<_> = comparison
        .copies
        .iter()
        .map(|copy| {
            json!({
                "id": crate::identity::name_of(&copy.id),
                "raft_id": copy.id,
                "voter": copy.voter,
                "hash": copy.hash.map(|hash| hash.to_string()),
                "note": copy.note,
            })
        })
        .collect();
    let (verdict, differ) = match &comparison.verdict {
        Verdict::Equal => ("equal", Vec::new()),
        Verdict::Differ { wrong, .. } => ("differ", wrong.clone()),
        Verdict::Undecided => ("undecided", Vec::new()),
    };
    let body = json!({
        "index": comparison.index,
        "verdict": verdict,
        "differ": differ,
        "members": members,
    });
    let text = if call.params.pretty {
        format!("{body:#}\n")
    } else {
        format!("{body}\n")
    };
    Ok(edge.replies.json(text.into_bytes()))
}
