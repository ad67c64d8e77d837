//! File descriptors: raises their limit as far as the system allows, and divides them between the HTTP and
//! the inter-node port.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Reserved for everything but accepted connections: the log, the database (three files per reader), uploads,
/// backups, calls to other nodes.
const OWN_DESCRIPTORS: usize = 192;
/// Most HTTP connections at a time. Each takes some tens of KiB of memory.
const MAX_HTTP: usize = 8192;
/// Most connections of members at a time. A cluster of nine nodes uses about thirty, and forwarded calls of
/// busy followers some dozens more.
const MAX_MEMBERS: usize = 512;
/// Most connections on the inter-node port of nodes that have not proven to be members: joining nodes, and
/// other programs.
const MAX_NON_MEMBERS: usize = 128;

/// How many connections each kind may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// HTTP connections.
    pub http: usize,
    /// Connections of members on the inter-node port.
    pub members: usize,
    /// Other connections on the inter-node port.
    pub non_members: usize,
}

/// Raises the soft limit of file descriptors to the hard limit and divides them.
pub fn raise_and_share() -> Shares {
    let allowed = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: allowed.maximum,
        maximum: allowed.maximum,
    };
    let descriptors = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => allowed.current,
    };
    let descriptors = descriptors.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let shares = share(descriptors);
    if shares.http < MAX_HTTP {
        tracing::warn!(
            target: "rqlited",
            "this process may open {descriptors} files, so it serves at most {} HTTP connections at a time; raise the limit (ulimit -n) for up to {MAX_HTTP}",
            shares.http
        );
    }
    shares
}

fn share(descriptors: usize) -> Shares {
    let spare = descriptors.saturating_sub(OWN_DESCRIPTORS);
    let members = (spare / 4).clamp(8, MAX_MEMBERS);
    let non_members = (spare / 8).clamp(4, MAX_NON_MEMBERS);
    // A few more connections are accepted for a moment while others are being closed for them.
    let http = spare.saturating_sub(members + non_members) / 10 * 9;
    Shares {
        http: http.clamp(16, MAX_HTTP),
        members,
        non_members,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let cases = [
            (usize::MAX, (8192, 512, 128)),
            (20_000, (8192, 512, 128)),
            (1024, (468, 208, 104)),
            (256, (36, 16, 8)),
            (0, (16, 8, 4)),
        ];
        for (descriptors, (http, members, non_members)) in cases {
            let expected = Shares {
                http,
                members,
                non_members,
            };
            assert_eq!(share(descriptors), expected, "{descriptors}");
        }
    }
}
