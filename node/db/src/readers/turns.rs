//! Moving a running read between lanes, and waiting for its turn.
use std::sync::MutexGuard;

use super::{
    control::{Control, StopReason},
    lanes::{Lane, Next, TURN},
    state::{REPEAT, Readers, State, lock, wait},
};

impl Readers {
    /// Ends the turn of a read and waits until it may continue. Returns `false` if it has to end.
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
        // The read may have left the short lane, which then has a free slot.
        self.dispatch(state);
        next == Next::GoOn || self.wait_for_turn(id, control)
    }

    /// Gives up the turn of a read that waits for something other than the processor.
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

    /// Waits until a parked read has its turn. Returns `false` if it has to end.
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
