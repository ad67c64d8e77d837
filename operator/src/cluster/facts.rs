//! The observation, and what it means. Nothing here decides or uses deciders or rendered objects.
pub mod addresses;
pub mod claims;
pub mod forming;
pub mod lineage;
pub mod newer;
pub mod observation;
pub mod own_pods;
pub mod ownership;
pub mod pods;
pub mod quorum;
pub mod unknown;
pub mod validate;
pub mod view;
pub mod volume;
