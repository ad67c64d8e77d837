//! Answers what other nodes ask on the cluster connections: joins, notices, pledges, and work forwarded to the leader.

use std::{io, sync::Arc, time::Duration};

use node_db::{Origin, Read};
use tokio::time::timeout;

use super::{
    admission::{self, Standing, Visitor},
    forwarded::{send_read, unless_gone, via, whole},
};
use crate::{
    auth::{Auth, Perm},
    identity::{FormingRight, name_of},
    internode::{
        client::{
            Answer, Ask, ForwardedWrite, JoinAnswer, JoinAsk, Meta, Notice, NoticeState,
            WriteAnswer,
        },
        wire::{Connection, Hello, MAX_FRAME_BYTES, MAX_STRANGERS_FRAME_BYTES},
    },
    local::Local,
    metrics::{Counter, Metrics},
    raft::{
        Consensus,
        membership::{ChangeError, JoinPlan, Joiner},
    },
    store::{Credentials, ReadAnswer, ReadOptions, Store, StoreError, compare::Told},
};

/// A connection without a request for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for strangers, who also have to take each answer within it. Whoever wants to join asks at once.
const STRANGERS_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a join waits for the new member's vote before it answers: usually it is there within milliseconds, and the answer may
/// come without it.
const PROMOTION_PATIENCE: Duration = Duration::from_secs(2);

