//! The hosts to connect to, from flags, the `RQLITE_HOST` variable and `host:port` texts. Without I/O.

/// Default host, port and scheme.
const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 4001;

/// The protocol of requests to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The scheme's spelling in a URL.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Reads a scheme, in any case.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "http" => Ok(Scheme::Http),
            "https" => Ok(Scheme::Https),
            _ => Err(format!("unsupported protocol {text}")),
        }
    }
}

/// The nodes: the first is preferred, the others are tried when it cannot be reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The protocol for all of them.
    pub(crate) scheme: Scheme,
    /// `host:port` texts, IPv6 addresses in brackets; never empty.
    pub(crate) hosts: Vec<String>,
}

/// The flags about the target; `None` where a flag was not given.
#[derive(Debug, Default)]
pub(crate) struct HostFlags<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) port: Option<u16>,
    pub(crate) scheme: Option<&'a str>,
    pub(crate) alternatives: &'a str,
}

/// Joins flags and environment. The variable is used only if none of host, port and scheme was given as a
/// flag.
pub(crate) fn resolve(flags: &HostFlags<'_>, rqlite_host: Option<&str>) -> Result<Target, String> {
    let from_flags = flags.host.is_some() || flags.port.is_some() || flags.scheme.is_some();
    let (scheme, first) = match rqlite_host {
        Some(text) if !from_flags && !text.is_empty() => parse_variable(text)?,
        _ => {
            let host = join(
                flags.host.unwrap_or(DEFAULT_HOST),
                flags.port.unwrap_or(DEFAULT_PORT),
            );
            (Scheme::parse(flags.scheme.unwrap_or("http"))?, host)
        }
    };
    let others = flags
        .alternatives
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty());
    let mut hosts = vec![first];
    for other in others {
        let (host, port) = split(other)?;
        hosts.push(join(host, port.unwrap_or(DEFAULT_PORT)));
    }
    Ok(Target { scheme, hosts })
}

/// `[scheme:]//host[:port]`
fn parse_variable(text: &str) -> Result<(Scheme, String), String> {
    let (scheme, rest) = match text.split_once("//") {
        Some((scheme, rest)) => (scheme.strip_suffix(':').unwrap_or(scheme), rest),
        None => ("", text),
    };
    let scheme = if scheme.is_empty() {
        Scheme::Http
    } else {
        Scheme::parse(scheme)?
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = split(authority)?;
    if host.is_empty() {
        return Err("RQLITE_HOST does not contain a hostname".to_owned());
    }
    Ok((scheme, join(host, port.unwrap_or(DEFAULT_PORT))))
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` and a bare IPv6 address.
fn split(text: &str) -> Result<(&str, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest
            .split_once(']')
            .ok_or_else(|| format!("missing ']' in host {text}"))?;
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, Some(parse_port(port)?))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err(format!("invalid host {text}")),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Ok((host, Some(parse_port(port)?))),
        _ => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u64>() {
        Ok(port @ 1..=65535) => Ok(port as u16),
        Ok(port) => Err(format!(
            "port {port} is out of range, must be between 1 and 65535"
        )),
        Err(_) => Err(format!("invalid port {text:?}")),
    }
}

fn join(host: &str, port: u16) -> String {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if bare.contains(':') {
        format!("[{bare}]:{port}")
    } else {
        format!("{bare}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(text: &str) -> Result<Target, String> {
        resolve(&HostFlags::default(), Some(text))
    }

    #[test]
    fn the_variable_is_read() {
        for (text, scheme, host) in [
            ("//db", Scheme::Http, "db:4001"),
            ("http://db:5001", Scheme::Http, "db:5001"),
            ("https://db:5001/", Scheme::Https, "db:5001"),
            ("HTTPS://db", Scheme::Https, "db:4001"),
            ("db:7", Scheme::Http, "db:7"),
            ("//[::1]:7", Scheme::Http, "[::1]:7"),
            ("//[::1]", Scheme::Http, "[::1]:4001"),
            ("", Scheme::Http, "127.0.0.1:4001"),
        ] {
            assert_eq!(
                variable(text),
                Ok(Target {
                    scheme,
                    hosts: vec![host.to_owned()]
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (text, error) in [
            ("ftp://db", "unsupported protocol ftp"),
            ("http://", "RQLITE_HOST does not contain a hostname"),
            ("//:4001", "RQLITE_HOST does not contain a hostname"),
            (
                "//db:0",
                "port 0 is out of range, must be between 1 and 65535",
            ),
            (
                "//db:70000",
                "port 70000 is out of range, must be between 1 and 65535",
            ),
            ("//db:x", "invalid port \"x\""),
            ("//[::1", "missing ']' in host [::1"),
        ] {
            assert_eq!(variable(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn any_flag_hides_the_variable() {
        let flags = HostFlags {
            port: Some(9),
            ..HostFlags::default()
        };
        let target = resolve(&flags, Some("https://db:1")).unwrap();
        assert_eq!(
            target,
            Target {
                scheme: Scheme::Http,
                hosts: vec!["127.0.0.1:9".to_owned()]
            }
        );
    }

    #[test]
    fn alternatives_follow_the_first_host() {
        let flags = HostFlags {
            host: Some("::1"),
            alternatives: "a:1, [::2]:3,b,",
            ..HostFlags::default()
        };
        assert_eq!(
            resolve(&flags, None).unwrap().hosts,
            ["[::1]:4001", "a:1", "[::2]:3", "b:4001"]
        );
    }
}
