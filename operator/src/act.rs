//! Executes the one action of a plan. Every action either names the uid of the observed object or is
//! idempotent.
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{
        DeleteParams, EvictParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
    },
};
use node_contract::RestoreRequest;
use operator_api::{RqliteCluster, names};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{fmt::Debug, sync::Arc, time::Duration};

use crate::{
    carried::{Checks, Restores},
    cluster::{
        Action,
        action::RequiredAbsence,
        deciders::recovery::{self, NamedRecovery},
        facts::observation::DatabaseCheck,
        plan::PodLabels,
    },
    error::Error,
    live::{Live, named},
    node_client::{CheckStart, NodeClient},
    observe::Addressing,
};

/// Result of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// The action is done, or was already done.
    Done,
    /// The action is not possible at the moment, for this temporary reason.
    Deferred(String),
}

/// Executes actions on one cluster.
pub struct Actor<'a, N> {
    /// Client of the API server.
    pub client: &'a Client,
    /// Client of the nodes.
    pub nodes: &'a N,
    /// How nodes are addressed.
    pub addressing: Addressing,
    /// DNS domain of the Kubernetes cluster, for a cluster whose status has none.
    pub domain: &'a str,
    /// The cluster as observed.
    pub cluster: &'a RqliteCluster,
    /// The observed objects.
    pub live: &'a Live,
    /// Where results of database checks are stored.
    pub checks: &'a Checks,
    /// Where the leaders' reports about restores in place are stored.
    pub restores: &'a Restores,
}

