//! File descriptors: as many as the system allows this process, and how they are shared between the doors.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for what is no accepted connection: the log and the database (each reader has three files), uploads and backups, calls to other nodes.
const OWN_DESCRIPTORS: usize = 192;
/// Connections of clients at a time. Each costs some tens of KiB.
const MAX_HTTP: usize = 8192;
/// Connections of members at a time. A cluster of nine uses about thirty; forwarded calls of busy followers some dozens more.
const MAX_MEMBERS: usize = 512;
/// Connections on the inter-node port of those who have not shown to be members: some joining nodes, and whoever else finds the port.
const MAX_STRANGERS: usize = 128;

/// Connections that each door may hold at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Of clients.
    pub http: usize,
    /// Of members, on the inter-node port.
    pub members: usize,
    /// Of others on that port.
    pub strangers: usize,
}

/// Takes all descriptors that this process may have without anybody's permission, and shares them.
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
    let strangers = (spare / 8).clamp(4, MAX_STRANGERS);
    // A few more are accepted for a moment, while others are being closed for them.
    let http = spare.saturating_sub(members + strangers) / 10 * 9;
    Shares {
        http: http.clamp(16, MAX_HTTP),
        members,
        strangers,
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
        for (descriptors, (http, members, strangers)) in cases {
            let expected = Shares {
                http,
                members,
                strangers,
            };
            assert_eq!(share(descriptors), expected, "{descriptors}");
        }
    }
}
