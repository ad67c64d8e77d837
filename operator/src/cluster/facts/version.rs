//! Releases, as tags and nodes name them.

/// A release: major, minor and patch, and whether it is the release itself rather than a candidate for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
    /// False for a candidate.
    pub is_final: bool,
}

impl Release {
    /// Parses `1.2.3`, `v1.2.3` or `v1.2.3-rc.1`; None for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (numbers, candidate) = match text.split_once('-') {
            Some((numbers, rest)) => (numbers, Some(rest)),
            None => (text, None),
        };
        let mut parts = numbers.split('.');
        let mut next = || {
            let part = parts.next()?;
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        let release = Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
            is_final: candidate.is_none(),
        };
        (parts.next().is_none() && candidate != Some("")).then_some(release)
    }

    /// Formats may differ between two releases of another minor version, never within one.
    pub fn line(self) -> (u32, u32) {
        (self.major, self.minor)
    }
}

/// The version of the program in a node's report, which is that of rqlite's API, a dash, and the program's.
pub fn of_program(reported: &str) -> &str {
    reported.split_once('-').map_or(reported, |(_, own)| own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered() {
        let parse = |text: &str| Release::parse(text).unwrap();
        let ordered = ["0.9.9", "v0.10.0-rc.1", "0.10.0", "v0.10.1", "1.0.0"];
        for pair in ordered.windows(2) {
            assert!(parse(pair[0]) < parse(pair[1]), "{pair:?}");
        }
        assert_eq!(parse("0.10.0").line(), parse("v0.10.7").line());
        for other in [
            "",
            "dev",
            "1",
            "1.2",
            "1.2.3.4",
            "1.2.x",
            "1.2.-3",
            "1.2.3-",
            "sha-1.2.3",
        ] {
            assert_eq!(Release::parse(other), None, "{other}");
        }
        assert_eq!(of_program("v10.3.0-0.1.0"), "0.1.0");
        assert_eq!(of_program("v10.3.0-0.1.0-rc.1"), "0.1.0-rc.1");
        assert_eq!(of_program("0.1.0"), "0.1.0");
    }
}