impl<N: NodeClient> Actor<'_, N> {
    /// Executes the action.
    ///
    /// # Errors
    /// The action was refused, or its outcome is unknown.
    pub async fn act(&self, action: &Action) -> Result<ActionOutcome, Error> {
        match action {
            Action::ReleaseFinalizer => set_finalizer(self.client, self.cluster, false)
                .await
                .map(|_| ActionOutcome::Done),
            Action::DeleteStatefulSet { name, uid, orphan } => {
                let policy = if *orphan {
                    PropagationPolicy::Orphan
                } else {
                    PropagationPolicy::Background
                };
                self.delete::<StatefulSet>(name, uid, Some(policy)).await
            }
            Action::DeleteClaim { name, uid } => {
                self.delete::<PersistentVolumeClaim>(name, uid, None).await
            }
            Action::DeletePod { name, uid } => self.delete::<Pod>(name, uid, None).await,
            Action::EvictPod { name, uid } => self.evict(name, uid).await,
            Action::SetReplicas {
                name,
                uid,
                from,
                to,
                absent,
            } => {
                if let Some(absent) = absent {
                    self.confirm_absent(absent).await?;
                }
                self.set_replicas(name, uid, *from, *to).await
            }
            Action::ExpandClaim { name, uid, size } => {
                let change = json!({"metadata": {"uid": uid},
                    "spec": {"resources": {"requests": {"storage": size}}}});
                self.patch::<PersistentVolumeClaim>(name, change).await
            }
            Action::TransferLeader { from, to } => self.transfer(from, to).await,
            Action::RemoveMember {
                leader,
                name,
                raft_id,
            } => self.remove(leader, name, raft_id).await,
            Action::CheckMember {
                name,
                raft_id,
                id,
                limit_seconds,
                as_leader,
            } => {
                let limit = Duration::from_secs(*limit_seconds);
                self.check(name, raft_id, id, limit, *as_leader).await
            }
            Action::EndCheck { name, id } => self.end_check(name, id).await,
            Action::Restore {
                leader,
                raft_id,
                term,
                request,
            } => self.restore(leader, raft_id, *term, request).await,
            Action::CreateRecovery {
                name,
                accept_data_loss,
                reason,
            } => self.create_recovery(name, *accept_data_loss, reason).await,
        }
    }

    /// Sets labels on a pod, unless it has been replaced since.
    ///
    /// # Errors
    /// The API server refused the change.
    pub async fn label(&self, labels: &PodLabels) -> Result<(), Error> {
        let change = json!({"metadata": {"uid": labels.uid, "labels": labels.labels}});
        match self.patch::<Pod>(&labels.pod, change).await {
            Err(error) if error.class() == crate::error::Class::Conflict => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sets the cluster's label on a claim that one of its pods uses.
    ///
    /// # Errors
    /// The API server refused the change.
    pub async fn label_claim(&self, name: &str) -> Result<(), Error> {
        let labels = json!({names::CLUSTER_LABEL: self.cluster.name_any()});
        let change = json!({"metadata": {"labels": labels}});
        match self.patch::<PersistentVolumeClaim>(name, change).await {
            Err(error) if error.class() == crate::error::Class::Conflict => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes the cluster the owner of an object that a person created for it, so that it is deleted with the
    /// cluster. Bound to the version that was read, because the whole list of owners is written.
    ///
    /// # Errors
    /// The API server refused the change.
    pub async fn own<K>(&self, all: &[Arc<K>], object: &NamedRecovery) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let known = named(all, &object.name);
        let known = known.filter(|one| one.meta().uid.as_ref() == Some(&object.uid));
        let (Some(known), Some(owner)) = (known, recovery::owner(self.cluster)) else {
            return Ok(());
        };
        let mut owners = known.owner_references().to_vec();
        owners.push(owner);
        let change = json!({"metadata": {"uid": object.uid,
            "resourceVersion": known.resource_version(), "ownerReferences": owners}});
        tolerated(self.patch::<K>(&object.name, change).await)
    }

    /// Deletes a recovery or restore that ended long ago.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn delete_ended<K>(&self, object: &NamedRecovery) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        tolerated(self.delete::<K>(&object.name, &object.uid, None).await)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let namespace = self.cluster.namespace().unwrap_or_default();
        Api::namespaced(self.client.clone(), &namespace)
    }

    async fn delete<K>(
        &self,
        name: &str,
        uid: &str,
        policy: Option<PropagationPolicy>,
    ) -> Result<ActionOutcome, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let params = DeleteParams {
            propagation_policy: policy,
            ..only(uid)
        };
        match self.api::<K>().delete(name, &params).await {
            Ok(_) => Ok(ActionOutcome::Done),
            // Already deleted.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(ActionOutcome::Done),
            Err(error) => {
                let doing = format!("deleting {} {name}", K::kind(&()));
                Err(Error::kubernetes(doing)(error))
            }
        }
    }

    async fn evict(&self, name: &str, uid: &str) -> Result<ActionOutcome, Error> {
        let params = EvictParams {
            delete_options: Some(only(uid)),
            post_options: PostParams::default(),
        };
        match self.api::<Pod>().evict(name, &params).await {
            Ok(_) => Ok(ActionOutcome::Done),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(ActionOutcome::Done),
            Err(kube::Error::Api(status)) if status.code == 429 => {
                Ok(ActionOutcome::Deferred(format!(
                    "a PodDisruptionBudget does not allow the eviction of {name} now: {}",
                    status.message
                )))
            }
            Err(error) => Err(Error::kubernetes(format!("evicting {name}"))(error)),
        }
    }

    /// Confirms with the leader, immediately before a pod is removed, that the pod is not a member.
    async fn confirm_absent(&self, absent: &RequiredAbsence) -> Result<(), Error> {
        let (leader, member) = (&absent.leader, &absent.member);
        let address = self.address(leader)?;
        let response = self.nodes.status(&address).await;
        let status = response.map_err(|failure| Error::Node {
            doing: format!("asking {leader} whether {member} is removed"),
            failure,
        })?;
        if !absent.is_proven_by(&status) {
            return Err(Error::Changed(format!("the configuration of {leader}")));
        }
        Ok(())
    }

    async fn set_replicas(
        &self,
        name: &str,
        uid: &str,
        from: i32,
        to: i32,
    ) -> Result<ActionOutcome, Error> {
        let set = named(&self.live.sets, name).filter(|set| {
            set.uid().as_deref() == Some(uid)
                && set.spec.as_ref().and_then(|spec| spec.replicas) == Some(from)
        });
        let Some(set) = set else {
            return Err(Error::Changed(format!("StatefulSet {name}")));
        };
        // Bound to the resourceVersion: two writers (operators, or an autoscaler) must not both start from
        // the same number.
        let noted = json!({names::REPLICAS_SET_ANNOTATION: to.to_string()});
        let change = json!({
            "metadata": {"uid": uid, "resourceVersion": set.resource_version(), "annotations": noted},
            "spec": {"replicas": to}});
        self.patch::<StatefulSet>(name, change).await
    }

    async fn patch<K>(&self, name: &str, change: Value) -> Result<ActionOutcome, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patched = self
            .api::<K>()
            .patch(name, &params, &Patch::Merge(change))
            .await;
        patched
            .map(|_| ActionOutcome::Done)
            .map_err(Error::kubernetes(format!(
                "changing {} {name}",
                K::kind(&())
            )))
    }

    fn address(&self, pod: &str) -> Result<String, Error> {
        let found = named(&self.live.pods, pod);
        found
            .and_then(|pod| self.addressing.address(self.cluster, self.domain, pod))
            .ok_or_else(|| Error::Changed(format!("the pod {pod}")))
    }

    async fn transfer(&self, from: &str, to: &str) -> Result<ActionOutcome, Error> {
        let address = self.address(from)?;
        let moved = self.nodes.transfer_leader(&address, to).await;
        moved
            .map(|()| ActionOutcome::Done)
            .map_err(|failure| Error::Node {
                doing: format!("asking {from} to transfer leadership to {to}"),
                failure,
            })
    }

    /// The node's API removes members by name. If another incarnation has joined under that name since,
    /// nothing is removed.
    async fn remove(
        &self,
        leader: &str,
        name: &str,
        raft_id: &str,
    ) -> Result<ActionOutcome, Error> {
        let address = self.address(leader)?;
        let failed = |failure| Error::Node {
            doing: format!("asking {leader} to remove {name}"),
            failure,
        };
        let status = self.nodes.status(&address).await.map_err(failed)?;
        let is_there = status.config.iter().any(|m| m.raft_id == raft_id);
        // A member that follows the one to be removed passes the request on to it.
        let leads = status.is_leader || status.leader.as_deref() == Some(name);
        if !leads || !is_there {
            return Err(Error::Changed(format!("the configuration of {leader}")));
        }
        let removed = self.nodes.remove(&address, name).await;
        removed.map(|()| ActionOutcome::Done).map_err(failed)
    }
}