/// Serves cluster connections of one node.
#[derive(Clone, Debug)]
pub struct ClusterServer {
    /// This node.
    pub local: Arc<Local>,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// The database.
    pub store: Store,
    /// Our Raft, once open.
    pub consensus: Arc<std::sync::OnceLock<Consensus>>,
    /// This node votes.
    pub voter: bool,
    /// `-bootstrap-expect` was given: this node takes part in forming clusters.
    pub forms: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl ClusterServer {
    /// What a hello shows about who speaks.
    pub fn standing(&self, hello: &Hello) -> Standing {
        let members = self.consensus.get().map(Consensus::members);
        let is_member = |id: &str| members.iter().flatten().any(|(m, ..)| *m.0 == *id);
        let own = self.local.cluster();
        admission::standing(hello, self.local.raft_id(), own.as_ref(), is_member)
    }

    /// Answers the hello and serves requests until the connection ends.
    ///
    /// # Errors
    /// The connection broke; there is nothing to do about it.
    pub async fn serve(
        self,
        mut connection: Connection,
        hello: Hello,
        mut visitor: Visitor,
    ) -> io::Result<()> {
        connection.accepted().await?;
        loop {
            // Whoever was a stranger may have joined since.
            let standing = if visitor.is_stranger() {
                self.standing(&hello)
            } else {
                Standing::Member
            };
            let known = standing == Standing::Member && visitor.admit();
            let (limit_bytes, patience) = if known {
                (MAX_FRAME_BYTES, IDLE_TIMEOUT)
            } else {
                (MAX_STRANGERS_FRAME_BYTES, STRANGERS_IDLE_TIMEOUT)
            };
            let Ok(ask) = timeout(patience, connection.receive_within::<Ask>(limit_bytes)).await
            else {
                return Ok(());
            };
            let Some(ask) = ask? else { return Ok(()) };
            visitor.set_busy(true);
            if let Some(refusal) = self.refusal(&ask, &hello, standing) {
                return connection.send(&refusal).await;
            }
            let answer = match ask {
                Ask::Backup {
                    format,
                    credentials,
                } => {
                    return self
                        .backup(&mut connection, &hello, format, credentials)
                        .await;
                }
                Ask::Load {
                    len_bytes,
                    credentials,
                } => {
                    let allowed = self.may_load(credentials.as_ref());
                    return self
                        .load(&mut connection, len_bytes, allowed, standing)
                        .await;
                }
                // It has no effect, so nobody needs it any more.
                ask @ Ask::ReadParts { .. } => {
                    self.read_in_parts(&mut connection, &hello, ask).await?;
                    visitor.set_busy(false);
                    continue;
                }
                ask @ Ask::Read { .. } => {
                    let answer = self.answer(ask, &hello, standing);
                    match unless_gone(&mut connection, answer).await {
                        Some(answer) => answer,
                        None => return Ok(()),
                    }
                }
                ask => self.answer(ask, &hello, standing).await,
            };
            let sent = connection.send(&answer);
            if known {
                sent.await?;
            } else {
                timeout(STRANGERS_IDLE_TIMEOUT, sent)
                    .await
                    .map_err(|_| io::ErrorKind::TimedOut)??;
            }
            if matches!(answer, Answer::Meta(_)) {
                self.metrics.count(Counter::ClusterNumGetNodeApiResp);
            }
            visitor.set_busy(false);
        }
    }

    /// An address may come to belong to a node of another cluster; work meant for the former one must not land here. And what a node tells
    /// without credentials is told to no stranger, where there are credentials.
    fn refusal(&self, ask: &Ask, hello: &Hello, standing: Standing) -> Option<Answer> {
        if self.is_closed_to(standing) {
            let why = "unauthorized";
            let error = StoreError::Unauthorized(why.into());
            match ask {
                Ask::RoomToVacuum => return Some(Answer::Room(Err(error))),
                Ask::Room => return Some(Answer::Spare(Err(error))),
                Ask::ContentHash { .. } => {
                    return Some(Answer::ContentHash(Told::Never(why.into())));
                }
                Ask::Judgement { .. } => return Some(Answer::Judgement(Err(error))),
                _ => {}
            }
        }
        let (Some(theirs), Some(own)) = (&hello.cluster, self.local.cluster()) else {
            return None;
        };
        if theirs.id == own.id {
            return None;
        }
        let error = StoreError::Refused(format!(
            "the node at this address does not belong to cluster {}",
            theirs.id
        ));
        match ask {
            Ask::Meta | Ask::Join(_) | Ask::Notify(_) | Ask::Pledge { .. } | Ask::Release(_) => {
                None
            }
            Ask::Write(writes) | Ask::BoundedWrite(writes, _) => Some(Answer::Write(
                writes.iter().map(|_| Err(error.clone())).collect(),
            )),
            Ask::Read { .. } | Ask::ReadParts { .. } | Ask::Load { .. } => {
                Some(Answer::Served(Err(error)))
            }
            Ask::Backup { .. } => Some(Answer::Backup(Err(error))),
            Ask::Remove { .. } | Ask::StepDown { .. } => Some(Answer::Done(Err(error))),
            Ask::RoomToVacuum => Some(Answer::Room(Err(error))),
            Ask::ContentHash { .. } => {
                Some(Answer::ContentHash(Told::Never("another cluster".into())))
            }
            Ask::Judgement { .. } => Some(Answer::Judgement(Err(error))),
            Ask::Compare { .. } => Some(Answer::Compared(Err(error))),
            Ask::Room => Some(Answer::Spare(Err(error))),
        }
    }

    /// With `-auth`, strangers learn nothing before they show credentials.
    fn is_closed_to(&self, standing: Standing) -> bool {
        standing == Standing::Stranger && self.auth.enabled()
    }

    async fn answer(&self, ask: Ask, hello: &Hello, standing: Standing) -> Answer {
        match ask {
            Ask::Meta => {
                self.metrics.count(Counter::ClusterNumGetNodeApiReq);
                Answer::Meta(if self.is_closed_to(standing) {
                    Meta::default()
                } else {
                    self.store.meta()
                })
            }
            Ask::RoomToVacuum => Answer::Room(self.store.room_to_vacuum().await),
            ask @ (Ask::ContentHash { .. } | Ask::Judgement { .. } | Ask::Compare { .. }) => {
                self.about_copies(ask, hello).await
            }
            Ask::Join(ask) => {
                self.metrics.count(Counter::ClusterNumJoinReq);
                Answer::Join(self.join(ask, hello).await)
            }
            Ask::Notify(notice) => {
                self.metrics.count(Counter::ClusterNumNotifyReq);
                let trusted = standing != Standing::Stranger
                    || self.may_join(notice.credentials.as_ref(), true);
                if trusted {
                    self.local.note_spoken(&hello.from, hello.version);
                }
                Answer::Notify(self.notice(&notice, trusted).await)
            }
            Ask::Pledge {
                cluster,
                members,
                credentials,
            } => Answer::Done(match self.may_join(credentials.as_ref(), true) {
                true => self.pledge(&cluster, &members, hello).await,
                false => Err(StoreError::Unauthorized("unauthorized".into())),
            }),
            Ask::Release(cluster) => Answer::Done(self.release(&cluster, hello).await),
            ask @ (Ask::Remove { .. } | Ask::StepDown { .. }) => self.administer(ask).await,
            Ask::Write(writes) => self.write(writes, Vec::new()).await,
            Ask::BoundedWrite(writes, bounds) => self.write(writes, bounds).await,
            Ask::Room => Answer::Spare(self.store.spare_bytes().await),
            ask @ Ask::Read { .. } => self.read_whole(ask, hello).await,
            Ask::Backup { .. } | Ask::Load { .. } | Ask::ReadParts { .. } => Answer::Done(Err(
                StoreError::Refused("a transfer needs a connection of its own".into()),
            )),
        }
    }

    async fn read_whole(&self, ask: Ask, hello: &Hello) -> Answer {
        let Ask::Read {
            read,
            options,
            credentials,
        } = ask
        else {
            return Answer::Done(Err(StoreError::Refused("not a read".into())));
        };
        self.metrics.count(Counter::ClusterNumQueryReq);
        let origin = via(hello, &credentials);
        let answered = self.read(&read, &options, false, &credentials, origin);
        Answer::Served(answered.await.and_then(whole))
    }

    /// An error if the other side went away.
    async fn read_in_parts(
        &self,
        connection: &mut Connection,
        hello: &Hello,
        ask: Ask,
    ) -> io::Result<()> {
        let Ask::ReadParts {
            read,
            options,
            credentials,
            client,
        } = ask
        else {
            return Ok(());
        };
        self.metrics.count(Counter::ClusterNumQueryReq);
        let origin = Origin {
            client,
            ..via(hello, &credentials)
        };
        let answered = self.read(&read, &options, true, &credentials, origin);
        match unless_gone(connection, answered).await {
            Some(answered) => send_read(connection, answered).await,
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn read(
        &self,
        read: &Read,
        options: &ReadOptions,
        flows: bool,
        credentials: &Option<Credentials>,
        origin: Origin,
    ) -> Result<ReadAnswer, StoreError> {
        self.authorized(credentials.as_ref(), Perm::Query, "query")?;
        self.store
            .query_as_leader(read, options, flows, origin)
            .await
    }

    pub(super) fn authorized(
        &self,
        credentials: Option<&Credentials>,
        perm: Perm,
        what: &str,
    ) -> Result<(), StoreError> {
        if self.auth.allows(credentials, perm) {
            Ok(())
        } else {
            Err(StoreError::Unauthorized(format!(
                "remote {what} not authorized"
            )))
        }
    }

    fn may_join(&self, credentials: Option<&Credentials>, voter: bool) -> bool {
        if voter {
            self.auth.allows(credentials, Perm::Join)
        } else {
            self.auth.allows(credentials, Perm::JoinReadOnly)
        }
    }

    async fn join(&self, ask: JoinAsk, hello: &Hello) -> JoinAnswer {
        if !self.may_join(ask.credentials.as_ref(), ask.voter) {
            return JoinAnswer::Unauthorized;
        }
        let (Some(consensus), Some(own)) = (self.consensus.get(), self.local.cluster()) else {
            return JoinAnswer::NotLeader(None);
        };
        if let Some(theirs) = &ask.cluster
            && *theirs != own
        {
            return JoinAnswer::Refused(if theirs.id == own.id {
                "its data is of a lineage that a recovery has left behind; give it an empty data directory to join with".into()
            } else {
                format!(
                    "it belongs to cluster {}, not to {}; give it an empty data directory to join with",
                    theirs.id, own.id
                )
            });
        }
        // Without it a leader may have no quorum to record the move with.
        note_if_moved(&self.local, &ask.id, &ask.raft_addr);
        let leadership = consensus.leadership();
        if !leadership.mine {
            return JoinAnswer::NotLeader(leadership.addr);
        }
        let name = name_of(&ask.id);
        if let Err(reason) = consensus.may_join(name, hello.version) {
            return JoinAnswer::Refused(reason);
        }
        self.local.note_spoken(&ask.id, hello.version);
        if let Err(e) = resolve(&ask.raft_addr).await {
            return JoinAnswer::Refused(format!("failed to resolve {}: {e}", ask.raft_addr));
        }
        let joiner = Joiner {
            id: ask.id.into(),
            raft_addr: ask.raft_addr,
            voter: ask.voter,
        };
        match consensus.admit(&joiner).await {
            Ok(plan) => {
                self.count_join(&plan);
                if joiner.voter {
                    consensus
                        .wait_for_voter(&joiner.id, PROMOTION_PATIENCE)
                        .await;
                }
                JoinAnswer::Joined(own)
            }
            Err(ChangeError::NotLeader) => JoinAnswer::NotLeader(consensus.leadership().addr),
            Err(ChangeError::Refused(reason)) => JoinAnswer::Refused(reason),
            Err(ChangeError::Unknown(reason)) => {
                tracing::warn!(target: "cluster", "join of {}: {reason}", joiner.id);
                JoinAnswer::NotLeader(None)
            }
        }
    }

    fn count_join(&self, plan: &JoinPlan) {
        match plan {
            JoinPlan::Nothing => self.metrics.count(Counter::StoreNumIgnoredJoins),
            JoinPlan::Record => self.metrics.count(Counter::StoreNumJoins),
            JoinPlan::Admit { replace } => {
                self.metrics.count(Counter::StoreNumJoins);
                if !replace.is_empty() {
                    self.metrics.count(Counter::StoreNumRemovedBeforeJoins);
                }
            }
            JoinPlan::Ask(_) | JoinPlan::Refuse(_) => {}
        }
    }

    /// What this node says of itself to those that want to form a cluster.
    async fn notice(&self, asked: &Notice, trusted: bool) -> Notice {
        if self.may_join(asked.credentials.as_ref(), true) {
            note_member(&self.local, asked);
        }
        let identity = self.local.identity();
        let initialized = match self.consensus.get() {
            Some(consensus) => consensus.is_initialized().await.unwrap_or(true),
            // Not open yet: what is on disk is not known, so nothing may be built on its being empty.
            None => true,
        };
        let state = if initialized {
            NoticeState::Member
        } else if !self.voter
            || !self.forms
            || matches!(identity.forming_right(), FormingRight::JoinOnly(_))
            || !self.may_join(asked.credentials.as_ref(), true)
        {
            NoticeState::Bystander
        } else {
            NoticeState::Empty {
                pledged: identity.pledged.clone(),
            }
        };
        let (id, raft_addr) = if trusted {
            (identity.raft_id(), self.local.raft_addr.clone())
        } else {
            Default::default()
        };
        Notice {
            id,
            raft_addr,
            state,
            credentials: None,
        }
    }

    /// Only a node without log and vote pledges, only for a set that it is part of, and only to the one that coordinates it.
    async fn pledge(
        &self,
        cluster: &crate::identity::Cluster,
        members: &[String],
        hello: &Hello,
    ) -> Result<(), StoreError> {
        let refuse = |text: &str| Err(StoreError::Refused(text.into()));
        let Some(consensus) = self.consensus.get() else {
            return Err(StoreError::NotOpen);
        };
        if members.first() != Some(&hello.from)
            || !members.iter().any(|m| m == self.local.raft_id())
        {
            return refuse("not a forming that this node is part of");
        }
        if consensus
            .is_initialized()
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?
            && self.local.cluster().as_ref() != Some(cluster)
        {
            return refuse("this node already belongs to a cluster");
        }
        self.local
            .pledge(cluster, members)
            .map_err(|e| StoreError::Refused(e.to_string()))
    }

    async fn release(
        &self,
        cluster: &crate::identity::Cluster,
        hello: &Hello,
    ) -> Result<(), StoreError> {
        let Some(consensus) = self.consensus.get() else {
            return Err(StoreError::NotOpen);
        };
        let identity = self.local.identity();
        let coordinator = identity.pledged.as_ref().and_then(|p| p.first());
        let initialized = consensus.is_initialized().await.unwrap_or(true);
        if initialized
            || identity.cluster.as_ref() != Some(cluster)
            || coordinator != Some(&hello.from)
        {
            return Ok(());
        }
        self.local
            .release()
            .map_err(|e| StoreError::Refused(e.to_string()))
    }

    /// `bounds` are of as many writes as have any.
    async fn write(&self, mut writes: Vec<ForwardedWrite>, bounds: Vec<node_db::Bounds>) -> Answer {
        for (write, bounds) in writes.iter_mut().zip(bounds) {
            write.request.rules = node_db::Rules::V2(bounds);
        }
        Answer::Write(self.write_all(writes).await)
    }

    async fn write_all(&self, writes: Vec<ForwardedWrite>) -> Vec<Result<WriteAnswer, StoreError>> {
        self.metrics.count(counter_of(&writes));
        let denied: Vec<Option<StoreError>> = writes.iter().map(|w| self.write_denied(w)).collect();
        let allowed = writes
            .into_iter()
            .zip(&denied)
            .filter(|(_, d)| d.is_none())
            .map(|(w, _)| w.request)
            .collect::<Vec<_>>();
        let mut answers = if allowed.is_empty() {
            Vec::new()
        } else {
            self.store.write_as_leader(allowed).await
        }
        .into_iter();
        denied
            .into_iter()
            .map(|denied| match denied {
                Some(e) => Err(e),
                None => answers
                    .next()
                    .unwrap_or_else(|| Err(StoreError::Unknown("no answer for this write".into()))),
            })
            .collect()
    }

    fn write_denied(&self, write: &ForwardedWrite) -> Option<StoreError> {
        let credentials = write.credentials.as_ref();
        let checked = match write.request.kind {
            node_db::Kind::Execute | node_db::Kind::ExecutePlain => {
                self.authorized(credentials, Perm::Execute, "Execute")
            }
            node_db::Kind::Query => self.authorized(credentials, Perm::Query, "query"),
            node_db::Kind::Unified | node_db::Kind::UnifiedPlain => self
                .authorized(credentials, Perm::Query, "Request")
                .and_then(|()| self.authorized(credentials, Perm::Execute, "Request")),
        };
        checked.err()
    }
}

/// Notes where a fellow member says it is.
pub fn note_member(local: &Local, notice: &Notice) {
    if notice.state == NoticeState::Member {
        note_if_moved(local, &notice.id, &notice.raft_addr);
    }
}

/// A fellow member that is not where the membership says is noted, so that Raft finds it before a leader can record the change.
fn note_if_moved(local: &Local, id: &str, raft_addr: &str) {
    let moved = id != local.raft_id()
        && local.moved_to(id).as_deref() != Some(raft_addr)
        && local
            .recorded(id)
            .is_some_and(|recorded| recorded != raft_addr);
    if moved {
        tracing::info!(target: "cluster", "member {} has moved to {raft_addr}", name_of(id));
        local.note_moved(id, raft_addr);
    }
}

async fn resolve(address: &str) -> io::Result<()> {
    match tokio::net::lookup_host(address).await?.next() {
        Some(_) => Ok(()),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "no such host")),
    }
}

/// rqlite counts the two endpoints apart.
fn counter_of(writes: &[ForwardedWrite]) -> Counter {
    let is_unified = |write: &ForwardedWrite| {
        matches!(
            write.request.kind,
            node_db::Kind::Unified | node_db::Kind::UnifiedPlain
        )
    };
    if writes.iter().any(is_unified) {
        Counter::ClusterNumRequestReq
    } else {
        Counter::ClusterNumExecuteReq
    }
}
