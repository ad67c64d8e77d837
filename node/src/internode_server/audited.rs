//! What the audit log says of requests of other nodes: those of clients and administrators, and those that
//! change who is a member. Requests that nodes make for themselves are left out.
use std::{net::SocketAddr, sync::Arc};

use node_db::Kind;

use crate::{
    audit::{Audit, Counts, Entry, Notes, Pending, counts_of},
    auth::Perm,
    identity::name_of,
    internode::{
        messages::{ForwardedWrite, JoinResponse, PeerRequest, PeerResponse},
        wire::Hello,
    },
    store_types::{Credentials, StoreError},
};

/// The lines of one request, one for each write in it.
#[derive(Debug, Default)]
pub(super) struct Trail {
    lines: Vec<Pending>,
    notes: Vec<Arc<Notes>>,
}

impl Trail {
    pub(super) fn begin(
        audit: Option<&Audit>,
        request: &PeerRequest,
        hello: &Hello,
        address: Option<SocketAddr>,
    ) -> Self {
        let Some(audit) = audit else {
            return Self::default();
        };
        let mut trail = Self::default();
        for (mut entry, counts) in entries(request) {
            entry.port = "internode";
            entry.remote = address;
            entry.via = Some(name_of(&hello.from).chars().take(MAX_NODE_CHARS).collect());
            let line = audit.begin(entry);
            let notes = line.notes();
            notes.statements(counts);
            trail.notes.push(notes);
            trail.lines.push(line);
        }
        trail
    }

    pub(super) fn notes(&self) -> &[Arc<Notes>] {
        &self.notes
    }

    /// The request was served with this response.
    pub(super) fn finish(self, response: &PeerResponse) {
        for (at, notes) in self.notes.iter().enumerate() {
            match response {
                PeerResponse::Write(results) => {
                    note_result(
                        notes,
                        results.get(at).and_then(|result| result.as_ref().err()),
                    );
                }
                PeerResponse::Served(result) => note_result(notes, result.as_ref().err()),
                PeerResponse::Done(result) => note_result(notes, result.as_ref().err()),
                PeerResponse::Backup(result) => note_result(notes, result.as_ref().err()),
                PeerResponse::Compared(result) => note_result(notes, result.as_ref().err()),
                PeerResponse::Join(JoinResponse::Unauthorized) => notes.error("unauthorized"),
                PeerResponse::Join(JoinResponse::Refused(_)) => notes.error("refused"),
                PeerResponse::Join(JoinResponse::NotLeader(_)) => notes.error("not_leader"),
                _ => {}
            }
        }
        self.done();
    }

    /// The request was served; what became of it was noted.
    pub(super) fn done(self) {
        self.lines.into_iter().for_each(Pending::finish);
    }
}

/// Longest name of a node that is written.
const MAX_NODE_CHARS: usize = 128;

/// Notes why a request failed.
pub(super) fn note_result(notes: &Notes, error: Option<&StoreError>) {
    if let Some(error) = error {
        notes.store_error(error);
    }
}

/// Permissions of a forwarded write, and its name in errors.
pub(super) fn needed(kind: Kind) -> (&'static [Perm], &'static str) {
    match kind {
        Kind::Execute | Kind::ExecutePlain => (&[Perm::Execute], "Execute"),
        Kind::Query => (&[Perm::Query], "query"),
        Kind::Unified | Kind::UnifiedPlain => (&[Perm::Query, Perm::Execute], "Request"),
    }
}