impl<N: NodeClient> Actor<'_, N> {
    async fn check(
        &self,
        name: &str,
        raft_id: &str,
        id: &str,
        limit: Duration,
        as_leader: bool,
    ) -> Result<ActionOutcome, Error> {
        let address = self.address(name)?;
        let failed = |failure| Error::Node {
            doing: format!("checking the database of {name}"),
            failure,
        };
        let status = self.nodes.status(&address).await.map_err(failed)?;
        if status.raft_id != raft_id || (as_leader && !status.is_leader) {
            return Err(Error::Changed(format!("the data of {name}")));
        }
        if as_leader {
            let read = self.nodes.read_as_leader(&address).await;
            read.map_err(failed)?;
        }
        let started = self.nodes.start_check(&address, id, limit).await;
        match started.map_err(failed)? {
            CheckStart::Started => Ok(ActionOutcome::Done),
            CheckStart::Busy(text) => Ok(ActionOutcome::Deferred(text)),
            CheckStart::Unsupported => {
                let fault = self.nodes.check_now(&address).await;
                let checked = DatabaseCheck {
                    raft_id: raft_id.to_owned(),
                    id: id.to_owned(),
                    fault: fault.map_err(failed)?,
                };
                self.checks.note(self.cluster, name, checked);
                Ok(ActionOutcome::Done)
            }
        }
    }

    async fn end_check(&self, name: &str, id: &str) -> Result<ActionOutcome, Error> {
        let address = self.address(name)?;
        let ended = self.nodes.end_check(&address, id).await;
        ended
            .map(|()| ActionOutcome::Done)
            .map_err(|failure| Error::Node {
                doing: format!("ending the check {id} of {name}"),
                failure,
            })
    }

    /// Requests a restore from the leader, if it still leads in the same term: another process may not know
    /// of an earlier request.
    async fn restore(
        &self,
        leader: &str,
        raft_id: &str,
        term: u64,
        request: &RestoreRequest,
    ) -> Result<ActionOutcome, Error> {
        let address = self.address(leader)?;
        let failed = |failure| Error::Node {
            doing: format!("asking {leader} for a restore"),
            failure,
        };
        let status = self.nodes.status(&address).await.map_err(failed)?;
        if status.raft_id != raft_id || status.term != term || !status.is_leader {
            return Err(Error::Changed(format!("the leadership of {leader}")));
        }
        let state = self.nodes.restore(&address, request).await;
        let uid = self.cluster.uid().unwrap_or_default();
        let id = request.id.as_deref().unwrap_or_default();
        self.restores.note(&uid, id, state.map_err(failed)?);
        Ok(ActionOutcome::Done)
    }

    async fn create_recovery(
        &self,
        name: &str,
        accept_data_loss: bool,
        reason: &str,
    ) -> Result<ActionOutcome, Error> {
        let recovery = recovery::object(self.cluster, name, accept_data_loss, reason);
        let made = self.api().create(&PostParams::default(), &recovery).await;
        match made {
            Ok(_) => Ok(ActionOutcome::Done),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                Ok(ActionOutcome::Done)
            }
            Err(error) => Err(Error::kubernetes(format!("creating RqliteRecovery {name}"))(error)),
        }
    }
}

