//! Selects the proxy for a URL, by the usual environment variables. Without I/O once they are read.
//!
//! `HTTP_PROXY` is for `http` URLs and `HTTPS_PROXY` for `https` URLs; the lower-case names are used if the
//! upper-case ones are unset. `NO_PROXY` lists hosts, domains (with everything below them), addresses,
//! networks such as `10.0.0.0/8`, each optionally with `:port`, or `*`. Loopback hosts never go through a
//! proxy.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

/// The settings found in the environment.
#[derive(Debug, Default)]
pub(crate) struct ProxyRules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<String>,
}

impl ProxyRules {
    /// Reads the variables through `get`. Fails on a proxy that is not a URL.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |name: &str| {
            let value = get(name).or_else(|| get(&name.to_ascii_lowercase()));
            value.filter(|value| !value.is_empty())
        };
        let proxy = |name: &str| match variable(name) {
            Some(url) => Proxy::new(&url)
                .map(Some)
                .map_err(|error| format!("{name}: {error}")),
            None => Ok(None),
        };
        let list = variable("NO_PROXY").unwrap_or_default();
        let entries = list
            .split(',')
            .map(|entry| entry.trim().to_ascii_lowercase());
        Ok(ProxyRules {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            exceptions: entries.filter(|entry| !entry.is_empty()).collect(),
        })
    }

    /// The proxy for a URL.
    pub(crate) fn proxy_for(&self, url: &Uri) -> Option<Proxy> {
        let https = url.scheme_str() == Some("https");
        let proxy = if https { &self.https } else { &self.http };
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = host.parse().ok();
        let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let excepted = loopback
            || self
                .exceptions
                .iter()
                .any(|entry| covers(entry, host, address, port));
        proxy.clone().filter(|_| !excepted)
    }
}

/// Whether one entry of `NO_PROXY` covers a host.
fn covers(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let network = (network.parse().ok(), bits.parse().ok());
        return matches!((network, address), ((Some(net), Some(bits)), Some(ip)) if contains(net, bits, ip));
    }
    if let (Ok(entry), Some(address)) = (entry.parse::<IpAddr>(), address) {
        return entry == address;
    }
    let (name, wanted_port) = match entry.rsplit_once(':') {
        Some((name, digits)) => (name, digits.parse().ok()),
        None => (entry, None),
    };
    if wanted_port.is_some_and(|wanted: u16| wanted != port) {
        return false;
    }
    let name = name
        .strip_prefix('*')
        .unwrap_or(name)
        .trim_start_matches('[')
        .trim_end_matches(']');
    match name.strip_prefix('.') {
        Some(domain) => below(host, domain),
        None => host == name || below(host, name),
    }
}

fn below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain)
        .is_some_and(|rest| rest.ends_with('.'))
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => (u128::from(n.to_bits()), u128::from(a.to_bits()), 32),
        (IpAddr::V6(n), IpAddr::V6(a)) => (n.to_bits(), a.to_bits(), 128),
        _ => return false,
    };
    // For a prefix of no bits the shift is by the full width: every address matches.
    bits <= width && (network ^ address).checked_shr(width - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let proxy = ProxyRules::read(get)
            .unwrap()
            .proxy_for(&url.parse().unwrap());
        proxy.map(|proxy| proxy.host().to_owned())
    }

    #[test]
    fn the_scheme_selects_the_variable() {
        let both = [
            ("HTTP_PROXY", "http://plain:1"),
            ("https_proxy", "http://tls:1"),
        ];
        for (url, proxy) in [
            ("http://db:4001/", Some("plain")),
            ("https://db:4001/", Some("tls")),
            ("http://localhost:4001/", None),
            ("http://127.0.0.9/", None),
            ("https://[::1]:4001/", None),
        ] {
            assert_eq!(chosen(&both, url).as_deref(), proxy, "{url}");
        }
        assert_eq!(chosen(&both[1..], "http://db/"), None);
        assert_eq!(chosen(&[("HTTP_PROXY", "")], "http://db/"), None);
    }

    #[test]
    fn exceptions_are_honoured() {
        for (list, url, direct) in [
            ("*", "http://db/", true),
            ("db", "http://db/", true),
            ("DB", "http://db/", true),
            ("db", "http://other/", false),
            ("x, example.com", "http://a.example.com/", true),
            ("example.com", "http://badexample.com/", false),
            (".example.com", "http://example.com/", false),
            ("*.example.com", "http://a.example.com/", true),
            ("db:4001", "http://db:4001/", true),
            ("db:4002", "http://db:4001/", false),
            ("db:80", "http://db/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("::/0", "http://[fd12::1]/", true),
            ("10.0.0.0/33", "http://10.0.0.0/", false),
            ("fd00::/8", "http://10.1.2.3/", false),
            ("10.0.0.1", "http://10.0.0.1/", true),
            ("fd12::1", "http://[fd12:0::1]/", true),
        ] {
            let variables = [("HTTP_PROXY", "http://proxy:1"), ("NO_PROXY", list)];
            assert_eq!(chosen(&variables, url).is_none(), direct, "{list} {url}");
        }
    }

    #[test]
    fn a_wrong_proxy_is_named() {
        let error = ProxyRules::read(|name| (name == "HTTP_PROXY").then(|| "ftp://x".to_owned()))
            .unwrap_err();
        assert!(error.starts_with("HTTP_PROXY: "), "{error}");
    }
}
