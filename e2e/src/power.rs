//! Power loss: file systems that drop what was not synced, and clients that record which writes were
//! acknowledged.
//!
//! [`model`] defines what a power cut may leave, [`disk`] mounts it, [`work`] writes and verifies, [`run`]
//! starts clusters and cuts their power.
pub mod disk;
pub mod model;
pub mod run;
pub mod work;
