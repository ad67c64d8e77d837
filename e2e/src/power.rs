//! Power cuts: disks that drop what was not synced, and clients that remember what they were told.
//!
//! [`model`] says what a cut may leave, [`disk`] mounts it, [`work`] writes and judges, [`lane`] lets nodes live and cuts their power.
pub mod disk;
pub mod lane;
pub mod model;
pub mod work;
