//! One module for each kind of change: from a view to a decision. They use facts and each other, but not
//! the `render` module.
pub mod approval;
pub mod authentication;
pub mod beginning;
pub mod blocked;
pub mod bootstrap;
pub mod certificates;
pub mod deletion;
pub mod drain;
pub mod hibernate;
pub mod manager;
pub mod membership;
pub mod names_taken;
pub mod outage;
pub mod readers;
pub mod reap;
pub mod recovered_by_hand;
pub mod recovery;
pub mod replace;
pub mod restore;
pub mod rollback;
pub mod rollout;
pub mod scale;
pub mod storage;
pub mod tls;
pub mod unknown;
pub mod unstick;
