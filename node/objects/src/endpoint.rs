//! Addresses of stores, and how their requests are retried.
use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};

use crate::json::ConfigError;

/// Pauses between the retries of one request: 100 ms at first, 5 s at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const MAX_RETRIES: usize = 20;

/// Retries with growing pauses for `patience` in all.
pub(crate) fn retries(patience: Duration) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: FIRST_PAUSE,
            max_backoff: LONGEST_PAUSE,
            base: 2.0,
        },
        max_retries: MAX_RETRIES,
        retry_timeout: patience,
    }
}

/// An endpoint with its scheme and without a slash at the end; user names and passwords are refused, because
/// endpoints are shown.
pub(crate) fn endpoint(key: &str, text: &str) -> Result<String, ConfigError> {
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    let refuse = |why: &str| Err(ConfigError(format!("{key}: {why}")));
    let Ok(url) = reqwest::Url::parse(&text) else {
        return refuse("not an address: expected host:port, with or without http:// or https://");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not carry a user name or password; they have keys of their own");
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return refuse("expected host:port, with or without http:// or https:// before it");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must not carry a query");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Whether the host is an IP address or a single label: such hosts have no subdomain for each bucket.
pub(crate) fn is_address(endpoint: &str) -> bool {
    reqwest::Url::parse(endpoint).is_ok_and(|url| {
        let host = url.host_str().unwrap_or_default();
        host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() || !host.contains('.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        let ok = |text| endpoint("e", text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(ok("s3.example.com"), "https://s3.example.com");
        assert_eq!(ok("http://127.0.0.1:9000/"), "http://127.0.0.1:9000");
        for bad in ["ftp://a", "http://u:p@h", "http://h?x=1", "https://"] {
            assert!(endpoint("e", bad).is_err(), "{bad}");
        }
        assert!(is_address("http://127.0.0.1:9000") && is_address("http://minio:9000"));
        assert!(!is_address("https://s3.example.com"));
    }
}
