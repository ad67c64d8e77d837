//! From a lost quorum back to a cluster. Before its admission a recovery only looks ([`consider`]). Afterwards the cluster's status remembers all
//! that its steps need, and it owns the cluster: everybody is stopped, the survivor alone follows the plan, is checked, and only then the new history
//! is the cluster's. The others come back as new members by the ordinary ways.
mod admission;
mod automatic;
mod decide;
mod files;
mod record;
mod rejoin;
mod steps;
mod updates;

pub use admission::{Admission, PATIENCE_SECONDS, check_admission};
pub use automatic::{automatic, object};
pub use decide::decide;
pub use files::plan as plan_file;
pub use rejoin::rejoin;
pub use updates::{StatusUpdate, status_updates};

#[cfg(test)]
mod tests;
