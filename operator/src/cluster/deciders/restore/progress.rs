//! How far the restore under way is, by what the leader says of it.
use node_contract::RestoreState;
use operator_api::status::Operation;

use crate::cluster::facts::view::{Leader, View};

/// How far it is.
pub(super) enum Progress<'a> {
    /// The leader has not got the request: it may be sent.
    Unsent,
    /// The leader is at it.
    Running(String),
    /// It is done.
    Done(&'a RestoreState),
    /// It failed, and the database is as it was.
    Failed(&'a RestoreState),
    /// Nobody leads.
    NoLeader,
    /// The leader that was asked leads no more, and the present one knows nothing of it.
    Unknown(String),
}

/// Which process was asked: a leader that restarts, or is elected again, leads in another term.
pub(super) fn token(leader: Leader<'_>) -> String {
    format!("{}@{}", leader.status.raft_id, leader.status.term)
}

/// How far the restore of this operation is.
pub(super) fn progress<'a>(view: &View<'a>, operation: &Operation) -> Progress<'a> {
    let asked = operation.uid.as_deref().unwrap_or_default();
    of_request(view, &operation.id, Some(asked))
}

/// How far the restore with this id is. `asked`: the process that was asked, if that is on record.
pub(super) fn of_request<'a>(view: &View<'a>, id: &str, asked: Option<&str>) -> Progress<'a> {
    if let Some(state) = view.seen.restore_states.get(id) {
        return match state.state.as_str() {
            RestoreState::DONE => Progress::Done(state),
            RestoreState::FAILED => Progress::Failed(state),
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
        "" => "the leader restores",
        message => message,
    };
    format!("{what}{}", percent.unwrap_or_default())
}
