//! Drills of an archive, and backups that are let go, on a real API server with the operator's own
//! permissions. No machine runs the pods: the test plays what they would say.
mod drills {
    pub(crate) mod jobs;
    pub(crate) mod letting_go;
}

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drills::{jobs, letting_go};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    objects::Objects,
    operator_fixture::{OperatorFixture, condition, events},
    product,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);
/// How long a cluster without news must stay as it is.
const CALM: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "default";

const PROOF: &str = r#"{"lineage":{"id":"l","epoch":0},"index":117,"term":2,"time":"2026-01-01T00:00:00Z","base_index":3,"entries":114,"hashes_compared":2,"bytes":8192,"integrity":"ok","seconds":4.2}"#;

pub(crate) struct Place<'a>(pub(crate) &'a Objects);

impl Place<'_> {
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        self.0.run(&[&["-n", NAMESPACE], args].concat())
    }

    fn cluster(&self) -> Result<Value> {
        self.0.get(&["rqlitecluster", "demo", "-n", NAMESPACE])
    }

    fn patch(&self, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let args = ["patch", "rqlitecluster", "demo", "--type=merge", "-p"];
        self.run(&[&args[..], &[&patch]].concat()).map(drop)
    }

    fn ask(&self, value: &str) -> Result<()> {
        self.patch(&json!({"metadata": {"annotations": {"rqlite.dev/drill-now": value}}}))
    }

    /// Waits until `BackupsProven` has this status and reason, and its message these words.
    fn proven(&self, is: &str, reason: &str, words: &str) -> Result<Value> {
        until(
            &format!("BackupsProven {is}/{reason}: {words}"),
            LIMIT,
            || {
                let cluster = self.cluster()?;
                let found = condition(&cluster, "BackupsProven");
                let message = found["message"].as_str().unwrap_or_default();
                ensure!(
                    found["status"] == is && found["reason"] == reason && message.contains(words),
                    "{found}, drill: {}",
                    cluster["status"]["archive"]["drill"]
                );
                Ok(cluster)
            },
        )
    }

    /// The Job on record, once it exists.
    fn job(&self) -> Result<Value> {
        until("the Job of a drill", LIMIT, || {
            let drill = self.cluster()?["status"]["archive"]["drill"].clone();
            let name = drill["job"].as_str().with_context(|| drill.to_string())?;
            self.0.get(&["job", name, "-n", NAMESPACE])
        })
    }

    fn jobs(&self) -> Result<Vec<Value>> {
        let list = self
            .0
            .get(&["jobs", "-n", NAMESPACE, "-l", "rqlite.dev/drill=demo"])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Asks for a drill and plays its pod.
    fn drill(&self, value: &str, succeeds: bool, says: &str) -> Result<()> {
        self.ask(value)?;
        let job = self.job()?;
        jobs::end(self, &job, "drill", succeeds, says)?;
        until("the end of the drill", LIMIT, || {
            let drill = self.cluster()?["status"]["archive"]["drill"].clone();
            ensure!(
                drill["job"].is_null() && drill["requested"] == value,
                "{drill}"
            );
            Ok(())
        })
    }
}

fn secret(place: &Place<'_>, data: &Value) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": data});
    place.0.send(&["apply", "-n", NAMESPACE], &object).map(drop)
}

/// Nothing is begun before there is something to restore; what is missing is named.
fn what_keeps_it(place: &Place<'_>) -> Result<()> {
    let cluster = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": {"name": "demo"},
        "spec": {"archive": {"target": {"s3": {"bucket": "archives", "prefix": "demo", "credentialsSecret": {"name": "keys"}}},
        "drill": {"schedule": "0 3 1 1 *", "timeZone": "Europe/Zurich", "scratch": {"size": "5Gi", "storageClassName": "fast"}}}}});
    place.0.send(&["create", "-n", NAMESPACE], &cluster)?;
    place.proven("Unknown", "NeverProven", "s3://archives/demo")?;
    ensure!(place.jobs()?.is_empty(), "a drill of nothing");
    place.ask("1")?;
    place.proven("False", "DrillFailed", "there is no Secret keys")?;
    secret(place, &json!({"access-key-id": "a"}))?;
    place.ask("2")?;
    place.proven("False", "DrillFailed", "has no key secret-access-key")?;
    ensure!(place.jobs()?.is_empty(), "a Job that could not run");
    secret(
        place,
        &json!({"access-key-id": "a", "secret-access-key": "hidden"}),
    )
}

