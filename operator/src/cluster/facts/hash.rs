//! Short hashes of values.
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Hexadecimal digits of a hash: 64 bits suffice to distinguish the few templates of one cluster.
const HASH_CHARS: usize = 16;

/// A short hash of a value's JSON. Maps are sorted, so equal values have equal hashes.
pub fn hash(value: &impl Serialize) -> String {
    // These types always serialize. An empty value would only make different values equal.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let digest = Sha256::digest(json);
    let mut text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(HASH_CHARS);
    text
}