fn entries(request: &PeerRequest) -> Vec<(Entry, Counts)> {
    let one = |action, perms: &[Perm], credentials: &Option<Credentials>| {
        vec![(
            entry(action, perms, credentials.as_ref()),
            Counts::default(),
        )]
    };
    let about = |mut entries: Vec<(Entry, Counts)>, name: &str| {
        for (entry, _) in &mut entries {
            entry.set_target(name_of(name));
        }
        entries
    };
    match request {
        PeerRequest::Join(join) => {
            let perm = if join.voter {
                Perm::Join
            } else {
                Perm::JoinReadOnly
            };
            about(one("join", &[perm], &join.credentials), &join.id)
        }
        PeerRequest::Notify(notice) => about(
            one("notify", &[Perm::Join], &notice.credentials),
            &notice.id,
        ),
        PeerRequest::Pledge { credentials, .. } => one("pledge", &[Perm::Join], credentials),
        PeerRequest::Release(_) => one("release", &[], &None),
        PeerRequest::Remove { name, credentials } => {
            about(one("remove", &[Perm::Remove], credentials), name)
        }
        PeerRequest::StepDown {
            to, credentials, ..
        } => {
            let entries = one("stepdown", &[Perm::LeaderOps], credentials);
            match to {
                Some(to) => about(entries, to),
                None => entries,
            }
        }
        PeerRequest::Backup { credentials, .. } => one("backup", &[Perm::Backup], credentials),
        PeerRequest::Load { credentials, .. } => one("load", &[Perm::Load], credentials),
        PeerRequest::Compare { credentials, .. } => one("compare", &[Perm::LeaderOps], credentials),
        PeerRequest::Write(writes) | PeerRequest::BoundedWrite(writes, _) => {
            writes.iter().map(written).collect()
        }
        PeerRequest::Read {
            read, credentials, ..
        } => reading(read, credentials, None),
        PeerRequest::ReadParts {
            read,
            credentials,
            client,
            ..
        } => reading(read, credentials, *client),
        PeerRequest::Meta
        | PeerRequest::RoomToVacuum
        | PeerRequest::ContentHash { .. }
        | PeerRequest::CopyDecision { .. }
        | PeerRequest::Room
        | PeerRequest::Archived { .. }
        | PeerRequest::LoggedEntries { .. } => Vec::new(),
    }
}

fn entry(action: &'static str, perms: &[Perm], credentials: Option<&Credentials>) -> Entry {
    let mut entry = Entry {
        action,
        ..Entry::default()
    };
    entry.set_permissions(perms);
    entry.set_user(credentials);
    entry
}

fn written(write: &ForwardedWrite) -> (Entry, Counts) {
    let (perms, _) = needed(write.request.kind);
    let statements = &write.request.statements;
    let counts = match write.request.kind {
        Kind::Execute | Kind::ExecutePlain => Counts {
            reads: 0,
            writes: statements.len() as u64,
        },
        _ => counts_of(statements.iter().map(|one| one.sql.as_str())),
    };
    (entry("write", perms, write.credentials.as_ref()), counts)
}

fn reading(
    read: &node_db::Read,
    credentials: &Option<Credentials>,
    client: Option<SocketAddr>,
) -> Vec<(Entry, Counts)> {
    let mut entry = entry("read", &[Perm::Query], credentials.as_ref());
    entry.client = client;
    let counts = Counts {
        reads: read.statements.len() as u64,
        writes: 0,
    };
    vec![(entry, counts)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_do_for_themselves_is_left_out() {
        let credentials = || {
            Some(Credentials {
                username: "bob".to_owned(),
                password: "hunter2".to_owned(),
            })
        };
        assert!(entries(&PeerRequest::Meta).is_empty());
        let removed = entries(&PeerRequest::Remove {
            name: "n2".to_owned(),
            credentials: credentials(),
        });
        let (entry, _) = &removed[0];
        assert_eq!(
            (entry.action, entry.permissions.as_slice()),
            ("remove", &["remove"][..])
        );
        assert_eq!(
            (entry.user.as_deref(), entry.target.as_deref()),
            (Some("bob"), Some("n2"))
        );
        let load = entries(&PeerRequest::Load {
            len_bytes: 7,
            credentials: None,
        });
        assert_eq!(
            (load[0].0.action, load[0].0.user.as_deref()),
            ("load", None)
        );
    }
}
