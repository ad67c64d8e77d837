//! Collects the facts. Each part is read independently, so that damage in one does not hide the others.
use std::{fs, io, path::Path};

use node_contract::{Lineage, LogPosition};
use node_db::{Position, offline::Soundness};
use serde::Serialize;

use crate::{
    identity::{Identity, name_of},
    raft::{
        codec::{Id, MembershipRecord},
        storage::{
            describe::Described,
            log::{self, Log},
            state_machine::{decode_meta, format_version_of},
        },
    },
    recovery, version,
};

/// The state of a data directory between empty and a cluster's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryState {
    /// It contains nothing.
    Empty,
    /// It has a name and nothing else yet.
    Uninitialized,
    /// It knows its cluster and holds no entry yet.
    Joining,
    /// Its newest membership lists this node.
    Member,
    /// Its newest membership does not list this node: removed, or not admitted yet.
    Removed,
    /// `raft/peers.json` exists, or a recovery was interrupted.
    Recovering,
    /// It is damaged; see `damage`.
    Damaged,
}

/// A vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// Raft term.
    pub term: u64,
    /// Raft id voted for.
    pub voted_for: String,
    /// A quorum granted it.
    pub committed: bool,
}

/// A member in the newest membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its node ID.
    pub name: String,
    /// `<name>#<incarnation>`.
    pub raft_id: String,
    /// Advertised Raft address.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
}

/// The newest membership, committed or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Members {
    /// The log entry that contains it.
    pub log: Option<LogPosition>,
    /// It is a joint configuration, between two voter sets.
    pub joint: bool,
    /// Sorted by Raft id.
    pub members: Vec<Member>,
}

/// The result of checking the main file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Integrity {
    /// SQLite has read the whole file.
    pub checked: bool,
    /// `ok`, the problems found, or why the file was not checked.
    pub result: String,
}

/// Everything known about a closed data directory. Serialized by `inspect --json`: new fields are only
/// appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The state of the directory.
    pub state: DirectoryState,
    /// `-node-id`.
    pub name: Option<String>,
    /// 16 hexadecimal digits.
    pub incarnation: Option<String>,
    /// `<name>#<incarnation>`.
    pub raft_id: Option<String>,
    /// Id of the cluster to which it belongs, or for which it was created.
    pub cluster_id: Option<String>,
    /// Lineage of that cluster.
    pub lineage: Option<Lineage>,
    /// The stored vote.
    pub vote: Option<Vote>,
    /// The last log entry, committed or not.
    pub last_log: Option<LogPosition>,
    /// The last purged log entry; up to it the entries are only in the database.
    pub purged: Option<LogPosition>,
    /// The last entry known here to be committed; later entries may be committed, too.
    pub committed: Option<LogPosition>,
    /// The position that the database's main file equals.
    pub database: Option<LogPosition>,
    /// The newest membership in the log or the database.
    pub membership: Option<Members>,
    /// The format version that the database was last used with.
    #[serde(skip)]
    pub format_version: u16,
    /// `raft/peers.json` exists; the next start carries it out.
    pub pending_peers: bool,
    /// A recovery was interrupted; the next start finishes it.
    pub recovery_under_way: bool,
    /// The check of the main file.
    pub integrity: Integrity,
    /// The damage found; empty for a healthy directory.
    pub damage: Vec<String>,
    /// The incomplete write at the log's end that the next start drops: a crash interrupted it before it was
    /// acknowledged.
    pub torn_tail: Option<String>,
}

impl Facts {
    /// Whether no damage was found.
    pub fn is_healthy(&self) -> bool {
        self.damage.is_empty()
    }

