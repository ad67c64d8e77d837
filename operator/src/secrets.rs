//! Secrets: read by name, and made from recipes. The only module of the operator that creates random
//! passwords and keys.
mod certificates;
mod make;
mod read;

pub use make::Maker;
pub use read::{SecretCache, read};
