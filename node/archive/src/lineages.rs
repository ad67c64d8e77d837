//! Which timelines an archive holds, how they follow each other, and which one is meant.
use node_contract::Lineage;
use thiserror::Error;

use crate::documents::Timeline;

/// No timeline, or not exactly one, is meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotOne {
    /// An empty archive.
    #[error("there is no archive below this prefix: no timeline.json was found")]
    None,
    /// An id that no timeline has.
    #[error("there is no lineage {wanted:?} in this archive; it holds {held}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        held: String,
    },
    /// Several that nothing continues.
    #[error("{} lineages of this archive are continued by no other, so one must be chosen (-lineage ID): {held}", .count)]
    Ambiguous {
        /// How many.
        count: usize,
        /// Which.
        held: String,
    },
}

/// The timeline that is meant: the one of this lineage id, or else the only one that no other continues.
///
/// # Errors
/// None or several; the text lists them.
pub fn choose<'a>(timelines: &'a [Timeline], wanted: Option<&str>) -> Result<&'a Timeline, NotOne> {
    if timelines.is_empty() {
        return Err(NotOne::None);
    }
    let ends: Vec<&Timeline> = match wanted {
        Some(id) => timelines.iter().filter(|t| t.lineage.id == id).collect(),
        None => ends(timelines),
    };
    match (ends.as_slice(), wanted) {
        ([one], _) => Ok(one),
        ([], Some(wanted)) => Err(NotOne::Unknown {
            wanted: wanted.to_owned(),
            held: shown(timelines.iter()),
        }),
        ([], None) => Err(NotOne::Ambiguous {
            count: timelines.len(),
            held: shown(timelines.iter()),
        }),
        (several, _) => Err(NotOne::Ambiguous {
            count: several.len(),
            held: shown(several.iter().copied()),
        }),
    }
}

/// The timelines that no other continues, oldest first.
pub fn ends(timelines: &[Timeline]) -> Vec<&Timeline> {
    let continued = |lineage: &Lineage| {
        let parents = timelines.iter().filter_map(|t| t.parent.as_ref());
        parents.into_iter().any(|parent| parent.lineage == *lineage)
    };
    let mut ends: Vec<_> = timelines
        .iter()
        .filter(|t| !continued(&t.lineage))
        .collect();
    ends.sort_by_key(|t| (t.created_at, t.lineage.epoch));
    ends
}

/// A timeline and those that it continues, newest first. Ends where a parent is not archived, or occurs
/// again.
pub fn ancestry<'a>(timelines: &'a [Timeline], of: &'a Timeline) -> Vec<&'a Timeline> {
    let mut line = vec![of];
    while let Some(parent) = line.last().and_then(|t| t.parent.as_ref()) {
        let found = timelines.iter().find(|t| t.lineage == parent.lineage);
        match found.filter(|found| !line.contains(found)) {
            Some(found) => line.push(found),
            None => break,
        }
    }
    line
}

fn shown<'a>(timelines: impl Iterator<Item = &'a Timeline>) -> String {
    let one = |t: &Timeline| {
        format!(
            "{} (epoch {}, of cluster {}, begun {})",
            t.lineage.id, t.lineage.epoch, t.cluster_id, t.created_at
        )
    };
    timelines.map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{documents::Parent, moment::Moment};

    fn timeline(id: &str, epoch: u64, parent: Option<(&str, u64)>) -> Timeline {
        let lineage = |id: &str, epoch| Lineage {
            id: id.to_owned(),
            epoch,
        };
        Timeline {
            format: 1,
            cluster_id: "c".into(),
            lineage: lineage(id, epoch),
            created_at: Moment(epoch as i64),
            parent: parent.map(|(id, epoch)| Parent {
                lineage: lineage(id, epoch),
                index: Some(9),
                how: "recovery".into(),
            }),
        }
    }

    #[test]
    fn the_only_end_is_meant_and_everything_else_must_be_chosen() {
        let (a, b, c) = (
            timeline("a", 0, None),
            timeline("b", 1, Some(("a", 0))),
            timeline("c", 1, Some(("a", 0))),
        );
        let looped = timeline("l", 5, Some(("l", 5)));
        let lost_parent = timeline("p", 7, Some(("gone", 6)));
        type Case<'a> = (
            &'a [&'a Timeline],
            Option<&'a str>,
            Result<&'a str, &'a str>,
        );
        let cases: [Case<'_>; 9] = [
            (&[], None, Err("there is no archive")),
            (&[&a], None, Ok("a")),
            (&[&b, &a], None, Ok("b")),
            (&[&b, &a], Some("a"), Ok("a")),
            (&[&a, &b, &c], None, Err("2 lineages")),
            (&[&a, &b, &c], Some("c"), Ok("c")),
            (&[&a, &b], Some("x"), Err("there is no lineage \"x\"")),
            (&[&looped], None, Err("1 lineages")),
            (&[&lost_parent], None, Ok("p")),
        ];
        for (held, wanted, want) in cases {
            let held: Vec<Timeline> = held.iter().map(|t| (*t).clone()).collect();
            match (choose(&held, wanted), want) {
                (Ok(got), Ok(want)) => assert_eq!(got.lineage.id, want),
                (Err(got), Err(want)) => assert!(got.to_string().starts_with(want), "{got}"),
                (got, want) => panic!("{got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn ancestry_goes_back_to_the_first_and_never_in_circles() {
        let held = [
            timeline("a", 0, None),
            timeline("b", 1, Some(("a", 0))),
            timeline("l", 5, Some(("m", 6))),
            timeline("m", 6, Some(("l", 5))),
        ];
        let ids = |of: &Timeline| -> Vec<String> {
            ancestry(&held, of)
                .iter()
                .map(|t| t.lineage.id.clone())
                .collect()
        };
        assert_eq!(ids(&held[1]), ["b", "a"]);
        assert_eq!(ids(&held[2]), ["l", "m"]);
    }
}
