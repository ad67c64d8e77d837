//! What is known of a cluster and its drills.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::RqliteCluster;

use crate::{
    backups::job_seen::{JobRef, JobSeen},
    cluster::facts::observation::LeaderSeen,
};

/// What is known.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The time.
    pub now: Time,
    /// The cluster.
    pub cluster: &'a RqliteCluster,
    /// The Job on record.
    pub job: Option<JobSeen>,
    /// Ended Jobs of this cluster's drills, the newest first.
    pub ended: &'a [JobRef],
    /// Drills of other clusters that run.
    pub others: usize,
    /// The leader as last confirmed.
    pub leader: Option<&'a LeaderSeen>,
    /// The operator's default image, for a cluster that has none on record.
    pub node_image: &'a str,
    /// Does the platform give pods their users?
    pub assigns_users: bool,
}
