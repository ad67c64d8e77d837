//! The operator: reconciles every `RqliteCluster` with its spec.
//!
//! [`cluster`] decides: a pure function from an observation to a plan. Around it, one sequence: [`caches`]
//! hold the objects of the API server, [`observe`] builds an observation from them (with [`evidence`] of what
//! does not start), and [`mod@reconcile`] computes the plan and executes it through [`apply`] (objects) and
//! [`act`] (the one action). [`controller`] runs the reconciles, [`run`] assembles the process,
//! [`definitions`] prints the custom resource definitions. DESIGN.md gives the reasons.
pub mod act;
pub mod api_health;
pub mod apply;
pub mod backoff;
pub mod backups;
pub mod caches;
pub mod carried;
pub mod cert_manager;
pub mod cluster;
pub mod controller;
pub mod definitions;
pub mod edits;
pub mod error;
pub mod events;
pub mod evidence;
pub mod farewell;
pub mod installations;
pub mod lease;
pub mod live;
pub mod managed;
pub mod metrics;
pub mod node_client;
pub mod node_watch;
pub mod observe;
pub mod platform;
pub mod reconcile;
pub mod run;
pub mod secrets;
pub mod serve;
pub mod stores;
pub mod telemetry;
pub mod yaml;
