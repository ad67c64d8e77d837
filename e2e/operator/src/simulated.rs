//! Clusters of simulated nodes with a real API server, real controllers and a real operator: what kubelets
//! and nodes would say is said by the test.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    fleet::{self, NAMESPACE, machines, nodes::Nodes},
    operator_fixture::{OperatorFixture, condition},
};

/// Limit of a few reconciles on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(90);
/// Name of the label that pods of a Job have.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";
/// A time of status that kubelets write.
const SOME_TIME: &str = "2026-01-01T00:00:00Z";

/// Clusters without machines.
#[derive(Debug)]
pub struct Simulated {
    /// API server and operator.
    pub fixture: OperatorFixture,
    /// The simulated nodes.
    pub nodes: Arc<Nodes>,
    machines: JoinHandle<Result<()>>,
    runtime: Runtime,
}

impl Simulated {
    /// Starts everything; `None` if the API server's programs have not been built. The namespace has the
    /// restricted Pod Security standard.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start() -> Result<Option<Self>> {
        let Some(fixture) = OperatorFixture::start()? else {
            return Ok(None);
        };
        fixture.server.send(
            &["create"],
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}),
        )?;
        let runtime = Runtime::new().context("a runtime")?;
        let kubeconfig = fixture.api.kubeconfig("admin");
        let client = runtime.block_on(fleet::client(&kubeconfig))?;
        let nodes = Nodes::new();
        let machines = runtime.spawn(machines::simulate(client, Arc::clone(&nodes)));
        Ok(Some(Self {
            fixture,
            nodes,
            machines,
            runtime,
        }))
    }

    /// Result of a test; with the operator's log if it failed.
    ///
    /// # Errors
    /// The test's, or the simulation's.
    pub fn end(self, result: Result<()>) -> Result<()> {
        if self.machines.is_finished() {
            let ended = self.runtime.block_on(self.machines);
            return ended.context("the machines")?.context("the machines");
        }
        result.with_context(|| self.fixture.tail())
    }

    /// Runs kubectl in the namespace.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.fixture
            .server
            .run(&[&["-n", NAMESPACE], args].concat())
    }

    /// An object of the namespace.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.fixture.server.get(&[kind, name, "-n", NAMESPACE])
    }

    /// All objects of a kind with these labels.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn list(&self, kind: &str, labels: &str) -> Result<Vec<Value>> {
        let list = self
            .fixture
            .server
            .get(&[kind, "-n", NAMESPACE, "-l", labels])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Creates an object of the project's API.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn make(&self, kind: &str, name: &str, spec: &Value) -> Result<Value> {
        let object = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        self.send("create", &object)
    }

    /// Sends an object by `create`, `replace`, ….
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn send(&self, how: &str, object: &Value) -> Result<Value> {
        self.fixture.server.send(&[how, "-n", NAMESPACE], object)
    }

    /// Merges a change into an object.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn patch(&self, kind: &str, name: &str, change: &Value) -> Result<String> {
        let change = change.to_string();
        self.run(&["patch", kind, name, "--type=merge", "-p", &change])
    }

    /// Merges a change into the status of an object.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn patch_status(&self, kind: &str, name: &str, status: &Value) -> Result<String> {
        let change = json!({ "status": status }).to_string();
        let args = [
            "patch",
            kind,
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
        ];
        self.run(&[&args[..], &[&change]].concat())
    }

    /// Waits until `probe` accepts an object; its error is what the object lacks.
    ///
    /// # Errors
    /// After [`LIMIT`]; shows the last error.
    pub fn until<T>(
        &self,
        kind: &str,
        name: &str,
        mut probe: impl FnMut(&Value) -> Result<T>,
    ) -> Result<T> {
        until(&format!("{kind} {name}"), LIMIT, || {
            let object = self.get(kind, name)?;
            probe(&object)
        })
    }

    /// Waits until the status of an object has this phase, and its message these parts. Returns it.
    ///
    /// # Errors
    /// After [`LIMIT`]; shows the status.
    pub fn await_phase(
        &self,
        kind: &str,
        name: &str,
        phase: &str,
        parts: &[&str],
    ) -> Result<Value> {
        self.until(kind, name, |object| {
            let status = &object["status"];
            ensure!(status["phase"] == phase, "not {phase}: {status}");
            let message = status["message"].as_str().unwrap_or_default();
            for part in parts {
                ensure!(message.contains(part), "{part:?} is not in {message:?}");
            }
            Ok(object.clone())
        })
    }

    /// Waits until an object is gone.
    ///
    /// # Errors
    /// After [`LIMIT`]; shows it.
    pub fn await_gone(&self, kind: &str, name: &str) -> Result<()> {
        until(&format!("{kind} {name} to be gone"), LIMIT, || {
            let found = self.run(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
            ensure!(found.is_empty(), "{found}");
            Ok(())
        })
    }

    /// Waits for an event about an object whose note contains this.
    ///
    /// # Errors
    /// After [`LIMIT`]; shows the events.
    pub fn await_event(&self, about: &str, reason: &str, part: &str) -> Result<()> {
        let field = format!("--field-selector=regarding.name={about}");
        until(&format!("an event {reason} about {about}"), LIMIT, || {
            let args = ["events.events.k8s.io", "-n", NAMESPACE, &field];
            let list = self.fixture.server.get(&args)?;
            let mut all = list["items"].as_array().into_iter().flatten();
            let is_it = |event: &&Value| {
                let note = event["note"].as_str().unwrap_or_default();
                event["reason"] == reason && note.contains(part)
            };
            all.find(is_it).map(drop).with_context(|| {
                let said = |e: &Value| format!("{}: {}", e["reason"], e["note"]);
                let all = list["items"].as_array().into_iter().flatten().map(said);
                all.collect::<Vec<_>>().join("\n")
            })
        })
    }

    /// Creates a cluster of plain nodes with these further fields, and waits until it is Ready.
    ///
    /// # Errors
    /// If it does not become Ready.
    pub fn cluster(&self, name: &str, more: &Value) -> Result<Value> {
        let mut spec = fleet::plain();
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        self.make("RqliteCluster", name, &spec)?;
        self.await_ready(name)
    }

    /// Waits until a cluster is Ready for its present spec.
    ///
    /// # Errors
    /// After [`LIMIT`]; shows the condition.
    pub fn await_ready(&self, name: &str) -> Result<Value> {
        self.until("rqlitecluster", name, |object| {
            let ready = condition(object, "Ready");
            let is_now = ready["observedGeneration"] == object["metadata"]["generation"];
            ensure!(ready["status"] == "True" && is_now, "{ready}");
            Ok(object.clone())
        })
    }

    /// Pods of a cluster by name.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn pods(&self, cluster: &str) -> Result<BTreeMap<String, Value>> {
        let all = self.list("pods", &format!("rqlite.dev/cluster={cluster}"))?;
        let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
        let named = all.into_iter().map(|pod| Some((name(&pod)?, pod)));
        named.collect::<Option<_>>().context("a pod without a name")
    }

    /// Uids of the pods of a cluster by name.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn uids(&self, cluster: &str) -> Result<BTreeMap<String, Value>> {
        let pods = self.pods(cluster)?.into_iter();
        Ok(pods
            .map(|(n, pod)| (n, pod["metadata"]["uid"].clone()))
            .collect())
    }

    /// Waits for a pod of a Job that has not ended.
    ///
    /// # Errors
    /// If there is none.
    pub fn job_pod(&self, job: &str) -> Result<Value> {
        until(&format!("a pod of Job {job}"), LIMIT, || {
            let pods = self.list("pods", &format!("{JOB_LABEL}={job}"))?;
            let ended = |pod: &Value| {
                let phase = pod["status"]["phase"].as_str();
                matches!(phase, Some("Succeeded" | "Failed"))
                    || !pod["metadata"]["deletionTimestamp"].is_null()
            };
            let found = pods.into_iter().find(|pod| !ended(pod));
            found.with_context(|| {
                let job = self.run(&["get", "job", job, "-o", "yaml", "--ignore-not-found"]);
                format!("{job:?}")
            })
        })
    }

    /// Says as a kubelet that the pod of a Job has ended, and with which termination message.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn end_job_pod(&self, job: &str, container: &str, message: &str, well: bool) -> Result<()> {
        let pod = self.job_pod(job)?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let code = i32::from(!well);
        let state = json!({"terminated": {"exitCode": code, "message": message, "reason": if well { "Completed" } else { "Error" },
            "startedAt": SOME_TIME, "finishedAt": SOME_TIME}});
        let status = json!({"phase": if well { "Succeeded" } else { "Failed" }, "startTime": SOME_TIME,
            "containerStatuses": [{"name": container, "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
                "started": false, "state": state}]});
        self.patch_status("pod", name, &status).map(drop)
    }

    /// Says as a kubelet that the container of a Job's pod waits for a reason.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn job_pod_waits(&self, job: &str, container: &str, reason: &str, why: &str) -> Result<()> {
        let pod = self.job_pod(job)?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let status = json!({"phase": "Pending", "startTime": SOME_TIME,
            "containerStatuses": [{"name": container, "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "started": false, "state": {"waiting": {"reason": reason, "message": why}}}]});
        self.patch_status("pod", name, &status).map(drop)
    }
}

/// The words of a request that has to be refused.
///
/// # Errors
/// If it was accepted, or a part is not among the words.
pub fn refused(outcome: Result<impl std::fmt::Debug>, parts: &[&str]) -> Result<String> {
    let said = match outcome {
        Ok(accepted) => anyhow::bail!("accepted: {accepted:?}"),
        Err(error) => format!("{error:#}"),
    };
    for part in parts {
        ensure!(said.contains(part), "{part:?} is not in {said:?}");
    }
    Ok(said)
}
