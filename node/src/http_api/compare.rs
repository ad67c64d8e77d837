//! `POST /db/compare`: compares the copies of all members, by hashes of their content at one log entry.
//! rqlite does not have this endpoint.
use std::sync::Arc;

use serde_json::json;

use super::{error::Failure, param::Call, reply::Response, state::HttpState};
use crate::{store::Caller, store_types::Verdict};

pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    caller: &Caller,
) -> Result<Response, Failure> {
    let comparison = state.store.compare(caller).await.map_err(Failure::Call)?;
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
    Ok(state.replies.json(text.into_bytes()))
}