    /// The output of `--json`.
    pub fn json(&self) -> String {
        // These types always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// Converts a log id to the contract's type.
fn position((term, index): Id) -> LogPosition {
    LogPosition { term, index }
}

/// Reads all facts. `whole`: also checks the database's main file.
pub(super) fn read(data_dir: &Path, whole: bool) -> Facts {
    let mut facts = Facts {
        state: DirectoryState::Empty,
        name: None,
        incarnation: None,
        raft_id: None,
        cluster_id: None,
        lineage: None,
        vote: None,
        last_log: None,
        purged: None,
        committed: None,
        database: None,
        membership: None,
        format_version: version::OLDEST,
        pending_peers: false,
        recovery_under_way: false,
        integrity: Integrity {
            checked: false,
            result: "not asked for".into(),
        },
        damage: Vec::new(),
        torn_tail: None,
    };
    let raft_dir = data_dir.join("raft");
    facts.pending_peers = raft_dir.join(recovery::PEERS_FILE).exists();
    match recovery::unfinished_recovery(data_dir) {
        Ok(under_way) => facts.recovery_under_way = under_way.is_some(),
        Err(e) => facts.damage.push(e.to_string()),
    }
    if let Err(e) = recovery::skip::refuse_if_interrupted(data_dir) {
        facts.damage.push(e.to_string());
    }
    let pledged = read_identity(&raft_dir, &mut facts);
    let stored = read_database(data_dir, whole, &mut facts);
    let log_dir = raft_dir.join("log");
    if facts.recovery_under_way && !log_dir.exists() {
        // A crash between two renames; the next start continues.
        facts.state = DirectoryState::Recovering;
        return facts;
    }
    if let Err(e) = read_log(&log_dir, stored, &mut facts) {
        facts.damage.push(format!(
            "the Raft log in {} cannot be read: {e}",
            log_dir.display()
        ));
    }
    facts.state = directory_state(&facts, pledged);
    facts
}

fn directory_state(facts: &Facts, pledged: bool) -> DirectoryState {
    let holds_data = facts.last_log.is_some() || facts.database.is_some();
    let listed = facts.membership.as_ref().is_some_and(|m| {
        m.members
            .iter()
            .any(|member| Some(&member.raft_id) == facts.raft_id.as_ref())
    });
    match () {
        () if !facts.damage.is_empty() => DirectoryState::Damaged,
        () if facts.recovery_under_way || (facts.pending_peers && holds_data) => {
            DirectoryState::Recovering
        }
        () if facts.raft_id.is_none() => DirectoryState::Empty,
        () if !holds_data && (facts.cluster_id.is_some() || pledged) => DirectoryState::Joining,
        () if !holds_data => DirectoryState::Uninitialized,
        () if listed => DirectoryState::Member,
        () => DirectoryState::Removed,
    }
}

/// Reads the identity. Returns `true` if this node has pledged to form a cluster.
fn read_identity(raft_dir: &Path, facts: &mut Facts) -> bool {
    let identity = match Identity::load(raft_dir) {
        Ok(Some(identity)) => identity,
        Ok(None) => return false,
        Err(e) => {
            facts.damage.push(e.to_string());
            return false;
        }
    };
    facts.raft_id = Some(identity.raft_id());
    let cluster = identity
        .cluster
        .or(identity.birth.map(|birth| birth.cluster));
    facts.cluster_id = cluster.as_ref().map(|cluster| cluster.id.clone());
    facts.lineage = cluster.map(|cluster| cluster.lineage);
    facts.name = Some(identity.name);
    facts.incarnation = Some(identity.incarnation);
    identity.pledged.is_some()
}

fn read_database(data_dir: &Path, whole: bool, facts: &mut Facts) -> Option<Position> {
    let stored = match node_db::offline::stored(data_dir) {
        Ok(stored) => stored.unwrap_or_default(),
        Err(e) => {
            facts.damage.push(e.to_string());
            facts.integrity.result = "not checked: see damage".into();
            return None;
        }
    };
    facts.database = stored.position.map(|at| position((at.term, at.index)));
    facts.format_version = format_version_of(&stored.meta);
    match decode_meta(&stored.meta) {
        Ok(membership) if stored.position.is_some() => {
            let record =
                MembershipRecord::new(membership.membership(), membership.log_id().as_ref());
            facts.membership = Some(members(record));
        }
        Ok(_) => {}
        Err(e) => facts.damage.push(format!(
            "the database's state file holds no membership: {e}"
        )),
    }
    if whole {
        let (checked, result) = match node_db::offline::soundness(data_dir) {
            Ok(Soundness::Sound) => (true, "ok".to_owned()),
            Ok(Soundness::Unchecked(why)) => (false, why.to_owned()),
            Ok(Soundness::Damaged(complaints)) => {
                let complaints = complaints.join("; ");
                facts
                    .damage
                    .push(format!("the database is damaged: {complaints}"));
                (true, complaints)
            }
            Err(e) => (false, e.to_string()),
        };
        facts.integrity = Integrity { checked, result };
    }
    stored.position
}

/// Reads the log. Opening a log drops a torn tail and creates a file, so a copy is opened and the original
/// stays unchanged.
fn read_log(log_dir: &Path, stored: Option<Position>, facts: &mut Facts) -> io::Result<()> {
    let holds_something = match fs::read_dir(log_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e),
    };
    if !holds_something {
        if let Some(at) = stored {
            facts.damage.push(format!(
                "the database is at index {} but there is no Raft log: with it acknowledged writes may be lost",
                at.index
            ));
        }
        return Ok(());
    }
    if facts.raft_id.is_none() {
        facts.damage.push(format!(
            "{} is missing although the directory holds a Raft log",
            log_dir.with_file_name("identity.json").display()
        ));
    }
    // Before the copy is made, so that the text names the original files.
    facts.torn_tail = log::torn_tail(log_dir)?;
    let (_copy, log) = open_copy(log_dir)?;
    facts.vote = log.vote().map(|vote| Vote {
        term: vote.term,
        voted_for: vote.voted_for.to_string(),
        committed: vote.committed,
    });
    facts.last_log = log.last().map(position);
    facts.purged = log.purged().map(position);
    facts.committed = log.committed().map(position);
    if let Some(record) = log.newest_membership()? {
        facts.membership = Some(members(record));
    }
    if let Err(reason) = log.check_continuity(stored) {
        facts.damage.push(reason);
    }
    Ok(())
}

fn open_copy(log_dir: &Path) -> io::Result<(tempfile::TempDir, Log)> {
    let copy = tempfile::tempdir()?;
    for entry in fs::read_dir(log_dir)? {
        let entry = entry?;
        fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    let log = Log::open(copy.path())?;
    Ok((copy, log))
}

/// Reads one log entry.
pub(super) fn entry(log_dir: &Path, index: u64) -> io::Result<Option<Described>> {
    log::torn_tail(log_dir)?;
    let (_copy, log) = open_copy(log_dir)?;
    log.describe(index)
}

fn members(record: MembershipRecord) -> Members {
    let votes = |id| record.voters.iter().any(|set| set.contains(id));
    Members {
        log: record.log_id.map(position),
        joint: record.voters.len() > 1,
        members: record
            .nodes
            .iter()
            .map(|(id, node)| Member {
                name: name_of(&id.0).to_owned(),
                raft_id: id.to_string(),
                address: node.raft_addr.clone(),
                voter: votes(id),
            })
            .collect(),
    }
}
