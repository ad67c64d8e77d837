//! Members whose Raft address has changed since the membership was recorded.
use crate::{
    identity::name_of,
    internode::messages::{Notice, NoticeState},
    local::Local,
};

/// Notes the address that another member reports in its notice.
pub fn note_member(local: &Local, notice: &Notice) {
    if notice.state == NoticeState::Member {
        note_if_moved(local, &notice.id, &notice.raft_addr);
    }
}

/// Notes the address of a member if it differs from the recorded one, so that Raft can reach the member
/// before a leader records the change.
pub fn note_if_moved(local: &Local, id: &str, raft_addr: &str) {
    let moved = id != local.raft_id()
        && local.moved_to(id).as_deref() != Some(raft_addr)
        && local
            .recorded(id)
            .is_some_and(|recorded| recorded != raft_addr);
    if moved {
        tracing::info!(target: "cluster", "member {} has moved to {raft_addr}", name_of(id));
        local.note_moved(id, raft_addr);
    }
}
