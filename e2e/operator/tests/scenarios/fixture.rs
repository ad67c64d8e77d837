//! The fixture of all scenarios: a Kubernetes with machines, and one operator, installed as users install it.
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{
    access::Access,
    command::{run, until},
    namespace::{Namespace, results},
    probe::Kubectl,
    provider::Provider,
};
use e2e_operator::{chart, fleet, tool};
use kube::{
    Client,
    api::{GetParams, ListParams},
    core::Request,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Runtime;

/// Namespace of the operator, and name of its release and its objects.
const NAMESPACE: &str = "rqlite-operator-e2e";
const RELEASE: &str = "rqlite-operator";
/// Limit for an operator's pod to become ready; after a kill it also waits for the dead one's Lease, 15 s.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// Limit for a machine to become NotReady, which takes 20 to 40 s.
const MACHINE_LIMIT: Duration = Duration::from_secs(90);

/// Reads objects without starting a process for each read: scenarios poll often, and share two cores with the
/// cluster.
pub(crate) struct Api {
    runtime: Runtime,
    client: Client,
}

impl Api {
    fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = Runtime::new()?;
        let client = runtime.block_on(fleet::client(kubeconfig))?;
        Ok(Self { runtime, client })
    }

    /// The object with this name below a path such as `/api/v1/namespaces/x/pods`.
    pub(crate) fn get(&self, path: &str, name: &str) -> Result<Value> {
        let request = Request::new(path).get(name, &GetParams::default())?;
        let read = self.runtime.block_on(self.client.request(request));
        read.with_context(|| format!("{path}/{name}"))
    }

    /// All objects below a path with these labels.
    pub(crate) fn list(&self, path: &str, labels: &str) -> Result<Vec<Value>> {
        let request = Request::new(path).list(&ListParams::default().labels(labels))?;
        let read: Value = self.runtime.block_on(self.client.request(request))?;
        Ok(read["items"].as_array().cloned().unwrap_or_default())
    }
}

/// The Kubernetes under test and its operator.
pub(crate) struct Fixture {
    pub(crate) kubectl: Kubectl,
    pub(crate) api: Api,
    provider: String,
    helm: PathBuf,
    kubeconfig: PathBuf,
    /// Namespaces prepared for an operator that is restricted to them; each is used once.
    prepared: Mutex<Vec<String>>,
    scope: Mutex<Vec<String>>,
}

impl Fixture {
    /// `None`, after printing a message, if there is no cluster to test on.
    pub(crate) fn new() -> Result<Option<Self>> {
        let Some(access) = Access::shared()? else {
            return Ok(None);
        };
        let kubeconfig = tool::kubeconfig().context("KUBECONFIG is not set")?;
        Ok(Some(Self {
            kubectl: access.kubectl.clone(),
            api: Api::new(&kubeconfig)?,
            provider: std::env::var("E2E_PROVIDER").unwrap_or_else(|_| "local".to_owned()),
            helm: tool::helm().context("no helm: run e2e/tools/build helm")?,
            kubeconfig,
            prepared: Mutex::default(),
            scope: Mutex::default(),
        }))
    }

    fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.env("KUBECONFIG", &self.kubeconfig);
        run(command.args(["--namespace", NAMESPACE]).args(args))
    }

    /// Installs the operator from its chart, after removing what an earlier run has left. With `E2E_SCOPED=1`
    /// it is restricted to this many namespaces created for this run, and leaves other clusters on this
    /// Kubernetes to their own operators.
    pub(crate) fn install(&self, namespaces: usize) -> Result<()> {
        self.uninstall()?;
        if std::env::var_os("E2E_SCOPED").is_some() {
            let mut prepared = self.prepared.lock();
            for _ in 0..namespaces {
                let name = Namespace::name_for("scenario")?;
                Namespace::make(&self.kubectl, &name)?;
                prepared.push(name);
            }
            let mut scope = self.scope.lock();
            scope.clone_from(&prepared);
        }
        // Definitions that an older test applied directly belong to no release.
        self.own_definitions()?;
        self.upgrade(&[])
    }

    fn own_definitions(&self) -> Result<()> {
        for name in [
            "rqliteclusters",
            "rqliterecoveries",
            "rqlitebackups",
            "rqlitescheduledbackups",
            "rqliterestores",
        ] {
            let crd = format!("customresourcedefinition/{name}.rqlite.dev");
            if self.kubectl.run(&["get", &crd, "-o", "name"]).is_err() {
                continue;
            }
            let label = "app.kubernetes.io/managed-by=Helm";
            self.kubectl.run(&["label", "--overwrite", &crd, label])?;
            let release = format!("meta.helm.sh/release-name={RELEASE}");
            let namespace = format!("meta.helm.sh/release-namespace={NAMESPACE}");
            let args = ["annotate", "--overwrite", &crd, &release, &namespace];
            self.kubectl.run(&args)?;
        }
        Ok(())
    }

    /// How to reach the API server.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Changes values of the release, as `helm upgrade` does.
    pub(crate) fn upgrade(&self, values: &[&str]) -> Result<()> {
        let chart = chart().display().to_string();
        let mut args = vec!["upgrade", "--install", RELEASE, &chart];
        args.extend(["--create-namespace", "--wait", "--timeout", "120s"]);
        let scope = self.scope()?;
        for value in values.iter().copied().chain(scope.as_deref()) {
            args.extend(["--set", value]);
        }
        self.helm(&args).map(drop)
    }

    /// Takes the release back to its revision before, as `helm rollback` does.
    pub(crate) fn roll_back(&self) -> Result<()> {
        let args = ["rollback", RELEASE, "--wait", "--timeout", "120s"];
        self.helm(&args).map(drop)
    }

    /// The operator's namespaces that still exist, as a value of the chart.
    fn scope(&self) -> Result<Option<String>> {
        let scope = self.scope.lock();
        if scope.is_empty() {
            return Ok(None);
        }
        let there = self.api.list("/api/v1/namespaces", "")?;
        let there: Vec<_> = there
            .iter()
            .filter(|n| n["metadata"]["deletionTimestamp"].is_null())
            .map(|n| text(&n["metadata"]["name"]))
            .filter(|name| scope.iter().any(|wanted| wanted == name))
            .collect();
        Ok(Some(format!("watchNamespaces={{{}}}", there.join(","))))
    }

    /// Uninstalls the operator; the definitions stay, as the chart promises.
    pub(crate) fn uninstall(&self) -> Result<()> {
        let args = ["uninstall", RELEASE, "--ignore-not-found", "--wait"];
        self.helm(&args).map(drop)
    }

    /// A namespace for a scenario: a new one, or one of those to which the operator is restricted.
    pub(crate) fn within<T>(
        &self,
        purpose: &str,
        work: impl FnOnce(&Namespace) -> Result<T>,
    ) -> Result<T> {
        let is_scoped = std::env::var_os("E2E_SCOPED").is_some();
        let prepared = || self.prepared.lock().pop();
        if !is_scoped {
            return Namespace::within(&self.kubectl, purpose, work);
        }
        let name = prepared().context("no namespace is left of those that the operator knows")?;
        Namespace::within_existing(&self.kubectl, &name, work)
    }

    /// Deletes prepared namespaces that were not used.
    pub(crate) fn clear(&self) -> Result<()> {
        let mut prepared = self.prepared.lock();
        for name in prepared.drain(..) {
            self.kubectl
                .run(&["delete", "namespace", &name, "--wait=false"])?;
        }
        Ok(())
    }

    /// Runs kubectl in the operator's namespace.
    pub(crate) fn operator(&self, args: &[&str]) -> Result<String> {
        self.kubectl
            .run(&[&["--namespace", NAMESPACE], args].concat())
    }

    /// The operator's pods.
    pub(crate) fn operator_pods(&self) -> Result<Vec<Value>> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let labels = "app.kubernetes.io/name=rqlite-operator";
        self.api.list(&path, labels)
    }

    /// Holder of the Lease.
    pub(crate) fn operator_holder(&self) -> Result<String> {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
        let lease = self.api.get(&path, RELEASE)?;
        Ok(text(&lease["spec"]["holderIdentity"]).to_owned())
    }

    /// Kills the operator at once, in the middle of its work; another one is started.
    pub(crate) fn kill_operator(&self) -> Result<()> {
        let labels = "app.kubernetes.io/name=rqlite-operator";
        let args = ["delete", "pod", "-l", labels, "--grace-period=0", "--force"];
        self.operator(&args).map(drop)
    }

    /// Waits until an operator that was not there before holds the Lease.
    pub(crate) fn await_operator(&self) -> Result<()> {
        until("the operator to be at work", READY_LIMIT, || {
            let holder = self.operator_holder()?;
            let pods = self.operator_pods()?;
            let at_work = pods.iter().any(|pod| {
                let name = text(&pod["metadata"]["name"]);
                is_ready(pod) && !name.is_empty() && holder.starts_with(name)
            });
            ensure!(at_work, "the Lease is held by {holder:?}");
            Ok(())
        })
    }

    /// The machine on which the operator runs.
    pub(crate) fn operator_machine(&self) -> Result<String> {
        let pods = self.operator_pods()?;
        let machine = pods.iter().map(|pod| text(&pod["spec"]["nodeName"]));
        let mut machine = machine.filter(|name| !name.is_empty());
        Ok(machine.next().context("no operator")?.to_owned())
    }

    /// Saves the operator's log to a file.
    pub(crate) fn save_operator_log(&self, name: &str) -> Result<()> {
        let folder = results().join(name);
        std::fs::create_dir_all(&folder)?;
        let deployment = format!("deployment/{RELEASE}");
        let args = ["logs", &deployment, "--tail=4000", "--timestamps"];
        let log = self.operator(&args);
        let log = log.unwrap_or_else(|error| format!("{error:#}"));
        std::fs::write(folder.join("operator.log"), log)?;
        Ok(())
    }

    /// Takes a machine off the network until the guard is dropped.
    pub(crate) fn cut(&self, machine: &str) -> Result<Partition> {
        let provider = self.provider()?;
        provider.cut(machine)?;
        Ok(Partition {
            provider,
            machine: machine.to_owned(),
        })
    }

    /// Makes a machine appear lost for good: takes it off the network and deletes its Node object. Restores
    /// both when the guard is dropped.
    pub(crate) fn lose_machine(&self, machine: &str) -> Result<LostMachine<'_>> {
        let args = ["get", "node", machine, "-o", "json"];
        let mut node: Value = serde_json::from_str(&self.kubectl.run(&args)?)?;
        if let Some(metadata) = node["metadata"].as_object_mut() {
            metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&key.as_str()));
        }
        let gone = LostMachine {
            fixture: self,
            node,
            cut: Some(self.cut(machine)?),
        };
        self.await_machine(machine, false)?;
        let args = ["delete", "node", machine, "--timeout=30s"];
        self.kubectl.run(&args)?;
        Ok(gone)
    }

    /// Cordons a machine until the guard is dropped.
    pub(crate) fn cordon(&self, machine: &str) -> Result<Cordon<'_>> {
        self.kubectl.run(&["cordon", machine])?;
        Ok(Cordon {
            fixture: self,
            machine: machine.to_owned(),
        })
    }

    /// The provider, which can cut machines off and restart DNS.
    pub(crate) fn provider(&self) -> Result<Box<dyn Provider>> {
        e2e_kubernetes::providers::named(&self.provider)
    }

    /// Waits until a machine is reported as ready or not ready.
    pub(crate) fn await_machine(&self, machine: &str, ready: bool) -> Result<()> {
        until(&format!("{machine} ready: {ready}"), MACHINE_LIMIT, || {
            let node = self.api.get("/api/v1/nodes", machine)?;
            ensure!(is_ready(&node) == ready, "{}", node["status"]["conditions"]);
            Ok(())
        })
    }

    /// Sends a signal to the first process of a container, from a privileged pod on the same machine.
    pub(crate) fn signal(&self, machine: &str, container: &str, signal: &str) -> Result<()> {
        let script = format!(
            "for p in /proc/[0-9]*; do if grep -q {container} $p/cgroup 2>/dev/null; then kill -{signal} ${{p#/proc/}} && echo done; fi; done"
        );
        let name = format!("signal-{}", &container[..12.min(container.len())]);
        let overrides = serde_json::json!({"spec": {
            "nodeName": machine, "hostPID": true, "restartPolicy": "Never",
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": name, "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/busybox", "sh", "-c", script],
                "securityContext": {"privileged": true},
            }],
        }})
        .to_string();
        let overrides = format!("--overrides={overrides}");
        self.operator(&[
            "run",
            &name,
            "--image=localhost/busybox:1",
            "--restart=Never",
            &overrides,
        ])?;
        let said = until("the signal to be sent", READY_LIMIT, || {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
            let pod = self.api.get(&path, &name)?;
            let phase = text(&pod["status"]["phase"]).to_owned();
            ensure!(
                ["Succeeded", "Failed"].contains(&phase.as_str()),
                "it is {phase}"
            );
            self.operator(&["logs", &name])
        });
        self.operator(&["delete", "pod", &name, "--grace-period=0", "--force"])?;
        let said = said?;
        ensure!(said.contains("done"), "no process was found: {said:?}");
        Ok(())
    }
}

