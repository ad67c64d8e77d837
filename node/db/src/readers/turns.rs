//! How a read that runs changes lanes, and waits for its turn.
use std::sync::MutexGuard;

use super::{
    control::{Control, StopReason},
    lanes::{Lane, Next, TURN},
    state::{REPEAT, Readers, State, lock, wait},
};

impl Readers {
    /// A read has computed for as long as it may; waits until it may go on. `false`: it has to end.
    pub(super) fn turn_over(&self, id: u64, control: &Control) -> bool {
        let mut state = lock(&self.state);
        let Some(lane) = state.running.get(&id).map(|entry| entry.lane) else {
            return true;
        };
        let (now, next) = state.lanes.turn_over(id, lane);
        self.follow(state, id, control, now, next)
    }

    fn follow(
        &self,
        mut state: MutexGuard<'_, State>,
        id: u64,
        control: &Control,
        now: Lane,
        next: Next,
    ) -> bool {
        if let Some(entry) = state.running.get_mut(&id) {
            entry.lane = now;
        }
        state.grant_turns();
        match next {
            Next::Refused => {
                control.stop(StopReason::TooManyLongReads);
                return false;
            }
            Next::GoOn => control.begin_turn(TURN),
            Next::Wait => {}
        }
        // It may have left the short lane, which has room for the next job.
        self.dispatch(state);
        next == Next::GoOn || self.wait_for_turn(id, control)
    }

    /// A read waits for something else than the processor.
    pub(super) fn park(&self, id: u64) {
        let mut state = lock(&self.state);
        let Some(lane) = state.running.get(&id).map(|entry| entry.lane) else {
            return;
        };
        let parked = state.lanes.park(lane);
        if let Some(entry) = state.running.get_mut(&id) {
            entry.lane = parked;
        }
        state.grant_turns();
        self.dispatch(state);
    }

    /// A read that was parked goes on, when it is its turn. `false`: it has to end.
    pub(super) fn unpark(&self, id: u64, control: &Control) -> bool {
        let mut state = lock(&self.state);
        let Some(lane) = state.running.get(&id).map(|entry| entry.lane) else {
            return true;
        };
        let (now, next) = state.lanes.unpark(id, lane);
        self.follow(state, id, control, now, next)
    }

    fn wait_for_turn(&self, id: u64, control: &Control) -> bool {
        let mut state = lock(&self.state);
        let lane = |state: &State| state.running.get(&id).map(|entry| entry.lane);
        while lane(&state) == Some(Lane::Waiting) {
            if control.must_stop() {
                return false;
            }
            state = wait(&control.turn, state, REPEAT);
        }
        !control.is_stopped()
    }
}
