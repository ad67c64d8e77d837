//! Progress of the running restore, as the leader's status reports it.
use std::collections::BTreeMap;

use node_contract::RestoreState;
use operator_api::status::Operation;

use crate::cluster::facts::view::{Leader, View};

/// Progress of a restore.
pub(super) enum Progress<'a> {
    /// The leader has not received the request; it may be sent.
    Unsent,
    /// The leader is carrying it out; its message.
    Running(String),
    /// It has succeeded.
    Done(&'a RestoreState),
    /// It failed, and the database is unchanged.
    Failed(&'a RestoreState),
    /// There is no leader.
    NoLeader,
    /// The leader that received the request no longer leads and the present one does not know the restore, or
    /// the leader itself does not know whether it took effect.
    Unknown(String),
}

/// Identifies the leader that received the request: after a restart or another election the term differs.
pub(super) fn token(leader: Leader<'_>) -> String {
    format!("{}@{}", leader.status.raft_id, leader.status.term)
}

/// Adds the present leader's report of its last restore to earlier reports. It knows nothing of a restore
/// that a former leader was running, so that one does not count as running any more.
pub fn note_answer(states: &mut BTreeMap<String, RestoreState>, answer: Option<RestoreState>) {
    states.retain(|_, state| state.is_over());
    if let Some(state) = answer
        && let Some(id) = state.id.clone()
    {
        states.insert(id, state);
    }
}

/// Progress of the restore of this operation.
pub(super) fn progress<'a>(view: &View<'a>, operation: &Operation) -> Progress<'a> {
    let asked = operation.uid.as_deref().unwrap_or_default();
    of_request(view, &operation.id, Some(asked))
}

/// Progress of the restore with this id. `asked`: [`token`] of the leader that received the request, if it is
/// recorded.
pub(super) fn of_request<'a>(view: &View<'a>, id: &str, asked: Option<&str>) -> Progress<'a> {
    let state = view.seen.restore_states.get(id);
    // Without a leader, nothing says that the restore goes on.
    if let Some(state) = state.filter(|state| state.is_over() || view.leader.is_some()) {
        return match state.state.as_str() {
            RestoreState::DONE => Progress::Done(state),
            RestoreState::FAILED => Progress::Failed(state),
            RestoreState::UNKNOWN => Progress::Unknown(state.message.clone()),
            _ => Progress::Running(described(state)),
        };
    }
    match view.leader {
        None => Progress::NoLeader,
        Some(leader) if asked == Some(token(leader).as_str()) => Progress::Unsent,
        Some(leader) => Progress::Unknown(format!(
            "the leader changed while the restore was under way, and {} knows nothing of it: it may have taken effect or not. \
             Look at the data; if it is not as it should be, create another RqliteRestore: what was there before is in the archive",
            leader.name
        )),
    }
}

fn described(state: &RestoreState) -> String {
    let percent = state.percent.map(|percent| format!(" ({percent} %)"));
    let what = match state.message.trim() {
        "" => "the leader is restoring",
        message => message,
    };
    format!("{what}{}", percent.unwrap_or_default())
}
