//! Secrets: read by name, and made from recipes. The only part of the operator that has random material in
//! its hands.
mod certificates;
mod make;
mod read;

pub use make::Maker;
pub use read::{SecretCache, read};
