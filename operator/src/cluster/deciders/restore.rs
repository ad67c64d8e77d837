//! Restores in place (RqliteRestore): one at a time, after its status says what it will undo, and never
//! during another operation. The leader carries the restore out; the operation recorded in the cluster's
//! status keeps the other deciders waiting.
mod admission;
mod belonging;
mod objects;
mod progress;
mod texts;
mod updates;

use node_contract::RestoreRequest;
use operator_api::{
    RqliteRestore,
    status::{Operation, OperationType, Step},
};

use self::{
    admission::{Next, admit},
    objects::{is_over, name, open, uid},
    progress::{Progress, progress, token},
    texts::point,
};
use crate::cluster::{
    action::{Action, Decision, begin, finish, step},
    facts::view::{Leader, View, seconds_between},
};

pub use belonging::{expired, unowned};
pub use objects::is_open;
pub use progress::note_answer;
pub use updates::{RestoreUpdate, held_updates, status_updates};

/// Seconds without a leader after which a restore no longer keeps other deciders waiting, so that they can
/// bring the leader back.
const ELECTION_SECONDS: u64 = 60;

/// The next step of the running restore, or of the oldest one that can begin.
pub fn decide(view: &View<'_>) -> Decision {
    if let Some(operation) = view.operating(OperationType::Restore) {
        return resume(view, operation);
    }
    let open = open(view);
    let begun = open.iter().find_map(|restore| start(view, restore));
    begun.unwrap_or(Decision::Continue)
}

fn start(view: &View<'_>, restore: &RqliteRestore) -> Option<Decision> {
    let leader = view.leader?;
    match admit(view, restore).next {
        Next::Nothing => None,
        Next::Plan(request) => {
            let text = format!(
                "requesting a dry run of the RqliteRestore {} from {}",
                name(restore),
                leader.name
            );
            Some(Decision::Act(action(leader, *request), text))
        }
        Next::Begin => {
            let record = begin(
                view.status,
                uid(restore),
                view.now(),
                OperationType::Restore,
                Some(leader.name),
                Some(&token(leader)),
            );
            let text = format!(
                "the database goes back to {}, as the RqliteRestore {} asks",
                point(restore),
                name(restore)
            );
            Some(Decision::Record(record, text))
        }
    }
}

fn action(leader: Leader<'_>, request: RestoreRequest) -> Action {
    Action::Restore {
        leader: leader.name.to_owned(),
        raft_id: leader.status.raft_id.clone(),
        term: leader.status.term,
        request,
    }
}

fn resume(view: &View<'_>, operation: &Operation) -> Decision {
    let all = view.seen.restores.iter();
    let restore = all.clone().find(|restore| uid(restore) == operation.id);
    if restore.is_some_and(is_over) {
        let text = "the restore has ended".to_owned();
        return Decision::Record(finish(view.status), text);
    }
    match (progress(view, operation), restore) {
        (Progress::NoLeader, _) => without_leader(view),
        (Progress::Running(text), _) => Decision::Wait(text),
        (Progress::Done(_) | Progress::Failed(_) | Progress::Unknown(_), Some(_)) => {
            Decision::Wait("recording the result of the restore".to_owned())
        }
        (Progress::Unsent, Some(_)) if operation.step == Step::Start => {
            let leader = operation.member.as_deref().unwrap_or("the leader");
            let text = format!("requesting the restore from {leader}");
            Decision::Record(step(view.status, view.now(), Step::Apply), text)
        }
        (Progress::Unsent, Some(restore)) => match view.leader {
            Some(leader) => {
                let request = admission::request(view, restore, false);
                let text = format!("{} restores {}", leader.name, point(restore));
                Decision::Act(action(leader, request), text)
            }
            None => without_leader(view),
        },
        (_, None) => {
            let text = "the RqliteRestore was deleted, and nothing of it is under way".to_owned();
            Decision::Record(finish(view.status), text)
        }
    }
}

fn without_leader(view: &View<'_>) -> Decision {
    let seen = view.leader_seen().map(|seen| seen.at);
    let seen = seen.or_else(|| view.status.last_leader_seen.clone());
    let away = seen.map_or(0, |at| seconds_between(&at, view.now()));
    match away < ELECTION_SECONDS {
        true => Decision::Wait("a restore is under way, and there is no leader now".to_owned()),
        false => Decision::Continue,
    }
}

#[cfg(test)]
mod tests;
