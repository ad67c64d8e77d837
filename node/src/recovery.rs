//! Manual recovery from a lost quorum: `raft/peers.json` lists the members from now on. Runs offline, before
//! Raft starts, with the data directory locked.
//!
//! DESIGN.md explains the order of the steps and the state after a crash at each of them.
pub mod derive;
mod error;
mod journal;
pub mod peers;
pub mod skip;

#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use node_db::durable;

pub use self::error::RecoverError;
use self::{
    journal::Journal,
    peers::{MAX_PEERS_BYTES, Peers, PeersError},
};
use crate::{
    archive::parent,
    identity::{Cluster, Identity, IdentityError, Lineage},
    raft::{
        codec::VoteRecord,
        storage::{
            log::Log,
            rewrite::{NewMember, NewMembership, rewrite},
            state_machine::decode_meta,
        },
        types::RaftId,
    },
};

/// The file that requests a recovery, in `<data>/raft/`.
pub const PEERS_FILE: &str = "peers.json";
/// The file's name after the recovery.
pub const PEERS_DONE_FILE: &str = "peers.info";

/// The steps, each named after what is durable once it is done. After a crash the next start continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The journal is written: from here on the recovery is only completed, never undone.
    Begun,
    /// The new log is built beside the old one.
    LogBuilt,
    /// The old log is renamed; no log has the usual name.
    OldLogRenamed,
    /// The new log has the usual name.
    LogReplaced,
    /// The membership in the database's sidecar is replaced.
    DatabaseUpdated,
    /// The identity is replaced.
    IdentityChanged,
    /// The journal records that all of the above is done.
    Done,
    /// The peers file is renamed.
    PeersRenamed,
    /// The old log is deleted.
    OldLogRemoved,
}

/// Called after each step; tests stop a recovery here, as a crash would.
type AfterStep<'a> = &'a mut dyn FnMut(Step) -> Result<(), RecoverError>;

/// A recovery of one data directory.
struct Recovery<'a> {
    data_dir: &'a Path,
    raft_dir: PathBuf,
    /// `-node-id`.
    name: &'a str,
}

/// Carries out `raft/peers.json` if it exists, or finishes an interrupted recovery. `advertised` is this
/// node's Raft address.
///
/// # Errors
/// See [`RecoverError`]. No data is lost, and the node must not start.
pub fn recover_from_peers_file(
    data_dir: &Path,
    name: &str,
    advertised: &str,
) -> Result<(), RecoverError> {
    Recovery::new(data_dir, name).follow_file(advertised, &mut |_| Ok(()))
}

/// Recovers into the lineage `to`, which an operator's plan has chosen. Repeating the call after a crash
/// continues where it stopped.
///
/// # Errors
/// See [`RecoverError`].
pub fn recover_by_plan(
    data_dir: &Path,
    name: &str,
    peers: &Peers,
    to: &Lineage,
) -> Result<(), RecoverError> {
    Recovery::new(data_dir, name).follow_plan(peers, to, &mut |_| Ok(()))
}

/// The target lineage of a recovery that was started here and is not finished.
///
/// # Errors
/// The journal is damaged or cannot be read.
pub fn unfinished_recovery(data_dir: &Path) -> Result<Option<Lineage>, RecoverError> {
    let journal = Journal::load(&data_dir.join("raft"))?;
    Ok(journal
        .filter(|journal| !journal.done)
        .map(|journal| journal.to.lineage))
}

