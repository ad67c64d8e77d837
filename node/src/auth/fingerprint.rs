//! Keyed fingerprints: what is remembered of passwords. The key is random and known to this process only.
use std::fmt;

use blake2::{
    Blake2sMac256,
    digest::{FixedOutput, KeyInit, Update},
};
use subtle::ConstantTimeEq;

const KEY_BYTES: usize = 32;

/// The key of this process.
#[derive(Clone)]
pub(super) struct Key([u8; KEY_BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key")
    }
}

/// A fingerprint of some texts. Says nothing about them without the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Fingerprint([u8; 32]);

impl Key {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    /// The fingerprint of these texts for one purpose. Each text is preceded by its length, so that no two
    /// lists of texts are alike.
    pub(super) fn fingerprint(&self, purpose: u8, texts: &[&str]) -> Fingerprint {
        let mut mac = Blake2sMac256::new(&self.0.into());
        mac.update(&[purpose]);
        for text in texts {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        Fingerprint(mac.finalize_fixed().into())
    }
}

impl Fingerprint {
    /// Compares in a time that does not depend on the values.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// A small number, spread evenly.
    pub(super) fn bucket(&self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }

    /// A part of it, where a mistake does no harm.
    pub(super) fn short(&self) -> u64 {
        let part = self.0.first_chunk::<8>();
        u64::from_be_bytes(part.copied().unwrap_or_default())
    }

    /// One of the items, always the same for the same fingerprint.
    pub(super) fn choose<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        let number = self
            .0
            .iter()
            .skip(1)
            .take(4)
            .fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        items.get(number.checked_rem(items.len())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_shows() {
        let key = Key::random();
        let one = key.fingerprint(1, &["ab", "c"]);
        assert!(one.matches(&key.fingerprint(1, &["ab", "c"])));
        for other in [
            key.fingerprint(2, &["ab", "c"]),
            key.fingerprint(1, &["a", "bc"]),
            key.fingerprint(1, &["abc"]),
            key.fingerprint(1, &["ab", "c", ""]),
            Key::random().fingerprint(1, &["ab", "c"]),
        ] {
            assert!(!one.matches(&other));
        }
        assert_eq!(one.choose::<u8>(&[]), None);
        assert_eq!(one.choose(&[7]), Some(&7));
        assert_eq!(format!("{key:?}"), "Key");
    }
}
