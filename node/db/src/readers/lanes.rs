//! Scheduling of reads: short ones run at once, long ones take turns.
//!
//! Each read begins on the short lane and stays there for at most [`SHORT`]. A read that needs more moves to
//! the long lane, where as many reads compute as the machine has cores. After [`TURN`] each yields to the
//! next that waits. A waiting read keeps its thread, its connection and its position in the statement,
//! because it waits inside SQLite's progress handler. So neither lane can starve the other, and no work is
//! repeated.
use std::{collections::VecDeque, time::Duration};

/// How long a read computes before it counts as long. Two hundred that arrive at once delay the next by at
/// most a second.
pub(super) const SHORT: Duration = Duration::from_millis(10);
/// How long a long read computes while another waits for its turn.
pub(super) const TURN: Duration = Duration::from_millis(50);

/// The scheduling state of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// In its first milliseconds.
    Short,
    /// Long, and computing.
    Long,
    /// Long, and waiting: for its turn, or for its client to take rows.
    Waiting,
    /// Not scheduled (a backup).
    Unscheduled,
}

/// What a read does at the end of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It continues with another turn.
    GoOn,
    /// It waits for its next turn.
    Wait,
    /// It ends, because there are too many long reads.
    Refused,
}

/// The two lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Reads that may compute at the same time, on each lane.
    slots: usize,
    /// Limit of long reads, computing or waiting.
    max_long: usize,
    short: usize,
    long: usize,
    /// Long reads that are computing.
    computing: usize,
    waiting: VecDeque<u64>,
}

impl Lanes {
    pub(super) fn new(slots: usize, max_long: usize) -> Self {
        Self {
            slots,
            max_long,
            short: 0,
            long: 0,
            computing: 0,
            waiting: VecDeque::new(),
        }
    }

    /// How many more reads may start.
    pub(super) fn free_slots(&self) -> usize {
        self.slots - self.short
    }

    /// Counts a read that starts.
    pub(super) fn begin(&mut self) -> Lane {
        self.short += 1;
        Lane::Short
    }

    /// Ends the turn of read `id`.
    pub(super) fn turn_over(&mut self, id: u64, lane: Lane) -> (Lane, Next) {
        match lane {
            Lane::Short if self.long >= self.max_long => (Lane::Short, Next::Refused),
            Lane::Long if self.waiting.is_empty() => (Lane::Long, Next::GoOn),
            Lane::Unscheduled => (Lane::Unscheduled, Next::GoOn),
            _ => {
                let parked = self.park(lane);
                self.unpark(id, parked)
            }
        }
    }

    /// Gives up the turn of a read that waits for something other than the processor.
    pub(super) fn park(&mut self, lane: Lane) -> Lane {
        match lane {
            Lane::Short => {
                self.short -= 1;
                self.long += 1;
            }
            Lane::Long => self.computing -= 1,
            Lane::Waiting | Lane::Unscheduled => return lane,
        }
        Lane::Waiting
    }

    /// Asks for a turn for a parked read.
    pub(super) fn unpark(&mut self, id: u64, lane: Lane) -> (Lane, Next) {
        if lane != Lane::Waiting {
            return (lane, Next::GoOn);
        }
        if self.computing < self.slots && self.waiting.is_empty() {
            self.computing += 1;
            return (Lane::Long, Next::GoOn);
        }
        self.waiting.push_back(id);
        (Lane::Waiting, Next::Wait)
    }

    /// Grants the next turn, if one is free. The returned read is on [`Lane::Long`] from now on.
    pub(super) fn next_turn(&mut self) -> Option<u64> {
        if self.computing >= self.slots {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.computing += 1;
        Some(next)
    }

    /// Removes a read that has ended.
    pub(super) fn end(&mut self, id: u64, lane: Lane) {
        match lane {
            Lane::Short => self.short -= 1,
            Lane::Long => {
                self.computing -= 1;
                self.long -= 1;
            }
            Lane::Waiting => {
                self.waiting.retain(|waiting| *waiting != id);
                self.long -= 1;
            }
            Lane::Unscheduled => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reads_leave_the_short_lane_and_take_turns() {
        let mut lanes = Lanes::new(1, 10);
        assert_eq!(lanes.begin(), Lane::Short);
        assert_eq!(lanes.free_slots(), 0);
        assert_eq!(lanes.turn_over(1, Lane::Short), (Lane::Long, Next::GoOn));
        assert_eq!(lanes.free_slots(), 1, "a long read holds up no short one");
        assert_eq!(
            lanes.turn_over(1, Lane::Long),
            (Lane::Long, Next::GoOn),
            "alone"
        );

        lanes.begin();
        assert_eq!(lanes.turn_over(2, Lane::Short), (Lane::Waiting, Next::Wait));
        assert_eq!(lanes.free_slots(), 1);
        assert_eq!(lanes.next_turn(), None, "the first has its turn");
        assert_eq!(lanes.turn_over(1, Lane::Long), (Lane::Waiting, Next::Wait));
        assert_eq!(lanes.next_turn(), Some(2));
        lanes.end(2, Lane::Long);
        assert_eq!(lanes.next_turn(), Some(1));
        lanes.end(1, Lane::Long);
        assert_eq!((lanes.short, lanes.long, lanes.computing), (0, 0, 0));
    }

    #[test]
    fn a_read_that_waits_for_its_client_holds_no_turn() {
        let mut lanes = Lanes::new(1, 10);
        lanes.begin();
        assert_eq!(lanes.park(Lane::Short), Lane::Waiting);
        lanes.begin();
        assert_eq!(lanes.turn_over(2, Lane::Short), (Lane::Long, Next::GoOn));
        assert_eq!(lanes.unpark(1, Lane::Waiting), (Lane::Waiting, Next::Wait));
        lanes.end(1, Lane::Waiting);
        lanes.end(2, Lane::Long);
        assert_eq!(lanes.next_turn(), None, "who has ended is not called");
        assert_eq!((lanes.short, lanes.long, lanes.computing), (0, 0, 0));
    }

    #[test]
    fn long_reads_have_a_limit() {
        let mut lanes = Lanes::new(2, 1);
        lanes.begin();
        lanes.begin();
        assert_eq!(lanes.turn_over(1, Lane::Short), (Lane::Long, Next::GoOn));
        assert_eq!(
            lanes.turn_over(2, Lane::Short),
            (Lane::Short, Next::Refused)
        );
        lanes.end(2, Lane::Short);
        lanes.end(1, Lane::Long);
        assert_eq!((lanes.short, lanes.long, lanes.computing), (0, 0, 0));
    }
}