/// Owner references and the deletion of ended objects are not worth a failed reconcile: the next one tries a
/// changed object again, and roles of an earlier version do not have the permission yet.
fn tolerated(outcome: Result<ActionOutcome, Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.class() == crate::error::Class::Conflict => Ok(()),
        Err(error) if error.is_forbidden() => {
            tracing::warn!("{error}; does the operator's role have the rules of this version?");
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Parameters that delete only the object with this uid.
fn only(uid: &str) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

/// Adds or removes the finalizer of a cluster; returns the updated object.
///
/// # Errors
/// The object has changed, or the API server refused the change.
pub async fn set_finalizer(
    client: &Client,
    cluster: &RqliteCluster,
    on: bool,
) -> Result<RqliteCluster, Error> {
    let mut finalizers = cluster.finalizers().to_vec();
    let is_on = finalizers.iter().any(|f| f == names::FINALIZER);
    if is_on == on {
        return Ok(cluster.clone());
    }
    if on {
        finalizers.push(names::FINALIZER.to_owned());
    } else {
        finalizers.retain(|f| f != names::FINALIZER);
    }
    write_finalizers(client, cluster, &finalizers).await
}

/// Removes other finalizers of a cluster; returns the updated object.
///
/// # Errors
/// The object has changed, or the API server refused the change.
pub async fn drop_finalizers(
    client: &Client,
    cluster: &RqliteCluster,
    dropped: &[&str],
) -> Result<RqliteCluster, Error> {
    let mut finalizers = cluster.finalizers().to_vec();
    finalizers.retain(|f| !dropped.contains(&f.as_str()));
    tracing::info!(
        ?dropped,
        "stops the garbage collector: the cluster is protected"
    );
    write_finalizers(client, cluster, &finalizers).await
}

async fn write_finalizers(
    client: &Client,
    cluster: &RqliteCluster,
    finalizers: &[String],
) -> Result<RqliteCluster, Error> {
    let change = json!({"metadata": {
        "uid": cluster.uid(), "resourceVersion": cluster.resource_version(), "finalizers": finalizers}});
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<RqliteCluster> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = cluster.name_any();
    api.patch(&name, &params, &Patch::Merge(change))
        .await
        .map_err(Error::kubernetes(format!("the finalizer of {name}")))
}