/// A machine that is off the network; reconnected when dropped.
pub(crate) struct Partition {
    provider: Box<dyn Provider>,
    machine: String,
}

impl Drop for Partition {
    fn drop(&mut self) {
        if let Err(error) = self.provider.heal(&self.machine) {
            eprintln!("{} stays cut off: {error:#}", self.machine);
        }
    }
}

/// A machine whose Node object was deleted.
pub(crate) struct LostMachine<'a> {
    fixture: &'a Fixture,
    node: Value,
    cut: Option<Partition>,
}

impl LostMachine<'_> {
    /// The kubelet does not recreate the Node object while it runs, so the test does, as an administrator
    /// would.
    fn bring_back(&mut self) -> Result<()> {
        let machine = text(&self.node["metadata"]["name"]).to_owned();
        self.cut = None;
        if self.fixture.api.get("/api/v1/nodes", &machine).is_err() {
            let path = std::env::temp_dir().join(format!("{machine}.json"));
            std::fs::write(&path, self.node.to_string())?;
            let made = self
                .fixture
                .kubectl
                .run(&["create", "-f", &path.display().to_string()]);
            std::fs::remove_file(path)?;
            made?;
        }
        self.fixture.await_machine(&machine, true)
    }
}

impl Drop for LostMachine<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.bring_back() {
            eprintln!("{} stays away: {error:#}", self.node["metadata"]["name"]);
        }
    }
}

/// A cordoned machine; uncordoned when dropped.
pub(crate) struct Cordon<'a> {
    fixture: &'a Fixture,
    machine: String,
}

impl Drop for Cordon<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.fixture.kubectl.run(&["uncordon", &self.machine]) {
            eprintln!("{} stays cordoned: {error:#}", self.machine);
        }
    }
}

/// A JSON string's text; empty for any other value.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The object's condition of this type; null if it has none.
pub(crate) fn condition<'v>(object: &'v Value, kind: &str) -> &'v Value {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == kind);
    found.unwrap_or(&Value::Null)
}

/// Whether a pod or a machine is ready.
pub(crate) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready")["status"] == "True"
}
