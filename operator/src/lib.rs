//! The operator: keeps each `RqliteCluster` as its user wants it.
//!
//! [`cluster`] decides: an observation in, a plan out, nothing else. Around it, one sequence: [`caches`] say what there is, [`observe`] makes
//! an observation of it
//! (with [`evidence`] of what does not start), [`mod@pass`] has it planned and carries the plan out through [`apply`] (objects) and [`act`] (the one action).
//! [`controller`] runs passes, [`run`] assembles, [`definitions`] prints the custom resource definitions. DESIGN.md says why.
pub mod act;
pub mod apply;
pub mod backoff;
pub mod caches;
pub mod carried;
pub mod cluster;
pub mod controller;
pub mod definitions;
pub mod edits;
pub mod error;
pub mod events;
pub mod evidence;
pub mod lease;
pub mod live;
pub mod metrics;
pub mod node_client;
pub mod observe;
pub mod reconcile;
pub mod run;
pub mod serve;
pub mod telemetry;
