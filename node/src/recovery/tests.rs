//! A crash after every step, and after every step of the next attempt: the outcome is always that of an
//! uninterrupted recovery.
use std::sync::Arc;

use bytes::Bytes;
use node_db::{Database, Entry, Options, Position, ReplyTo, Work};

use super::*;
use crate::raft::{
    codec::{Id, PayloadRecord},
    storage::rewrite::samples::{entries, with_membership, write_log},
    storage::state_machine::{decode_meta, encode_meta},
    types::{StoredMembership, log_id},
};

const STEPS: usize = 9;
const BOTH: &str =
    r#"[{"id":"a","address":"a:4002"},{"id":"b","address":"b:4002","non_voter":true}]"#;
const ALONE: &str = r#"[{"id":"a","address":"elsewhere:4002"}]"#;

struct Sample {
    dir: tempfile::TempDir,
    from: Cluster,
}

/// The relevant content of a data directory.
#[derive(Clone, Debug, PartialEq)]
struct State {
    entries: Vec<(Id, PayloadRecord)>,
    log: (Option<Id>, Option<Id>, Option<Id>),
    vote: Option<VoteRecord>,
    identity: Identity,
    position: Option<Position>,
    membership: StoredMembership,
}

fn members(names: &[(&str, &str, bool)]) -> NewMembership {
    let members: Vec<NewMember> = names
        .iter()
        .map(|(id, address, voter)| NewMember {
            id: (*id).into(),
            raft_addr: (*address).into(),
            voter: *voter,
        })
        .collect();
    NewMembership::new(&members).unwrap()
}

fn old_members() -> NewMembership {
    members(&[
        ("a#1", "a:1", true),
        ("b#1", "b:1", true),
        ("c#1", "c:1", true),
    ])
}

