//! Checks whether the history of one register is linearizable, with the search of Wing and Gong ("Testing and
//! Verifying Concurrent Objects", 1993) and Lowe's cache of visited configurations, as in Porcupine.
use std::collections::HashSet;

/// An operation on the register with its result. The register's value before any write is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read that returned this value.
    Read(u64),
    /// Write of this value.
    Write(u64),
    /// Replacement of `from` by `to` if the value was `from`; `done` says whether it was replaced, `None` if
    /// no reply was received.
    CompareAndSet {
        /// Expected value.
        from: u64,
        /// New value.
        to: u64,
        /// Whether it matched.
        done: Option<bool>,
    },
}

/// One operation with its time span in nanoseconds of a clock shared by all clients.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// When the request was sent.
    pub called: u64,
    /// When the reply arrived. `None` if none arrived: the operation may take effect at any later time, or
    /// never.
    pub returned: Option<u64>,
    /// The operation and its result.
    pub action: Action,
}

/// Result of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A linearization exists.
    Linearizable,
    /// No linearization exists.
    Impossible,
    /// The search stopped at its step limit.
    Undecided,
}

/// The value after an operation on `value`; `None` if the operation could not have had its result there.
fn apply(value: u64, action: Action) -> Option<u64> {
    match action {
        Action::Read(seen) => (seen == value).then_some(value),
        Action::Write(new) => Some(new),
        Action::CompareAndSet { from, to, done } => {
            let matches = from == value;
            match done {
                Some(done) if done != matches => None,
                _ => Some(if matches { to } else { value }),
            }
        }
    }
}

/// Searches for a linearization of the operations on one register, for at most `max_steps` steps.
///
/// Each value except 0 must be written at most once.
#[must_use]
pub fn check(operations: &[Operation], max_steps: u64) -> Verdict {
    // Every unanswered write doubles the search space, and most of them were never observed. A history that
    // is linearizable without them is linearizable. Only if it is not can one of them explain a failed
    // comparison.
    let likely: Vec<Operation> = operations
        .iter()
        .filter(|operation| is_seen(operation, operations))
        .copied()
        .collect();
    match search(&likely, max_steps) {
        Verdict::Linearizable => Verdict::Linearizable,
        verdict if likely.len() == operations.len() => verdict,
        _ => search(operations, max_steps),
    }
}

/// Whether the operation was answered, or its value was observed by an answered operation.
fn is_seen(operation: &Operation, operations: &[Operation]) -> bool {
    let value = match operation.action {
        Action::Write(value) | Action::CompareAndSet { to: value, .. }
            if operation.returned.is_none() =>
        {
            value
        }
        _ => return true,
    };
    operations.iter().any(|other| match other.action {
        Action::Read(seen) => seen == value,
        Action::CompareAndSet { from, done, .. } => from == value && done != Some(false),
        Action::Write(_) => false,
    })
}

fn search(operations: &[Operation], max_steps: u64) -> Verdict {
    let mut search = Search::new(operations);
    for _ in 0..max_steps {
        if search.open_returns == 0 {
            return Verdict::Linearizable;
        }
        if !search.step() {
            return Verdict::Impossible;
        }
    }
    Verdict::Undecided
}

/// An entry of the time-ordered list: the call or the return of an operation.
#[derive(Clone, Copy)]
struct Event {
    operation: usize,
    is_return: bool,
    previous: usize,
    next: usize,
}

/// List positions of an operation's call and return.
#[derive(Clone, Copy)]
struct Span {
    call: usize,
    returned: Option<usize>,
}

/// Sentinel before the first event.
const HEAD: usize = 0;

struct Search<'a> {
    operations: &'a [Operation],
    events: Vec<Event>,
    spans: Vec<Span>,
    /// Next position to try; `HEAD` means the end of the list.
    at: usize,
    value: u64,
    ordered: Vec<u64>,
    /// Operations in the order found so far, each with the value before it.
    chosen: Vec<(usize, u64)>,
    seen: HashSet<(Vec<u64>, u64)>,
    open_returns: usize,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        // At equal times calls come before returns, so that the two operations count as concurrent.
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            times.push((operation.called, false, index));
            times.extend(operation.returned.map(|at| (at, true, index)));
        }
        times.sort_unstable();
        let count = times.len() + 1;
        let mut events = vec![Event {
            operation: usize::MAX,
            is_return: false,
            previous: count - 1,
            next: 1 % count,
        }];
        let mut spans = vec![
            Span {
                call: 0,
                returned: None
            };
            operations.len()
        ];
        for (offset, (_, is_return, operation)) in times.into_iter().enumerate() {
            let position = offset + 1;
            events.push(Event {
                operation,
                is_return,
                previous: position - 1,
                next: (position + 1) % count,
            });
            if is_return {
                spans[operation].returned = Some(position);
            } else {
                spans[operation].call = position;
            }
        }
        Self {
            operations,
            at: events[HEAD].next,
            events,
            open_returns: spans.iter().filter(|span| span.returned.is_some()).count(),
            spans,
            value: 0,
            ordered: vec![0; operations.len().div_ceil(64)],
            chosen: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Tries one event; false once every order has been tried.
    fn step(&mut self) -> bool {
        let event = self.events[self.at];
        // A return whose call is not yet in the order (or the end of the list): no extension of the current
        // prefix works, so backtrack.
        if self.at == HEAD || event.is_return {
            return self.take_back();
        }
        if let Some(value) = apply(self.value, self.operations[event.operation].action) {
            self.flip(event.operation);
            if self.seen.insert((self.ordered.clone(), value)) {
                self.chosen.push((event.operation, self.value));
                self.value = value;
                self.unlink(event.operation);
                self.at = self.events[HEAD].next;
                return true;
            }
            self.flip(event.operation);
        }
        self.at = event.next;
        true
    }

    fn take_back(&mut self) -> bool {
        let Some((operation, value)) = self.chosen.pop() else {
            return false;
        };
        self.value = value;
        self.flip(operation);
        self.relink(operation);
        self.at = self.events[self.spans[operation].call].next;
        true
    }

    fn flip(&mut self, operation: usize) {
        self.ordered[operation / 64] ^= 1 << (operation % 64);
    }

    fn unlink(&mut self, operation: usize) {
        let span = self.spans[operation];
        self.cut_out(span.call);
        if let Some(returned) = span.returned {
            self.cut_out(returned);
            self.open_returns -= 1;
        }
    }

    /// Undoes [`Search::unlink`]. Calls must nest.
    fn relink(&mut self, operation: usize) {
        let span = self.spans[operation];
        if let Some(returned) = span.returned {
            self.put_back(returned);
            self.open_returns += 1;
        }
        self.put_back(span.call);
    }

    fn cut_out(&mut self, position: usize) {
        let Event { previous, next, .. } = self.events[position];
        self.events[previous].next = next;
        self.events[next].previous = previous;
    }

    fn put_back(&mut self, position: usize) {
        let Event { previous, next, .. } = self.events[position];
        self.events[previous].next = position;
        self.events[next].previous = position;
    }
}

#[cfg(test)]
mod tests;
