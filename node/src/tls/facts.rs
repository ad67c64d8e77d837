//! What certificates say of themselves: validity, names, keys, fingerprints.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::{parse_x509_certificate, prelude::X509Certificate, public_key::PublicKey};

/// Smallest RSA key that is accepted, in bits.
const MIN_RSA_BITS: usize = 2048;

/// When a certificate is valid, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be presented by a server.
    Server,
    /// To be presented by a client.
    Client,
}

impl Validity {
    /// Of a certificate.
    ///
    /// # Errors
    /// It cannot be parsed.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        Ok(Self {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// Why it is not valid, or not for much longer, at `now` (in seconds); `None` if all is well.
    pub(super) fn concern(self, now: i64) -> Option<String> {
        let days = |seconds: i64| seconds / 86_400;
        if now < self.not_before {
            return Some(format!(
                "is not valid before {}, so clients refuse it until then (or this machine's clock is wrong)",
                rfc3339(self.not_before)
            ));
        }
        if now > self.not_after {
            return Some(format!(
                "expired at {}, so clients refuse it; renew it",
                rfc3339(self.not_after)
            ));
        }
        let left = self.not_after - now;
        // Short-lived certificates are renewed by machines: a third of their life is time enough.
        let soon = (7 * 86_400).min((self.not_after - self.not_before) / 3);
        (left < soon).then(|| {
            format!(
                "expires at {}, in {} days; renew it",
                rfc3339(self.not_after),
                days(left)
            )
        })
    }
}

/// RFC 3339 of seconds since the Unix epoch.
pub(super) fn rfc3339(seconds: i64) -> String {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    at.map_or_else(|| crate::clock::NEVER.to_owned(), crate::clock::rfc3339)
}

/// Seconds since the Unix epoch.
pub(super) fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The common name; `None` if there is none, or more than one.
pub(super) fn common_name(der: &CertificateDer<'_>) -> Option<String> {
    let certificate = parse(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let only = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(only)
}

/// Why its key is too weak.
pub(super) fn weak_key(der: &CertificateDer<'_>) -> Option<String> {
    let certificate = parse(der).ok()?;
    let PublicKey::RSA(rsa) = certificate.public_key().parsed().ok()? else {
        return None;
    };
    let bits = rsa.key_size();
    (bits < MIN_RSA_BITS)
        .then(|| format!("its RSA key has {bits} bits; at least {MIN_RSA_BITS} are needed"))
}

/// Why it cannot be used for this purpose; for a certificate that is trusted itself.
pub(super) fn wrong_purpose(der: &CertificateDer<'_>, purpose: Purpose) -> Option<&'static str> {
    let certificate = parse(der).ok()?;
    let usage = certificate.extended_key_usage().ok()??.value;
    match purpose {
        _ if usage.any => None,
        Purpose::Server if usage.server_auth => None,
        Purpose::Client if usage.client_auth => None,
        Purpose::Server => Some("its extended key usage lacks serverAuth"),
        Purpose::Client => Some("its extended key usage lacks clientAuth"),
    }
}

/// A certificate of version 1 has no extensions, so it names no hosts, and verifiers refuse it.
pub(super) fn is_version_1(der: &CertificateDer<'_>) -> bool {
    parse(der).is_ok_and(|certificate| certificate.version.0 == 0)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    parse_x509_certificate(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| format!("a certificate cannot be parsed: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concerns() {
        let day = 86_400;
        let year = Validity {
            not_before: 0,
            not_after: 365 * day,
        };
        let brief = Validity {
            not_before: 0,
            not_after: 60,
        };
        let cases = [
            (year, -1, Some("not valid before 1970-01-01T00:00:00Z")),
            (year, 0, None),
            (year, 300 * day, None),
            (
                year,
                360 * day,
                Some("expires at 1971-01-01T00:00:00Z, in 5 days"),
            ),
            (year, 365 * day + 1, Some("expired at 1971-01-01T00:00:00Z")),
            (brief, 30, None),
            (brief, 50, Some("in 0 days")),
        ];
        for (validity, now, expected) in cases {
            let concern = validity.concern(now);
            match expected {
                None => assert_eq!(concern, None, "{validity:?} at {now}"),
                Some(part) => assert!(
                    concern.as_ref().is_some_and(|text| text.contains(part)),
                    "{concern:?}"
                ),
            }
        }
    }
}