impl Sample {
    /// A member with a purged log from index 15 to 60, a vote in term 5, and a database at index 20 with its
    /// own membership.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let raft_dir = dir.path().join("raft");
        fs::create_dir_all(&raft_dir).unwrap();
        let vote = VoteRecord {
            term: 5,
            voted_for: "c#1".into(),
            committed: true,
        };
        write_log(&raft_dir.join("log"), 4, 15, 60, &vote, &old_members());
        let options = Options {
            dir: dir.path().to_owned(),
            foreign_keys: false,
            readers: 1,
            max_readers: 64,
            slow_statement: None,
        };
        let (db, _) = Database::open(options).unwrap();
        let members = StoredMembership::new(Some(log_id(4, 10)), Default::default());
        let empty = encode_meta(&members, 2);
        let meta = old_members().in_meta(&empty.unwrap()).unwrap();
        let entry = |index, work| Entry {
            position: Position { term: 4, index },
            work,
            reply_to: ReplyTo::Nobody,
        };
        let create = node_db::Request {
            kind: node_db::Kind::Execute,
            transaction: false,
            qualify_columns: false,
            statements: vec![node_values::Statement {
                sql: "CREATE TABLE t(x)".into(),
                ..Default::default()
            }],
            stamp: node_db::Stamp::default(),
            rules: node_db::Rules::V1,
        };
        let run = vec![
            entry(10, Work::Meta(Bytes::from(meta))),
            entry(20, Work::Requests(Arc::new(vec![create]))),
        ];
        db.apply(run).await.unwrap().unwrap();
        db.checkpoint().await.unwrap().unwrap();
        db.close();
        let from = Cluster {
            id: "cluster".into(),
            lineage: Lineage {
                id: "lineage".into(),
                epoch: 3,
            },
        };
        let mut identity = Identity::new("a");
        identity.cluster = Some(from.clone());
        identity.pledged = Some(vec!["a#1".into()]);
        identity.save(&raft_dir).unwrap();
        Self { dir, from }
    }

    fn raft(&self, name: &str) -> PathBuf {
        self.dir.path().join("raft").join(name)
    }

    fn ask(&self, content: &str) {
        fs::write(self.raft(PEERS_FILE), content).unwrap();
    }

    /// One start that is killed after this many steps. True if it ended by itself.
    fn start(&self, steps: usize) -> Result<bool, RecoverError> {
        let mut taken = 0;
        let killed = "killed";
        let result = Recovery::new(self.dir.path(), "a").follow_file("a:4002", &mut |_| {
            taken += 1;
            if taken > steps {
                return Err(RecoverError::Failed(killed.into()));
            }
            Ok(())
        });
        match result {
            Ok(()) => Ok(true),
            Err(RecoverError::Failed(text)) if text == killed => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn state(&self) -> State {
        let log = Log::open(&self.raft("log")).unwrap();
        let stored = node_db::offline::stored(self.dir.path()).unwrap().unwrap();
        let (facts, vote) = ((log.purged(), log.last(), log.committed()), log.vote());
        drop(log);
        State {
            entries: entries(&self.raft("log")),
            log: facts,
            vote,
            identity: Identity::load(&self.dir.path().join("raft"))
                .unwrap()
                .unwrap(),
            position: stored.position,
            membership: decode_meta(&stored.meta).unwrap(),
        }
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path().join("raft"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Copies the data directory, so that attempts can be compared.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Sample {
    fn twin(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        Self {
            dir,
            from: self.from.clone(),
        }
    }
}

#[tokio::test]
async fn undisturbed() {
    let sample = Sample::new().await;
    let before = sample.state();
    assert!(sample.start(usize::MAX).unwrap(), "nothing was asked");
    assert_eq!(sample.state(), before);
    sample.ask(BOTH);
    assert!(sample.start(usize::MAX).unwrap());
    let after = sample.state();
    let to = derive::lineage(&sample.from, &Peers::parse(BOTH.as_bytes()).unwrap());
    let (a, b) = (
        derive::incarnation("cluster", &to, "a"),
        derive::incarnation("cluster", &to, "b"),
    );
    let (a, b) = (format!("a#{a}"), format!("b#{b}"));
    let new = members(&[(&a, "a:4002", true), (&b, "b:4002", false)]);
    assert_eq!(after.entries, with_membership(before.entries.clone(), &new));
    assert_eq!((after.log, after.position), (before.log, before.position));
    let vote = VoteRecord {
        term: 6,
        voted_for: a.as_str().into(),
        committed: false,
    };
    assert_eq!(after.vote, Some(vote));
    assert_eq!(after.membership.log_id(), before.membership.log_id());
    let voters: Vec<String> = after
        .membership
        .membership()
        .voter_ids()
        .map(|id| id.to_string())
        .collect();
    assert_eq!(voters.join(","), a);
    assert_eq!(after.identity.raft_id(), a);
    assert_eq!(after.identity.pledged, None);
    let lineage = after.identity.cluster.clone().unwrap().lineage;
    assert_eq!((lineage.epoch, lineage), (4, to));
    assert_eq!(
        sample.files(),
        ["identity.json", "lineage-parent.json", "log", "peers.info"]
    );
    assert_eq!(
        fs::read_to_string(sample.raft(PEERS_DONE_FILE)).unwrap(),
        BOTH
    );
    sample.ask(BOTH);
    assert!(sample.start(usize::MAX).unwrap());
    assert_eq!(
        sample.state().identity.cluster.unwrap().lineage.epoch,
        5,
        "asked again, done again"
    );
}

#[tokio::test]
async fn killed_anywhere_and_again() {
    let original = Sample::new().await;
    original.ask(BOTH);
    let undisturbed = original.twin();
    assert!(
        undisturbed.start(STEPS).unwrap(),
        "as many steps as are counted here"
    );
    let (wanted, files) = (undisturbed.state(), undisturbed.files());
    for first in 0..STEPS {
        for second in 0..STEPS {
            let sample = original.twin();
            assert!(!sample.start(first).unwrap());
            let ended = sample.start(second).unwrap();
            assert!(sample.start(usize::MAX).unwrap() || ended);
            assert_eq!(sample.state(), wanted, "killed after {first} and {second}");
            assert_eq!(sample.files(), files, "killed after {first} and {second}");
        }
    }
}

#[tokio::test]
async fn inspecting_an_interrupted_recovery_finds_no_damage() {
    use crate::inspect::{DirectoryState, inspect};
    let original = Sample::new().await;
    original.ask(BOTH);
    for step in 0..=STEPS {
        let sample = original.twin();
        let ended = sample.start(step).unwrap();
        let facts = inspect(sample.dir.path(), true).unwrap();
        assert!(facts.is_healthy(), "after {step}: {:?}", facts.damage);
        let done = ended || !sample.raft(PEERS_FILE).exists();
        let wanted = if done {
            DirectoryState::Member
        } else {
            DirectoryState::Recovering
        };
        assert_eq!(facts.state, wanted, "after {step}");
        assert_eq!(
            (facts.pending_peers, facts.last_log.is_some()),
            (!done, sample.raft("log").exists())
        );
    }
}

/// After a crash, somebody notices that the file was wrong.
#[tokio::test]
async fn the_file_changes_after_a_crash() {
    let original = Sample::new().await;
    let wanted = original.twin();
    wanted.ask(ALONE);
    assert!(wanted.start(STEPS).unwrap());
    original.ask(BOTH);
    for step in 0..STEPS - 2 {
        let sample = original.twin();
        assert!(!sample.start(step).unwrap());
        fs::remove_file(sample.raft(PEERS_FILE)).unwrap();
        let error = sample.start(usize::MAX);
        if step < STEPS - 3 {
            let text = error.unwrap_err().to_string();
            assert!(text.contains("interrupted recovery"), "{text}");
            assert!(unfinished_recovery(sample.dir.path()).unwrap().is_some());
        } else {
            continue;
        }
        sample.ask(ALONE);
        assert!(sample.start(usize::MAX).unwrap());
        let (mut state, mut wanted) = (sample.state(), wanted.state());
        assert!(state.vote.as_ref().map(|v| v.term) >= wanted.vote.as_ref().map(|v| v.term));
        state.vote = None;
        wanted.vote = None;
        assert_eq!(state, wanted, "after step {step}");
    }
}

#[tokio::test]
async fn what_cannot_be_recovered_is_told_and_left_alone() {
    let original = Sample::new().await;
    type Spoil = fn(&Sample);
    let cases: &[(Spoil, &str)] = &[
        (|s| s.ask("["), "failed to read peers file: unexpected end"),
        (
            |s| s.ask(r#"[{"id":"x","address":"a:1"}]"#),
            "failed to recover node: this node's ID a is not in ",
        ),
        (
            |s| s.ask(&" ".repeat(2 << 20)),
            "failed to read peers file: ",
        ),
        (
            |s| fs::remove_file(s.raft("identity.json")).unwrap(),
            "failed to recover node: ",
        ),
        (
            |s| fs::write(s.dir.path().join("state"), "x").unwrap(),
            "failed to recover node: the state file",
        ),
        (
            |s| fs::remove_dir_all(s.raft("log")).unwrap(),
            "failed to recover node: the Raft log in ",
        ),
        (
            |s| {
                fs::remove_dir_all(s.raft("log")).unwrap();
                for name in ["state", "db.sqlite"] {
                    fs::remove_file(s.dir.path().join(name)).unwrap();
                }
            },
            "failed to recover node: ",
        ),
    ];
    for (spoil, text) in cases {
        let sample = original.twin();
        sample.ask(BOTH);
        spoil(&sample);
        let error = sample.start(usize::MAX).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
        assert!(
            sample.raft(PEERS_FILE).exists() && !sample.raft(journal::FILE_NAME).exists(),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_plan_gives_the_lineage() {
    let original = Sample::new().await;
    let to = Lineage {
        id: "given".into(),
        epoch: 9,
    };
    let peers = Peers::parse(ALONE.as_bytes()).unwrap();
    let mut wanted = None;
    for step in 0..=STEPS {
        let sample = original.twin();
        let mut taken = 0;
        let recovery = Recovery::new(sample.dir.path(), "a");
        let _ = recovery.follow_plan(&peers, &to, &mut |_| {
            taken += 1;
            if taken > step {
                return Err(RecoverError::Failed("killed".into()));
            }
            Ok(())
        });
        if step < 6 {
            recover_by_plan(sample.dir.path(), "a", &peers, &to).unwrap();
        } else {
            // A start without the plan finishes the recovery as decided.
            assert!(sample.start(usize::MAX).unwrap());
        }
        let state = sample.state();
        assert_eq!(state.identity.cluster.as_ref().unwrap().lineage, to);
        let wanted = wanted.get_or_insert_with(|| state.clone());
        assert_eq!(state, *wanted, "after step {step}");
        assert_eq!(
            sample.files(),
            ["identity.json", "lineage-parent.json", "log", "peers.info"]
        );
    }
}

/// A start under another name changes the identity, but what the cluster knows is the former name.
#[tokio::test]
async fn the_name_that_the_cluster_knows_counts_after_a_start_under_another() {
    let sample = Sample::new().await;
    let raft_dir = sample.dir.path().join("raft");
    let mut identity = Identity::load(&raft_dir).unwrap().unwrap();
    let known = members(&[
        (&identity.raft_id(), "a:1", true),
        ("b#1", "b:1", true),
        ("c#1", "c:1", true),
    ]);
    node_db::offline::replace_meta(sample.dir.path(), |meta| {
        known.in_meta(meta).map_err(|e| e.to_string())
    })
    .unwrap();
    identity.name = "moved:4002".into();
    identity.save(&raft_dir).unwrap();
    sample.ask(ALONE);
    let refused = |name| {
        let recovery = Recovery::new(sample.dir.path(), name);
        let result = recovery.follow_file("a:4002", &mut |_| Ok(()));
        result.unwrap_err().to_string()
    };
    for name in ["moved:4002", "z"] {
        let text = refused(name);
        assert!(text.contains("-node-id=a"), "{text}");
    }
    // Each start is killed one step later than the one before.
    let ended = (0..=STEPS).any(|steps| sample.start(steps).unwrap());
    assert!(ended);
    assert_eq!(sample.state().identity.name, "a");
}
