//! Members, leadership and maintenance.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::http::Method;

use super::session::{Done, Session, print};
use crate::client::{Call, Limit, Payload};
use crate::tree;

/// `.nodes`
pub(super) fn nodes(session: &mut Session<'_>, all: bool) -> Result<Done> {
    let members =
        session.request_json(&Call::get(if all { "nodes?nonvoters" } else { "nodes" }))?;
    tree::write(&members, session.screen())?;
    Ok(Done::Well)
}

/// `.leader`
pub(super) fn leader(session: &mut Session<'_>) -> Result<Done> {
    let members = session.request_json(&Call::get("nodes"))?;
    let found = members.as_object().and_then(|members| {
        members
            .iter()
            .find(|(_, member)| member["leader"] == Value::Bool(true))
    });
    let Some((id, member)) = found else {
        bail!("no leader found");
    };
    tree::write(&json!({ id: member }), session.screen())?;
    Ok(Done::Well)
}

/// `.ready`. A node that is not ready is a failure, so that a script can wait for it.
pub(super) fn ready(session: &mut Session<'_>) -> Result<Done> {
    let response = session.client.send(&Call::get("readyz"))?;
    let ready = response.status().is_success();
    print(session, if ready { "ready" } else { "not ready" })?;
    Ok(if ready { Done::Well } else { Done::Failed })
}

/// `.snapshot`. It is no failure if there is nothing new to snapshot.
pub(super) fn snapshot(session: &mut Session<'_>, trailing_logs: Option<u64>) -> Result<Done> {
    let query = trailing_logs
        .map(|count| format!("?trailing_logs={count}"))
        .unwrap_or_default();
    session.request(&Call::post_empty(format!("snapshot{query}")))?;
    Ok(Done::Well)
}

/// `.reap`
pub(super) fn reap(session: &mut Session<'_>) -> Result<Done> {
    let counts = session.request_json(&Call::post_empty("reap"))?;
    let count = |name: &str| {
        counts[name]
            .as_u64()
            .with_context(|| format!("{name} is missing in the response"))
    };
    let (snapshots, wals) = (count("snapshots_reaped")?, count("wals_checkpointed")?);
    print(
        session,
        &format!("snapshots reaped: {snapshots}, WALs checkpointed: {wals}"),
    )
}

/// `.stepdown`: returns when another node leads.
pub(super) fn stepdown(session: &mut Session<'_>, id: Option<&str>) -> Result<Done> {
    let call = match id {
        Some(id) => Call::post_json("leader?wait=true", json!({ "id": id }).to_string()),
        None => Call::post_empty("leader?wait=true"),
    };
    session.request(&call)?;
    Ok(Done::Well)
}

/// `.remove`
pub(super) fn remove(session: &mut Session<'_>, id: &str) -> Result<Done> {
    let payload = Payload::Bytes(
        "application/json",
        json!({ "id": id }).to_string().into_bytes(),
    );
    session.request(&Call {
        method: Method::DELETE,
        path: "remove".to_owned(),
        payload,
        limit: Limit::Whole,
    })?;
    Ok(Done::Well)
}
