//! What an administrator asks of the leader through another node, and what members ask each other about their copies.
use super::requests::ClusterServer;
use crate::{
    auth::Perm,
    internode::{
        client::{Answer, Ask},
        wire::Hello,
    },
    metrics::Counter,
    store::StoreError,
};

impl ClusterServer {
    pub(super) async fn administer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Remove { name, credentials } => {
                self.metrics.count(Counter::ClusterNumRemoveNodeReq);
                Answer::Done(
                    match self.authorized(credentials.as_ref(), Perm::Remove, "remove node") {
                        Ok(()) => self.store.remove_as_leader(&name).await,
                        Err(e) => Err(e),
                    },
                )
            }
            Ask::StepDown {
                to,
                wait,
                credentials,
            } => {
                self.metrics.count(Counter::ClusterNumStepdownReq);
                Answer::Done(
                    match self.authorized(credentials.as_ref(), Perm::LeaderOps, "stepdown") {
                        Ok(()) => self.store.stepdown_as_leader(to.as_deref(), wait).await,
                        Err(e) => Err(e),
                    },
                )
            }
            _ => Answer::Done(Err(StoreError::Refused(
                "not an administrator's request".into(),
            ))),
        }
    }

    pub(super) async fn about_copies(&self, ask: Ask, hello: &Hello) -> Answer {
        match ask {
            Ask::Compare { limit, credentials } => Answer::Compared(
                match self.authorized(credentials.as_ref(), Perm::LeaderOps, "compare") {
                    Ok(()) => self.store.compare_as_leader(limit).await,
                    Err(e) => Err(e),
                },
            ),
            Ask::Judgement { index } => Answer::Judgement(self.store.judgement(index, &hello.from)),
            Ask::ContentHash { index } => Answer::ContentHash(self.store.hash_at(index)),
            _ => Answer::Done(Err(StoreError::Refused("not about copies".into()))),
        }
    }
}
