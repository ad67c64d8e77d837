//! Chooses the timeline of an archive that a restore means: a function without I/O.
use node_archive::{documents::Base, plan::Target};

use super::source::{Refusal, TimelineAt};

/// A timeline and its bases.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The timeline.
    pub at: TimelineAt,
    /// Its bases, in order.
    pub bases: Vec<Base>,
}

/// A line of the list to choose from.
fn described(candidate: &Candidate) -> String {
    let bases = match (candidate.bases.first(), candidate.bases.last()) {
        (Some(first), Some(last)) => format!("bases from {} to {}", first.time, last.time),
        _ => "no base".into(),
    };
    let at = &candidate.at;
    let (lineage, cluster) = (&at.lineage, &at.timeline.cluster_id);
    format!(
        "  {} (epoch {}, cluster {cluster}, {bases})",
        lineage.id, lineage.epoch
    )
}

/// The error for an id that no timeline has; it lists those that exist.
pub fn none_of(id: &str, there: &[TimelineAt]) -> Refusal {
    let known = there.iter().map(|at| {
        let (lineage, cluster) = (&at.lineage, &at.timeline.cluster_id);
        format!(
            "  {} (epoch {}, cluster {cluster})",
            lineage.id, lineage.epoch
        )
    });
    let known: Vec<_> = known.collect();
    match known.is_empty() {
        true => "there is no archive below this prefix: check bucket, prefix and path".into(),
        false => format!("there is no lineage {id}; there are:\n{}", known.join("\n")),
    }
}

/// The index of the timeline that contains the target. Timelines of one cluster follow each other in time, so
/// a time selects one of them. Their indexes overlap, and clusters that share a prefix are unrelated; then a
/// person must choose. If a lineage was named, pass only its timeline.
///
/// # Errors
/// No timeline contains the target, or several do; the text lists them.
pub fn choose(candidates: &[Candidate], target: Target) -> Result<usize, Refusal> {
    if candidates.is_empty() {
        return Err("there is no archive below this prefix: check bucket, prefix and path".into());
    }
    let list = || {
        let lines = candidates.iter().map(described);
        lines.collect::<Vec<_>>().join("\n")
    };
    if candidates.len() == 1 {
        return Ok(0);
    }
    let ambiguous = |why: &str| Err(format!("{why}: name one with -lineage:\n{}", list()));
    let clusters: std::collections::BTreeSet<_> = candidates
        .iter()
        .map(|c| c.at.timeline.cluster_id.as_str())
        .collect();
    if clusters.len() > 1 {
        return ambiguous("several clusters are archived here");
    }
    let begun = |candidate: &Candidate| match target {
        Target::Time(time) => candidate
            .bases
            .first()
            .is_some_and(|base| base.time <= time),
        Target::End | Target::Index(_) => true,
    };
    if matches!(target, Target::Index(_)) {
        return ambiguous(
            "several timelines are archived here, and an index may be in each of them",
        );
    }
    let newest = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| begun(candidate))
        .max_by_key(|(_, candidate)| candidate.at.lineage.epoch);
    let Some((newest, candidate)) = newest else {
        return Err(format!(
            "{target} is before all timelines of the archive:\n{}",
            list()
        ));
    };
    let epoch = candidate.at.lineage.epoch;
    let rivals = candidates
        .iter()
        .filter(|c| c.at.lineage.epoch == epoch && begun(c));
    if rivals.count() > 1 {
        return ambiguous("two timelines are of the same epoch");
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use node_archive::{
        documents::{Timeline, Writer},
        moment::Moment,
        names::Folder,
    };
    use node_contract::Lineage;

    use super::*;

    fn candidate(id: &str, epoch: u64, cluster: &str, first: i64) -> Candidate {
        let lineage = Lineage {
            id: id.into(),
            epoch,
        };
        let base = Base {
            format: 1,
            lineage: lineage.clone(),
            index: 5,
            term: 1,
            time: Moment(first),
            created_at: Moment(first),
            bytes: 1,
            sha256: String::new(),
            pages: 1,
            object: String::new(),
            object_bytes: 1,
            writer: serde_json::from_str::<Writer>(
                r#"{"sqlite":"","sqlite_source_id":"","rqlited":"","format_version":2}"#,
            )
            .unwrap(),
            content_hash: None,
            reason: "first".into(),
        };
        Candidate {
            at: TimelineAt {
                folder: Folder::new(&lineage).unwrap(),
                timeline: Timeline {
                    format: 1,
                    cluster_id: cluster.into(),
                    lineage: lineage.clone(),
                    created_at: Moment(0),
                    parent: None,
                },
                lineage,
            },
            bases: vec![base],
        }
    }

    #[test]
    fn the_timeline_is_found_or_a_person_is_asked() {
        let a = candidate("a", 0, "c", 10);
        let b = candidate("b", 1, "c", 20);
        let (a_at, b_at) = (a.at.clone(), b.at.clone());
        let twin = candidate("twin", 1, "c", 20);
        let other = candidate("other", 0, "d", 10);
        let time = |t| Target::Time(Moment(t));
        for (name, there, target, want) in [
            ("nothing", vec![], Target::End, Err("check bucket")),
            ("one", vec![a.clone()], Target::Index(7), Ok(0)),
            ("end", vec![a.clone(), b.clone()], Target::End, Ok(1)),
            (
                "time of the first",
                vec![a.clone(), b.clone()],
                time(19),
                Ok(0),
            ),
            (
                "time of the second",
                vec![a.clone(), b.clone()],
                time(20),
                Ok(1),
            ),
            (
                "before both",
                vec![a.clone(), b.clone()],
                time(9),
                Err("before all"),
            ),
            (
                "index",
                vec![a.clone(), b.clone()],
                Target::Index(7),
                Err("-lineage"),
            ),
            (
                "twins",
                vec![b.clone(), twin],
                Target::End,
                Err("same epoch"),
            ),
            (
                "two clusters",
                vec![a, other],
                Target::End,
                Err("several clusters"),
            ),
        ] {
            let got = choose(&there, target);
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{name}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{name}: {got}"),
                (got, want) => panic!("{name}: {got:?}, not {want:?}"),
            }
        }
        let there = [a_at, b_at];
        assert!(none_of("x", &there).contains("no lineage x; there are:\n  a (epoch 0"));
        assert!(none_of("x", &[]).contains("check bucket"));
    }
}
