//! The continuous archive: whether it is as current as the spec requires, and what would be lost if nothing
//! else were left.
use node_contract::status::ArchiveStatus as NodeArchive;
use operator_api::{
    Moment, Period, RqliteClusterStatus,
    status::{ARCHIVING, ArchiveStatus},
};

use crate::cluster::facts::view::{View, seconds_between};

/// Default of how far an archive may be behind, in seconds (the node's `every`).
const EVERY_SECONDS: u64 = 10;
/// The archive counts as behind at this multiple of what the spec requires: a store may be slow for a moment.
const TOLERANCE: u64 = 3;
/// An archive that is less than this many seconds behind never counts as behind.
const BEHIND_SECONDS: u64 = 60;

/// Whether the condition is true, its reason and its text.
pub type Finding = (bool, &'static str, String);

/// The condition that says whether the archive is as current as the spec requires; None without an archive.
/// Its text does not change with time alone, so that the status is not written for that.
pub fn condition(view: &View<'_>) -> Option<Finding> {
    let spec = view.spec.archive.as_ref()?;
    let uri = spec.target.uri();
    let every = spec.every.as_ref().map(Period::duration);
    let every = every.and_then(Result::ok);
    let every = every.map_or(EVERY_SECONDS, |every| every.as_secs().max(1));
    let Some(leader) = view.leader else {
        let text = format!(
            "there is no leader that archives. {}",
            reach(view).unwrap_or_default()
        );
        return Some((false, "NoLeader", text));
    };
    let Some(archive) = &leader.status.archive else {
        let text = format!(
            "{} does not archive yet: the pods get the archive with their next template, and the image must know it",
            leader.name
        );
        return Some((false, "ArchiveNotStarted", text));
    };
    Some(of_leader(archive, &uri, every))
}

/// The finding at the moment when the archive falls behind or begins to lack entries; None afterwards,
/// although the text may change.
pub fn failure(view: &View<'_>) -> Option<Finding> {
    let found = condition(view)?;
    let failing = ["ArchiveFailing", "ArchiveBehind", "ArchiveGap"].contains(&found.1);
    let mut known = view.status.conditions.iter();
    let known = known.any(|one| one.type_ == ARCHIVING && one.reason == found.1);
    (failing && !known).then_some(found)
}

fn of_leader(archive: &NodeArchive, uri: &str, every: u64) -> Finding {
    let behind = archive.behind_seconds.unwrap_or(0);
    let is_behind = behind > (every * TOLERANCE).max(BEHIND_SECONDS);
    let minutes = behind / 60;
    if let Some(error) = archive.last_error.as_ref().filter(|_| is_behind) {
        let text =
            format!("{uri} does not take the archive, which is {minutes} min behind: {error}");
        return (false, "ArchiveFailing", text);
    }
    if archive.archived_index.is_none() {
        let why = archive.last_error.as_deref();
        let why = why.unwrap_or("the first base is being made");
        let text = format!("nothing is archived in {uri} yet: {why}");
        return (false, "ArchiveNotStarted", text);
    }
    if is_behind {
        let text = format!("the archive in {uri} is {minutes} min behind");
        return (false, "ArchiveBehind", text);
    }
    let Some(gap) = &archive.gap else {
        let text = format!("the archive in {uri} follows within {every} s");
        return (true, "UpToDate", text);
    };
    let lacks = format!(
        "lacks the entries {} to {}, because the log did not hold them: no moment between them can be restored",
        gap.first, gap.last
    );
    let base = archive.last_base.as_ref().map_or(0, |base| base.index);
    match base > gap.last {
        true => {
            let text = format!("the archive in {uri} follows within {every} s. It {lacks}");
            (true, "UpToDate", text)
        }
        false => {
            let text =
                format!("the archive in {uri} {lacks}, nor after them before there is a new base");
            (false, "ArchiveGap", text)
        }
    }
}

/// Records in the status how far the archive is. Called when the status changes for other reasons.
pub fn record(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let Some(spec) = &view.spec.archive else {
        next.archive = None;
        return;
    };
    let before = next.archive.take().unwrap_or_default();
    let uri = spec.target.uri();
    let lineage = next.lineage.as_ref().map(|lineage| lineage.id.clone());
    // An index of another archive, or of another lineage, says nothing of this one.
    let same = before.uri.as_ref() == Some(&uri) && before.lineage == lineage;
    let recorded = (before.archived_index, before.archived_time);
    let known = view.leader_seen().and_then(|seen| seen.archived);
    let known = known.filter(|archived| archived.uri == uri);
    let is_new = known.is_none() && view.leader.is_some_and(|l| view.archives_as_spec(l));
    let (archived_index, archived_time) = match known {
        Some(archived) => (
            i64::try_from(archived.index).ok(),
            Some(Moment(archived.time)),
        ),
        None if same && !is_new => recorded,
        None => (None, None),
    };
    next.archive = Some(ArchiveStatus {
        uri: Some(uri),
        lineage,
        archived_index,
        archived_time,
        drill: before.drill,
    });
}

/// How far the archive reaches, and what would be lost if nothing else were left, as text.
pub fn announce(view: &View<'_>) -> String {
    let unknown =
        "How far the archive reaches was never seen: kubectl rqlite archive list shows it";
    reach(view).unwrap_or_else(|| unknown.to_owned())
}

/// Number of entries that are known to be committed and not known to be archived; None if nothing is known.
pub fn lost_entries(view: &View<'_>) -> Option<i64> {
    let (index, _) = archived(view)?;
    Some((committed(view) - index).max(0))
}

/// Newest index that is known to be archived where the spec says, and the time of that entry.
fn archived(view: &View<'_>) -> Option<(i64, String)> {
    let uri = view.spec.archive.as_ref()?.target.uri();
    let known = view.leader_seen().and_then(|seen| seen.archived);
    if let Some(archived) = known.filter(|archived| archived.uri == uri) {
        return Some((i64::try_from(archived.index).ok()?, archived.time));
    }
    let recorded = view.status.archive.clone().unwrap_or_default();
    let here = recorded.uri.as_ref() == Some(&uri);
    let index = recorded.archived_index.filter(|_| here)?;
    Some((index, recorded.archived_time?.0))
}

/// Highest index that is known to be committed.
fn committed(view: &View<'_>) -> i64 {
    let seen = view.leader_seen().map(|seen| seen.commit_index);
    let seen = seen.and_then(|index| i64::try_from(index).ok());
    seen.unwrap_or(0).max(view.status.commit_index.unwrap_or(0))
}

/// How far the archive reaches, and how many entries and seconds come after it.
fn reach(view: &View<'_>) -> Option<String> {
    let spec = view.spec.archive.as_ref()?;
    let (index, time) = archived(view)?;
    let committed = committed(view);
    let seen = view.leader_seen();
    let last = seen.map(|seen| seen.at);
    let last = last.or_else(|| view.status.last_leader_seen.clone());
    let at = Moment(time.clone()).timestamp().ok();
    let seconds = at.zip(last.as_ref()).map(|(at, last)| {
        let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at);
        seconds_between(&at, last)
    });
    let entries = (committed - index).max(0);
    let within = seconds.map_or_else(String::new, |seconds| format!(", the last {seconds} s"));
    let last = last.map_or_else(String::new, |last| format!(" (last seen {})", last.0));
    Some(format!(
        "The archive in {} reaches to index {index} ({time}) at least; known to be committed is {committed}{last}: at most {entries} entries{within} are lost, and what was written after that",
        spec.target.uri()
    ))
}

