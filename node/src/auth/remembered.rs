//! Results of comparisons with hashes that are remembered: the right password of a user costs a hash once,
//! and so does a wrong one that is sent again and again. Passwords are not kept, only fingerprints.
use std::collections::{HashMap, HashSet, VecDeque};

use super::fingerprint::Fingerprint;

/// Right ones, and wrong ones, that are remembered. Wrong ones do not displace right ones.
const MAX_OF_A_KIND: usize = 4096;

/// Refused logins that are remembered: those of some seconds of a flood.
const MAX_REFUSED: usize = 16_384;

/// Logins that were refused, by a part of their fingerprints. The oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Refused {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Refused {
    pub(super) fn contains(&self, id: &Fingerprint) -> bool {
        self.known.contains(&id.short())
    }

    pub(super) fn put(&mut self, id: &Fingerprint) {
        let id = id.short();
        if !self.known.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_REFUSED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// A set of limited size; the oldest members leave it.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    results: HashMap<Fingerprint, bool>,
    right: VecDeque<Fingerprint>,
    wrong: VecDeque<Fingerprint>,
}

impl Remembered {
    pub(super) fn get(&self, id: &Fingerprint) -> Option<bool> {
        self.results.get(id).copied()
    }

    pub(super) fn put(&mut self, id: Fingerprint, right: bool) {
        if self.results.insert(id, right).is_some() {
            return;
        }
        let kind = if right {
            &mut self.right
        } else {
            &mut self.wrong
        };
        kind.push_back(id);
        if kind.len() > MAX_OF_A_KIND
            && let Some(oldest) = kind.pop_front()
        {
            self.results.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::fingerprint::Key;

    #[test]
    fn the_oldest_refused_ones_are_forgotten() {
        let key = Key::random();
        let id = |number: usize| key.fingerprint(0, &[&number.to_string()]);
        let mut refused = Refused::default();
        for number in 0..=MAX_REFUSED {
            refused.put(&id(number));
            refused.put(&id(number));
        }
        assert!(!refused.contains(&id(0)) && refused.contains(&id(1)));
        assert_eq!(
            (refused.known.len(), refused.order.len()),
            (MAX_REFUSED, MAX_REFUSED)
        );
    }

    #[test]
    fn wrong_ones_do_not_displace_right_ones() {
        let key = Key::random();
        let id = |number: usize| key.fingerprint(0, &[&number.to_string()]);
        let mut kept = Remembered::default();
        kept.put(id(0), true);
        kept.put(id(0), true);
        for number in 1..=MAX_OF_A_KIND + 1 {
            kept.put(id(number), false);
        }
        assert_eq!(kept.get(&id(0)), Some(true));
        assert_eq!(kept.get(&id(1)), None);
        assert_eq!(kept.get(&id(2)), Some(false));
        assert_eq!(kept.results.len(), MAX_OF_A_KIND + 1);
    }
}
