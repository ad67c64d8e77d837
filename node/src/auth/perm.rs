//! Permissions, and sets of them.

/// A permission. Each names the endpoints that need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Perm {
    /// `/db/execute`.
    Execute,
    /// `/db/query`, `/db/sql`.
    Query,
    /// `/db/load`, `/boot`, `/archive/restore`.
    Load,
    /// `/db/backup`.
    Backup,
    /// `/status`, `/nodes`, `/archive`, `/db/running`, `/debug/…`, `/metrics`, `/licenses`.
    Status,
    /// `/readyz`.
    Ready,
    /// `/snapshot`, `/reap`.
    Snapshot,
    /// `/leader`, `/db/compare`, `/db/check`, `DELETE /db/running/<id>`.
    LeaderOps,
    /// `/remove`.
    Remove,
    /// Joining the cluster as a voter.
    Join,
    /// Joining as a read-only node.
    JoinReadOnly,
    /// `/console`.
    Ui,
}

impl Perm {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 12] = [
        Self::Execute,
        Self::Query,
        Self::Load,
        Self::Backup,
        Self::Status,
        Self::Ready,
        Self::Snapshot,
        Self::LeaderOps,
        Self::Remove,
        Self::Join,
        Self::JoinReadOnly,
        Self::Ui,
    ];

    /// Its name in the credentials file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Query => "query",
            Self::Load => "load",
            Self::Backup => "backup",
            Self::Status => "status",
            Self::Ready => "ready",
            Self::Snapshot => "snapshot",
            Self::LeaderOps => "leader-ops",
            Self::Remove => "remove",
            Self::Join => "join",
            Self::JoinReadOnly => "join-read-only",
            Self::Ui => "ui",
        }
    }
}

/// A set of permissions, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PermSet(u16);

impl PermSet {
    const ALL: Self = Self(u16::MAX);

    /// The permissions of a name of the file; `None` if it is not known.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "all" => Some(Self::ALL),
            "join-read-replica" => Some(Self::of(Perm::JoinReadOnly)),
            _ => Perm::ALL
                .into_iter()
                .find(|perm| perm.name() == name)
                .map(Self::of),
        }
    }

    fn of(perm: Perm) -> Self {
        Self(1 << perm as u16)
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn contains_all(self, perms: &[Perm]) -> bool {
        perms
            .iter()
            .all(|perm| self.0 & Self::of(*perm).0 == Self::of(*perm).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_permission() {
        for (at, perm) in Perm::ALL.into_iter().enumerate() {
            assert_eq!(perm as usize, at);
            let set = PermSet::named(perm.name()).unwrap();
            for other in Perm::ALL {
                assert_eq!(set.contains_all(&[other]), other == perm, "{perm:?}");
            }
            assert!(PermSet::ALL.contains_all(&[perm]));
        }
        assert_eq!(
            PermSet::named("join-read-replica"),
            PermSet::named("join-read-only")
        );
        for unknown in ["", "ALL", "all ", "future"] {
            assert_eq!(PermSet::named(unknown), None);
        }
    }
}
