//! Two operators, of which one holds the Lease.
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::json;

use crate::{
    cluster::{LONG, spec},
    fixture::{Fixture, is_ready, text},
    report::Measurements,
};

/// A process that was paused for longer than its Lease lasts, and resumes while another operator is active.
pub(crate) fn two_operators(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("two-op", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        fixture.upgrade(&["replicaCount=2"])?;
        let checked = (|| {
            let pods = until("two operators", LIMIT, || {
                let pods = fixture.operator_pods()?;
                let ready = pods.iter().filter(|pod| is_ready(pod)).count();
                ensure!(pods.len() == 2 && ready == 2, "{ready} of {}", pods.len());
                Ok(pods)
            })?;
            let holder = fixture.operator_holder()?;
            let old = pods
                .iter()
                .find(|p| holder.starts_with(text(&p["metadata"]["name"])));
            let old = old.context("the Lease has no holder")?;
            let status = &old["status"]["containerStatuses"][0];
            let id = text(&status["containerID"]);
            let id = id.rsplit('/').next().unwrap_or(id);
            let machine = text(&old["spec"]["nodeName"]);
            cluster.scale(5)?;
            fixture.signal(machine, id, "STOP")?;
            let start = Instant::now();
            let taken = until("the other one to take over", LIMIT, || {
                let now = fixture.operator_holder()?;
                ensure!(now != holder && !now.is_empty(), "{now}");
                Ok(start.elapsed())
            })?;
            // It must notice that its Lease has expired before it does anything: it exits and is restarted.
            let _ = fixture.signal(machine, id, "CONT");
            let restarts = status["restartCount"].as_u64().unwrap_or_default();
            let name = text(&old["metadata"]["name"]).to_owned();
            until("the old one to have ended", LIMIT, || {
                let pods = fixture.operator_pods()?;
                let now = pods.iter().find(|p| p["metadata"]["name"] == name.as_str());
                let now = now.map_or(0, |p| {
                    p["status"]["containerStatuses"][0]["restartCount"]
                        .as_u64()
                        .unwrap_or_default()
                });
                ensure!(now > restarts, "it has restarted {now} times");
                Ok(())
            })?;
            cluster.ready(LONG)?;
            Ok::<_, anyhow::Error>(taken)
        })();
        fixture.upgrade(&["replicaCount=1"])?;
        fixture.await_operator()?;
        let taken = checked?;
        let members = cluster.configuration()?;
        ensure!(members.len() == 5, "{members:?}");
        let note = format!("taken over after {:.0} s", taken.as_secs_f64());
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
