//! Splits `host:port` as Go does.

/// Splits at the last colon. IPv6 hosts are in brackets, which are removed. The parts are not checked:
/// `http://x` has the host `http` and the port `//x`. `None` if there is no colon, several outside brackets,
/// or unbalanced brackets.
pub fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            if host.contains('[') {
                return None;
            }
            (host, after.strip_prefix(':')?)
        }
        None => {
            let (host, port) = address.rsplit_once(':')?;
            if host.contains([':', '[', ']']) {
                return None;
            }
            (host, port)
        }
    };
    (!port.contains([':', '[', ']'])).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::split_host_port;

    #[test]
    fn splits_as_go_does() {
        let cases = [
            ("localhost:4001", Some(("localhost", "4001"))),
            (":4001", Some(("", "4001"))),
            ("host:", Some(("host", ""))),
            ("[::1]:4001", Some(("::1", "4001"))),
            ("[fe80::1%eth0]:1", Some(("fe80::1%eth0", "1"))),
            ("http://nonsense", Some(("http", "//nonsense"))),
            ("", None),
            ("localhost", None),
            ("::1:4001", None),
            ("[::1]", None),
            ("[::1]4001", None),
            ("[::1:4001", None),
            ("[[::1]]:1", None),
            ("http://a:1", None),
            ("a]:1", None),
            ("[a]:1:2", None),
        ];
        for (address, expected) in cases {
            assert_eq!(split_host_port(address), expected, "{address}");
        }
    }
}