/// What to do if no member is left but the archive is: the command, and what is lost by it.
pub fn last_resort(view: &View<'_>) -> Option<String> {
    view.spec.archive.as_ref()?;
    let reach = announce(view);
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    let namespace = namespace.unwrap_or("default");
    let name = view.name;
    Some(format!(
        "No survivor is left. {reach}. Bring a volume back, or go on from the archive: kubectl rqlite recover {name} --from-archive -n {namespace}, or kubectl create an object \
         {{apiVersion: {}/{}, kind: RqliteRecovery, metadata: {{generateName: {name}-, namespace: {namespace}}}, spec: {{clusterRef: {{name: {name}}}, mode: FromArchive, acceptDataLoss: true, reason: \"...\"}}}}. \
         Or begin another cluster: kubectl rqlite clone {name} {name}-2 -n {namespace}. Runbook: restore",
        operator_api::GROUP,
        operator_api::VERSION,
    ))
}

#[cfg(test)]
mod tests {
    use node_contract::status::{ArchiveBase, ArchiveGap};
    use operator_api::{
        cluster::Archive,
        store::{S3, StoreTarget},
    };

    use super::*;
    use crate::cluster::{facts::archive_config, fixture::Fixture};

    fn in_bucket(bucket: &str) -> Archive {
        Archive {
            target: StoreTarget {
                s3: Some(S3 {
                    bucket: bucket.to_owned(),
                    ..S3::default()
                }),
                ..StoreTarget::default()
            },
            ..Archive::default()
        }
    }