fn failed_and_proven(place: &Place<'_>) -> Result<()> {
    place.ask("3")?;
    let job = place.job()?;
    jobs::is_modest(&job)?;
    ensure!(!job.to_string().contains("hidden"), "a secret in the Job");
    let volumes = job["spec"]["template"]["spec"]["volumes"].to_string();
    ensure!(
        volumes.contains("\"storageClassName\":\"fast\""),
        "{volumes}"
    );
    let said = r#"{"error":"000000-l/segments/7: the sum is wrong"}"#;
    jobs::end(place, &job, "drill", false, said)?;
    let failed = place.proven("False", "DrillFailed", "segments/7: the sum is wrong")?;
    let text = condition(&failed, "BackupsProven")["message"].to_string();
    ensure!(text.contains("Runbook: drill-failed"), "{text}");
    place.drill("4", true, PROOF)?;
    let proven = place.proven("True", "DrillSucceeded", "up to index 117")?;
    let drill = &proven["status"]["archive"]["drill"];
    for (key, value) in [
        ("provenIndex", json!(117)),
        ("provenTime", json!("2026-01-01T00:00:00Z")),
        ("hashesCompared", json!(2)),
        ("seconds", json!(5)),
        ("bytes", json!(8192)),
    ] {
        ensure!(drill[key] == value, "{key} in {drill}");
    }
    ensure!(
        drill["failedAt"].is_string(),
        "the failure is forgotten: {drill}"
    );
    let reported = events(place.0, NAMESPACE, "demo")?;
    for reason in ["DrillStarted", "DrillFailed", "DrillSucceeded"] {
        let found = reported.iter().any(|(reported, _)| reported == reason);
        ensure!(found, "no event {reason} in {reported:?}");
    }
    Ok(())
}

/// A cluster without news is not written.
fn calm(place: &Place<'_>) -> Result<()> {
    let version = |cluster: &Value| cluster["metadata"]["resourceVersion"].clone();
    // The clusters' own controller may still have something to say about the end of the drill.
    until("a calm cluster", LIMIT, || {
        let before = version(&place.cluster()?);
        let began = Instant::now();
        while began.elapsed() < CALM {
            let now = version(&place.cluster()?);
            ensure!(
                now == before,
                "written {:?} after the last look",
                began.elapsed()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    })
}

/// Of ended Jobs three are kept, and the archive's end is the end of all that was said about it.
fn bounded_and_forgotten(place: &Place<'_>) -> Result<()> {
    for value in ["5", "6", "7"] {
        place.drill(value, true, PROOF)?;
    }
    until("old Jobs to go", LIMIT, || {
        let jobs = place.jobs()?;
        let left = jobs.iter();
        let left = left.filter(|job| job["metadata"]["deletionTimestamp"].is_null());
        let left = left.count();
        ensure!(left == 3, "{left} Jobs");
        Ok(())
    })?;
    place.patch(&json!({"spec": {"archive": {"drill": {"schedule": "0 0 30 2 *"}}}}))?;
    place.proven("False", "InvalidSchedule", "no month has")?;
    place.patch(&json!({"spec": {"archive": null}}))?;
    until("BackupsProven to go with the archive", LIMIT, || {
        let cluster = place.cluster()?;
        ensure!(condition(&cluster, "BackupsProven").is_null(), "{cluster}");
        ensure!(cluster["status"]["archive"]["drill"].is_null(), "{cluster}");
        Ok(())
    })
}

/// `kubectl rqlite drill` asks, waits, and ends with what the drill has shown.
fn by_the_plugin(fixture: &OperatorFixture, place: &Place<'_>) -> Result<()> {
    for (succeeds, says, words) in [
        (true, PROOF, "restored up to index 117"),
        (false, r#"{"error":"access denied"}"#, "access denied"),
    ] {
        let mut command = Command::new(product::built("kubectl-rqlite")?);
        command.env("KUBECONFIG", fixture.api.kubeconfig("admin"));
        command.args(["drill", "demo", "--namespace", NAMESPACE]);
        command.stdout(std::process::Stdio::piped());
        let child = command.spawn().context("run the plugin")?;
        let job = place.job()?;
        jobs::end(place, &job, "drill", succeeds, says)?;
        let output = child.wait_with_output().context("its end")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() == succeeds,
            "{:?}: {said}",
            output.status
        );
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

fn all(fixture: &OperatorFixture) -> Result<()> {
    let place = Place(&fixture.server);
    what_keeps_it(&place)?;
    failed_and_proven(&place)?;
    calm(&place)?;
    by_the_plugin(fixture, &place)?;
    bounded_and_forgotten(&place)
}

#[test]
fn an_archive_is_proven_or_it_is_said_why_not() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    all(&fixture).with_context(|| fixture.tail())
}

#[test]
fn a_backup_whose_store_is_gone_is_let_go() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    letting_go::all(&Place(&fixture.server)).with_context(|| fixture.tail())
}

#[test]
fn the_operators_account_runs_nothing_but_backups_and_drills() -> Result<()> {
    let Some(api) = ApiServer::start()? else {
        return ApiServer::skip();
    };
    let server = api.objects()?;
    e2e_operator::operator_fixture::install(&server)?;
    jobs::only_own(&server)
}
