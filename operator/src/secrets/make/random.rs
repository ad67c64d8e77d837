//! Random bytes and passwords.
use rand::{TryRngCore as _, rngs::OsRng};

use crate::{cluster::facts::secrets::SecretBytes, error::Error};

/// Bytes of a random password: 256 bits, so that no hash of it can be searched for.
const PASSWORD_BYTES: usize = 32;

/// Random bytes of the operating system.
///
/// # Errors
/// It has none.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let filled = OsRng.try_fill_bytes(&mut bytes);
    filled.map_err(|error| Error::NoRandomness(error.to_string()))?;
    Ok(bytes)
}

/// A random password, in hexadecimal: it needs no quoting anywhere.
///
/// # Errors
/// The operating system has no random numbers.
pub(super) fn password() -> Result<SecretBytes, Error> {
    let bytes = bytes::<PASSWORD_BYTES>()?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(SecretBytes::new(text))
}