    /// The leader says that it has archived up to here; its pod has the configuration of this archive.
    fn archives(fixture: &mut Fixture, config: &Archive, index: Option<u64>) {
        let config = archive_config::of(config).config;
        fixture.pod("demo-0").archive = Some(config);
        fixture.node("demo-0").archive = Some(NodeArchive {
            enabled: true,
            archived_index: index,
            archived_time: index.map(|_| "2026-11-29T08:00:00Z".to_owned()),
            ..NodeArchive::default()
        });
    }

    fn recorded(fixture: &mut Fixture) -> (Option<String>, Option<i64>) {
        fixture.reconcile();
        fixture.later(60);
        fixture.reconcile();
        let archive = fixture.status().archive.unwrap_or_default();
        (archive.uri, archive.archived_index)
    }

    #[test]
    fn an_index_is_of_the_place_and_the_lineage_where_it_was_seen() {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.spec.archive = Some(in_bucket("old"));
        archives(&mut fixture, &in_bucket("old"), Some(90));
        assert_eq!(recorded(&mut fixture), (Some("s3://old".into()), Some(90)));
        // Another place: its pods still archive to the old one, then to the new one, which takes nothing yet.
        fixture.seen.cluster.spec.archive = Some(in_bucket("new"));
        assert_eq!(recorded(&mut fixture), (Some("s3://new".into()), None));
        archives(&mut fixture, &in_bucket("new"), None);
        assert_eq!(recorded(&mut fixture), (Some("s3://new".into()), None));
        archives(&mut fixture, &in_bucket("new"), Some(120));
        assert_eq!(recorded(&mut fixture), (Some("s3://new".into()), Some(120)));
        // What was seen stays known while nobody leads.
        for name in ["demo-0", "demo-1", "demo-2"] {
            fixture.down(name, "");
        }
        fixture.seen.leader_seen = None;
        assert_eq!(recorded(&mut fixture), (Some("s3://new".into()), Some(120)));
        // Another lineage has nothing yet.
        let mut next = fixture.status();
        next.lineage.as_mut().unwrap().id = "another".to_owned();
        fixture.seen.cluster.status = Some(next.clone());
        record(&View::of(&fixture.seen), &mut next);
        assert_eq!(next.archive.unwrap().archived_index, None);
    }

    #[test]
    fn what_a_leader_says() {
        let good = NodeArchive {
            enabled: true,
            archived_index: Some(90),
            behind_seconds: Some(4),
            ..NodeArchive::default()
        };
        let gap = |base: u64| NodeArchive {
            gap: Some(ArchiveGap {
                first: 20,
                last: 30,
                noticed: None,
            }),
            last_base: Some(ArchiveBase {
                index: base,
                ..ArchiveBase::default()
            }),
            ..good.clone()
        };
        let failing = |behind: u64| NodeArchive {
            behind_seconds: Some(behind),
            last_error: Some("AccessDenied".to_owned()),
            ..good.clone()
        };
        let late = NodeArchive {
            behind_seconds: Some(61),
            ..good.clone()
        };
        let new = NodeArchive {
            archived_index: None,
            ..good.clone()
        };
        let cases = [
            (&good, true, "UpToDate", "follows within 10 s"),
            (&failing(5), true, "UpToDate", "follows"),
            (
                &failing(130),
                false,
                "ArchiveFailing",
                "2 min behind: AccessDenied",
            ),
            (&late, false, "ArchiveBehind", "1 min behind"),
            (&new, false, "ArchiveNotStarted", "first base"),
            (&gap(40), true, "UpToDate", "lacks the entries 20 to 30"),
            (&gap(10), false, "ArchiveGap", "new base"),
        ];
        for (archive, is_true, reason, part) in cases {
            let (value, said, text) = of_leader(archive, "s3://b", 10);
            assert_eq!((value, said), (is_true, reason), "{text}");
            assert!(text.contains(part), "{text}");
        }
        let (value, ..) = of_leader(&late, "s3://b", 30);
        assert!(value, "three times 30 s are tolerated");
    }
}
