//! Short reads on the caller's thread, with spare connections.
use std::time::{Duration, Instant};

use super::{
    run::run_read,
    sink::Buffered,
    state::{Phase, Reader, Readers, lock},
};
use crate::{entry::Outcome, sql::classify, types::Read};

/// A read on its caller's thread takes microseconds. One that has run this long is waiting for the disk, and
/// so would the next.
const STALLED_LIMIT: Duration = Duration::from_millis(50);

impl Readers {
    /// Runs a short read on this thread. Returns `None` if it takes more than about `vm_steps` instructions,
    /// is more than one statement, or no spare connection is free.
    pub(crate) fn read_inline(&self, read: &Read, vm_steps: u32) -> Option<Outcome> {
        let [statement] = read.statements.as_slice() else {
            return None;
        };
        if !classify::is_plain_single(&statement.sql) {
            return None;
        }
        let place = {
            let mut state = lock(&self.state);
            if state.phase != Phase::Open {
                return None;
            }
            let inline = &state.inline;
            if inline
                .iter()
                .flatten()
                .any(|since| since.elapsed() > STALLED_LIMIT)
            {
                return None;
            }
            let place = inline.iter().position(Option::is_none)?;
            state.inline[place] = Some(Instant::now());
            place
        };
        let outcome = self.run_inline(place, read, vm_steps);
        let mut state = lock(&self.state);
        state.inline[place] = None;
        self.inline[place].0.clear();
        if state.phase != Phase::Open {
            self.quiet.notify_all();
        }
        outcome
    }

    fn run_inline(&self, place: usize, read: &Read, vm_steps: u32) -> Option<Outcome> {
        let (control, slot) = &self.inline[place];
        let mut slot = lock(slot);
        if slot.as_ref().is_none_or(|held| held.authorizer.is_dirty()) {
            let mut reader = Reader::open(&self.settings).ok()?;
            control.watch(&mut reader.conn).ok()?;
            *slot = Some(reader);
        }
        let reader = slot.as_ref()?;
        control.arm(None, Some(vm_steps));
        let mut whole = Buffered::inline(control);
        let error = run_read(reader, control, read, &mut whole, None);
        let results = whole.results;
        (!control.is_stopped()).then_some(Outcome { results, error })
    }
}

#[cfg(test)]
mod tests;