impl<'a> Recovery<'a> {
    fn new(data_dir: &'a Path, name: &'a str) -> Self {
        Self {
            data_dir,
            raft_dir: data_dir.join("raft"),
            name,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.raft_dir.join(name)
    }

    fn follow_file(&self, advertised: &str, after: AfterStep) -> Result<(), RecoverError> {
        let path = self.file(PEERS_FILE);
        let content = read_limited(&path)?;
        let journal = Journal::load(&self.raft_dir)?;
        let Some(content) = content else {
            return match journal {
                None => Ok(()),
                Some(journal) if journal.done => self.clean_up(after),
                Some(_) => Err(RecoverError::Failed(format!(
                    "an interrupted recovery is recorded in {} but {} is missing: restore it, unchanged or corrected, and restart",
                    self.file(journal::FILE_NAME).display(),
                    path.display()
                ))),
            };
        };
        tracing::info!(target: "recovery", "attempting node recovery using {}", path.display());
        let peers = Peers::parse(&content)?;
        self.check_own_entry(&peers, advertised)?;
        let hash = derive::content_hash(&content);
        let journal = match journal {
            Some(journal) if journal.peers == hash && journal.name == self.name => journal,
            former => self.begin(former, hash, &peers, None)?,
        };
        self.go_forward(journal, &peers, after)?;
        tracing::info!(target: "recovery", "node recovered successfully using {}", path.display());
        Ok(())
    }

    /// Writes the journal before the peers file: a start without the plan must not derive another lineage
    /// from the file.
    fn follow_plan(
        &self,
        peers: &Peers,
        to: &Lineage,
        after: AfterStep,
    ) -> Result<(), RecoverError> {
        let content = serde_json::to_vec_pretty(peers.members())
            .map_err(|e| RecoverError::Failed(e.to_string()))?;
        let path = self.file(PEERS_FILE);
        tracing::info!(target: "recovery", "attempting node recovery using {}", path.display());
        self.check_own_entry(peers, "")?;
        let hash = derive::content_hash(&content);
        let journal = match Journal::load(&self.raft_dir)? {
            Some(journal)
                if journal.peers == hash
                    && journal.name == self.name
                    && journal.planned
                    && journal.to.lineage == *to =>
            {
                journal
            }
            former => self.begin(former, hash, peers, Some(to))?,
        };
        if !journal.done {
            durable::write(&path, &content).map_err(|e| RecoverError::io("write", &path, &e))?;
        }
        self.go_forward(journal, peers, after)?;
        tracing::info!(target: "recovery", "node recovered successfully using {}", path.display());
        Ok(())
    }

    fn check_own_entry(&self, peers: &Peers, advertised: &str) -> Result<(), RecoverError> {
        let path = self.file(PEERS_FILE);
        // Two nodes with one name would have the same Raft id, and both would vote with it.
        let identity = Identity::load(&self.raft_dir)?;
        let recorded = match &identity {
            Some(identity) => self.recorded_name(identity)?,
            None => None,
        };
        // An interrupted recovery has checked the name, and may have replaced the membership since.
        let journal = Journal::load(&self.raft_dir)?;
        let is_recorded = recorded.as_deref() == Some(self.name)
            || journal.is_some_and(|journal| journal.name == self.name);
        if let Some(former) = identity.map(|identity| identity.name)
            && former != self.name
            && !is_recorded
        {
            let former = recorded.unwrap_or(former);
            return Err(RecoverError::Failed(format!(
                "this node's ID was {former} and is {} now, but a recovery must not change it: start the node with -node-id={former}",
                self.name
            )));
        }
        let Some(own) = peers.get(self.name) else {
            if let Some(recorded) = recorded.filter(|name| peers.get(name).is_some()) {
                return Err(RecoverError::Failed(format!(
                    "{} names this node by the ID {recorded} that its cluster knows, but it was started as {}: start it with -node-id={recorded}",
                    path.display(),
                    self.name
                )));
            }
            return Err(RecoverError::Failed(format!(
                "this node's ID {} is not in {}, which names {}: add it, or take the file away from this node",
                self.name,
                path.display(),
                peers.names()
            )));
        };
        if !advertised.is_empty() && own.address != advertised {
            tracing::warn!(target: "recovery", "{} gives this node the address {} but it advertises {advertised}: other nodes will look for it at the former", path.display(), own.address);
        }
        Ok(())
    }

    /// The name of this data directory in the stored membership. The identity has another one after a start
    /// under another name, until a leader records that.
    fn recorded_name(&self, identity: &Identity) -> Result<Option<String>, RecoverError> {
        let own = RaftId::from(identity.raft_id());
        let name = |id: &RaftId| id.same_directory(&own).then(|| id.name().to_owned());
        let path = self.file("log");
        if path.exists() {
            let newest = Log::open(&path)
                .map_err(|e| e.to_string())
                .and_then(|log| log.newest_membership().map_err(|e| e.to_string()));
            let newest = newest.map_err(|e| {
                RecoverError::Failed(format!("the Raft log in {}: {e}", path.display()))
            })?;
            let found = newest.and_then(|newest| newest.nodes.keys().find_map(name));
            if found.is_some() {
                return Ok(found);
            }
        }
        let Some(stored) = node_db::offline::stored(self.data_dir)? else {
            return Ok(None);
        };
        let membership = decode_meta(&stored.meta).map_err(|e| {
            RecoverError::Failed(format!("the membership in the database's state file: {e}"))
        })?;
        let mut ids = membership.membership().nodes().map(|(id, _)| id);
        Ok(ids.find_map(name))
    }

    /// Checks everything that could make the recovery fail, decides its result, and writes the journal.
    /// `former` is the journal of an interrupted recovery that is replaced by this one. Raft has not run in
    /// between, so the new recovery starts from the same origin.
    fn begin(
        &self,
        former: Option<Journal>,
        hash: String,
        peers: &Peers,
        planned: Option<&Lineage>,
    ) -> Result<Journal, RecoverError> {
        if former.is_some() {
            self.restore_single_log()?;
        }
        let stored = node_db::offline::stored(self.data_dir)?.unwrap_or_default();
        let Some((vote, last)) = self.log_facts(stored.position)? else {
            return Err(RecoverError::Failed(format!(
                "{} holds no data: an empty node joins the recovered cluster instead; take {} away and start it with -join",
                self.data_dir.display(),
                self.file(PEERS_FILE).display()
            )));
        };
        let Some(identity) = Identity::load(&self.raft_dir)? else {
            return Err(IdentityError::Missing {
                path: self.file("identity.json"),
            }
            .into());
        };
        let from = match former.map(|journal| journal.from).or(identity.cluster) {
            Some(from) => from,
            None => {
                return Err(RecoverError::Failed(
                    "this node was never a member of a cluster: give it an empty data directory and let it join".into(),
                ));
            }
        };
        let lineage = match planned {
            Some(lineage) => lineage.clone(),
            None => derive::lineage(&from, peers),
        };
        let to = Cluster {
            id: from.id.clone(),
            lineage,
        };
        let known = [vote, last, stored.position.map_or(0, |p| p.term)];
        let term = known
            .into_iter()
            .max()
            .unwrap_or_default()
            .saturating_add(1);
        let journal = Journal::new(
            hash,
            self.name.to_owned(),
            from,
            to,
            planned.is_some(),
            term,
        );
        if planned.is_none() {
            // The file may have been written a moment ago. If it were lost in a crash, the journal would keep
            // the node from starting.
            let path = self.file(PEERS_FILE);
            durable::sync(&path)
                .and_then(|()| durable::sync_parent(&path))
                .map_err(|e| RecoverError::io("sync", &path, &e))?;
        }
        journal.save(&self.raft_dir)?;
        Ok(journal)
    }

    /// The terms of the vote and of the last entry; `None` if the directory holds no data.
    fn log_facts(
        &self,
        database: Option<node_db::Position>,
    ) -> Result<Option<(u64, u64)>, RecoverError> {
        let path = self.file("log");
        let failed = |e: &dyn std::fmt::Display| {
            RecoverError::Failed(format!("the Raft log in {}: {e}", path.display()))
        };
        if !path.exists() && database.is_none() {
            return Ok(None);
        }
        let log = Log::open(&path).map_err(|e| failed(&e))?;
        if log.last().is_none() && database.is_none() {
            return Ok(None);
        }
        log.check_continuity(database).map_err(|e| failed(&e))?;
        let vote = log.vote().map_or(0, |vote| vote.term);
        Ok(Some((vote, log.last().map_or(0, |last| last.0))))
    }

    fn go_forward(
        &self,
        mut journal: Journal,
        peers: &Peers,
        after: AfterStep,
    ) -> Result<(), RecoverError> {
        if !journal.done {
            after(Step::Begun)?;
            let incarnation =
                |name: &str| derive::incarnation(&journal.to.id, &journal.to.lineage, name);
            let mut identity = Identity::load(&self.raft_dir)?
                .ok_or_else(|| RecoverError::Failed("the identity file has vanished".to_owned()))?;
            identity.become_recovered(self.name, incarnation(self.name), journal.to.clone());
            let members: Vec<NewMember> = peers
                .members()
                .iter()
                .map(|peer| NewMember {
                    id: crate::identity::raft_id(&peer.id, &incarnation(&peer.id)),
                    raft_addr: peer.address.clone(),
                    voter: !peer.non_voter,
                })
                .collect();
            let membership =
                NewMembership::new(&members).map_err(|e| RecoverError::Failed(e.to_string()))?;
            let vote = VoteRecord {
                term: journal.term,
                voted_for: identity.raft_id().into(),
                committed: false,
            };
            self.replace_log(&membership, &vote, after)?;
            node_db::offline::replace_meta(self.data_dir, |meta| {
                membership
                    .in_meta(meta)
                    .map_err(|e| format!("the membership in the database's state file: {e}"))
            })?;
            after(Step::DatabaseUpdated)?;
            // What the former lineage archived after its members last agreed is not known here.
            let (to, from) = (&journal.to.lineage, &journal.from.lineage);
            parent::note(&self.raft_dir, to, from, None, "recovery");
            identity.save(&self.raft_dir)?;
            after(Step::IdentityChanged)?;
            journal.done = true;
            journal.save(&self.raft_dir)?;
            after(Step::Done)?;
        }
        self.rename(PEERS_FILE, PEERS_DONE_FILE)?;
        after(Step::PeersRenamed)?;
        self.clean_up(after)
    }

    /// Builds the new log beside the old one and exchanges their names. Whenever the old log has its
    /// temporary name, the new log is complete.
    fn replace_log(
        &self,
        membership: &NewMembership,
        vote: &VoteRecord,
        after: AfterStep,
    ) -> Result<(), RecoverError> {
        let (log, new, old) = self.logs();
        if !old.exists() {
            remove_directory(&new)?;
            rewrite(&log, &new, membership, vote).map_err(|e| {
                RecoverError::Failed(format!("rewriting the Raft log in {}: {e}", log.display()))
            })?;
            durable::sync_parent(&new).map_err(|e| RecoverError::io("sync", &new, &e))?;
            after(Step::LogBuilt)?;
            self.rename("log", OLD_LOG)?;
            after(Step::OldLogRenamed)?;
        }
        if !log.exists() {
            self.rename(NEW_LOG, "log")?;
            after(Step::LogReplaced)?;
        }
        Ok(())
    }

    /// Keeps one log, the newest complete one.
    fn restore_single_log(&self) -> Result<(), RecoverError> {
        let (log, new, old) = self.logs();
        if !log.exists() && old.exists() {
            self.rename(NEW_LOG, "log")?;
        }
        remove_directory(&old)?;
        remove_directory(&new)
    }

    fn clean_up(&self, after: AfterStep) -> Result<(), RecoverError> {
        let (_, new, old) = self.logs();
        remove_directory(&old)?;
        remove_directory(&new)?;
        after(Step::OldLogRemoved)?;
        let path = self.file(journal::FILE_NAME);
        fs::remove_file(&path)
            .and_then(|()| durable::sync_parent(&path))
            .map_err(|e| RecoverError::io("remove", &path, &e))
    }

    fn logs(&self) -> (PathBuf, PathBuf, PathBuf) {
        (self.file("log"), self.file(NEW_LOG), self.file(OLD_LOG))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), RecoverError> {
        let path = self.file(from);
        durable::rename(&path, &self.file(to)).map_err(|e| RecoverError::io("rename", &path, &e))
    }
}

/// The new log while it is being written.
const NEW_LOG: &str = "log.recovered";
/// The old log until the recovery has finished.
const OLD_LOG: &str = "log.before-recovery";

/// Reads a file of limited size; `None` if it does not exist.
fn read_limited(path: &Path) -> Result<Option<Vec<u8>>, PeersError> {
    let describe_error = |e: io::Error| PeersError::File(e.to_string());
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(describe_error(e)),
    };
    let mut content = Vec::new();
    file.take(MAX_PEERS_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(describe_error)?;
    if content.len() as u64 > MAX_PEERS_BYTES {
        return Err(PeersError::File(format!(
            "{} is larger than {MAX_PEERS_BYTES} bytes: it lists the cluster's members and nothing else",
            path.display()
        )));
    }
    Ok(Some(content))
}

fn remove_directory(path: &Path) -> Result<(), RecoverError> {
    match fs::remove_dir_all(path) {
        Ok(()) => durable::sync_parent(path).map_err(|e| RecoverError::io("sync", path, &e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(RecoverError::io("remove", path, &e)),
    }
}
