//! The nodes that have contacted this one to form a cluster: they may be listed nowhere else, as where all
//! nodes name only one of them.
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// More than form one cluster; more would come from faulty or hostile senders.
const MAX_CALLERS: usize = 64;
/// A caller is forgotten after this long without another notice from it. A round that waits for silent
/// addresses takes less.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Addresses to contact in the next round. Only hints: what counts is the response of the node there.
#[derive(Debug, Default)]
pub struct Callers(Mutex<Vec<(String, Instant)>>);

impl Callers {
    /// Notes the address of a node that is ready to form a cluster. The longest silent one makes room.
    pub fn note(&self, address: &str) {
        let mut known = self.0.lock();
        known.retain(|(other, at)| other != address && at.elapsed() < FORGET_AFTER);
        if known.len() >= MAX_CALLERS {
            known.remove(0);
        }
        known.push((address.to_owned(), Instant::now()));
    }

    /// All that have called lately, without those in `listed` and `own`.
    pub(super) fn others_than(&self, listed: &[String], own: &str) -> Vec<String> {
        let known = self.0.lock();
        known
            .iter()
            .filter(|(address, at)| {
                at.elapsed() < FORGET_AFTER && address != own && !listed.contains(address)
            })
            .map(|(address, _)| address.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_few_and_not_listed() {
        let callers = Callers::default();
        for n in 0..=MAX_CALLERS {
            callers.note(&format!("n{n}:4002"));
        }
        callers.note("n5:4002");
        let known = callers.others_than(&["n7:4002".into()], "n6:4002");
        assert_eq!(known.len(), MAX_CALLERS - 2);
        assert_eq!(known.last().map(String::as_str), Some("n5:4002"));
        for gone in ["n0:4002", "n6:4002", "n7:4002"] {
            assert!(!known.iter().any(|at| at == gone), "{gone} in {known:?}");
        }
    }
}
