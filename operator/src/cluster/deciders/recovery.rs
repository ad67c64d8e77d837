//! Restores a cluster that has lost its quorum. Before its admission a recovery only observes
//! ([`check_admission`]). Afterwards the cluster's status records everything that its steps need, and no
//! other operation runs: all nodes are stopped, the survivor alone follows the plan and is verified, and only
//! then the new lineage becomes the cluster's. The others rejoin as new members through the ordinary
//! deciders.
mod admission;
mod automatic;
mod belonging;
mod check;
mod decide;
mod fence;
mod files;
mod from_archive;
mod record;
mod rejoin;
mod stalled;
mod steps;
mod updates;
mod verdict;

pub use admission::check_admission;
pub use automatic::{automatic, object};
pub use belonging::{
    DRY_RUN_KEPT_SECONDS, KEPT, KEPT_SECONDS, NamedRecovery, expired, is_of_tool, owner, unowned,
};
pub use check::is_checking;
pub use decide::decide;
pub use files::plan as plan_file;
pub use rejoin::rejoin;
pub use stalled::report_stalled;
pub use updates::{StatusUpdate, held_updates, status_updates};
pub use verdict::{Admission, PATIENCE_SECONDS};

#[cfg(test)]
mod tests;
