//! Format versions of messages between nodes and of log entries, and what each version adds. Knows nothing of
//! Raft or the network.
//!
//! A node supports every version from [`OLDEST`] to [`NEWEST`]. A cluster uses one of them, the version in
//! effect. It begins at [`OLDEST`], is raised by a log entry once every member is known to support the higher
//! one, and never falls.

/// The lowest version that this program supports.
pub const OLDEST: u16 = 1;

/// The highest version that this program supports.
///
/// * 1: the first format.
/// * 2: requests carry the bounds of their execution, and follow [`node_db::Rules::V2`].
pub const NEWEST: u16 = 2;

/// The version of a node that does not state one in the handshake: nodes of version 1 have no field for it.
pub const UNSTATED: u16 = 1;

/// Whether a node that supports versions up to `theirs` may take part in a cluster whose version in effect is
/// `in_effect`.
///
/// # Errors
/// Text for the person who operates that node.
pub fn may_take_part(node: &str, theirs: u16, in_effect: u16) -> Result<(), String> {
    let needed = in_effect.max(OLDEST);
    if theirs >= needed {
        return Ok(());
    }
    Err(format!(
        "node {node} speaks format version {theirs}, but this cluster needs {needed}: run a newer rqlited there"
    ))
}

/// The version to which the cluster can be raised: the highest that all members support, if it is above the
/// version in effect. `None` while the version of a member is unknown.
pub fn to_raise(in_effect: u16, members: impl IntoIterator<Item = Option<u16>>) -> Option<u16> {
    let mut lowest = NEWEST;
    for version in members {
        lowest = lowest.min(version?);
    }
    (lowest > in_effect).then_some(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_raised_when_every_member_speaks_the_higher_version() {
        for (name, in_effect, members, want) in [
            ("one node", 1, &[Some(2)][..], Some(2)),
            ("all new", 1, &[Some(2), Some(2), Some(2)], Some(2)),
            ("one old", 1, &[Some(2), Some(1), Some(2)], None),
            ("one unknown", 1, &[Some(2), None, Some(2)], None),
            ("raised already", 2, &[Some(2), Some(2)], None),
            ("never lowered", 2, &[Some(2), Some(1)], None),
            (
                "newer members than this one",
                1,
                &[Some(2), Some(7)],
                Some(2),
            ),
        ] {
            assert_eq!(to_raise(in_effect, members.iter().copied()), want, "{name}");
        }
    }

    #[test]
    fn an_old_node_is_told_what_to_do() {
        assert!(may_take_part("a", 1, 1).is_ok());
        assert!(may_take_part("a", 3, 2).is_ok());
        let text = may_take_part("a", 1, 2).unwrap_err();
        assert!(
            text.contains("node a") && text.contains("run a newer rqlited"),
            "{text}"
        );
    }
}
