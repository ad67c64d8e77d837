//! What is seen and what that means. Nothing here decides, and nothing here knows the deciders or the objects.
pub mod addresses;
pub mod lineage;
pub mod observation;
pub mod pods;
pub mod quorum;
pub mod validate;
pub mod view;
pub mod volume;
