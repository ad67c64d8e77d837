//! One RqliteCluster in its own namespace, with the changes and queries that scenarios need.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e_kubernetes::{
    command::until,
    forward::Login,
    namespace::{LIMIT, Namespace, results},
    numbered::http::Trusted,
    writer::{self, Writer},
};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, condition, is_ready, text},
    report::Measurements,
};

/// Name of the cluster in each namespace.
pub(crate) const NAME: &str = "demo";
/// Limit for changes that proceed member by member on a small machine.
pub(crate) const LONG: Duration = Duration::from_secs(300);
/// How long a test watches that nothing happens.
pub(crate) const QUIET: Duration = Duration::from_secs(20);
const HTTP_PORT: u16 = 4001;

/// The cluster of one namespace.
pub(crate) struct Cluster<'a> {
    pub(crate) fixture: &'a Fixture,
    pub(crate) namespace: &'a Namespace,
    /// Its name: [`NAME`], or that of one made from it.
    pub(crate) name: &'a str,
    /// Use HTTPS also where HTTP would do.
    pub(crate) tls: bool,
}

/// The facts about a pod that scenarios need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) machine: String,
    pub(crate) ready: bool,
    pub(crate) deleting: bool,
    pub(crate) image: String,
}

impl Fixture {
    /// Runs `work` with a namespace and a cluster of this spec that is Ready. If it fails, the state of the
    /// cluster and the operator's log are saved to files.
    pub(crate) fn cluster(
        &self,
        purpose: &str,
        spec: Value,
        work: impl FnOnce(&Cluster<'_>) -> Result<Measurements>,
    ) -> Result<Measurements> {
        self.bare(purpose, |cluster| {
            cluster.create(spec)?;
            cluster.ready(LIMIT)?;
            work(cluster)
        })
    }

    /// The same, before the cluster is created.
    pub(crate) fn bare(
        &self,
        purpose: &str,
        work: impl FnOnce(&Cluster<'_>) -> Result<Measurements>,
    ) -> Result<Measurements> {
        self.within(purpose, |namespace| {
            let cluster = Cluster {
                fixture: self,
                namespace,
                name: NAME,
                tls: false,
            };
            let done = work(&cluster);
            if done.is_err() {
                cluster.save_state();
            }
            // A namespace with a protected or finalized cluster could not be deleted.
            let args = ["delete", "rqlitecluster", "--all", "--wait=false"];
            let _ = namespace.run(&args);
            done
        })
    }
}

/// A spec for tests: delays that are minutes in production are seconds here; otherwise it is what users get.
pub(crate) fn spec(replicas: u8, more: Value) -> Value {
    let mut spec = json!({
        "replicas": replicas,
        "storage": {"size": "1Gi"},
        "update": {"minReady": "2s", "progressDeadline": "45s"},
        "memberReplacement": {"after": "5s"},
        "quorumRecovery": {"detectAfter": "5s"},
    });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

/// For [`spec`]: without TLS and users, so that whoever reaches the inter-node port may join.
pub(crate) fn open() -> Value {
    let disabled = json!({"mode": "Disabled"});
    json!({"tls": {"nodes": disabled, "clients": disabled}, "authentication": disabled})
}

impl Cluster<'_> {
    /// Creates the cluster.
    pub(crate) fn create(&self, spec: Value) -> Result<()> {
        self.create_with(json!({}), spec)
    }

    /// Creates the cluster with these annotations.
    pub(crate) fn create_with(&self, annotations: Value, spec: Value) -> Result<()> {
        let object = json!({
            "apiVersion": "rqlite.dev/v1alpha1",
            "kind": "RqliteCluster",
            "metadata": {"name": self.name, "annotations": annotations},
            "spec": spec,
        });
        self.namespace.apply(&object.to_string())
    }

    /// Patches its spec, or with `{"metadata": …}` its annotations.
    pub(crate) fn edit(&self, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let args = [
            "patch",
            "rqlitecluster",
            self.name,
            "--type=merge",
            "-p",
            &patch,
        ];
        self.namespace.run(&args).map(drop)
    }

    /// Sets the number of voters.
    pub(crate) fn scale(&self, replicas: u8) -> Result<()> {
        self.edit(&json!({"spec": {"replicas": replicas}}))
    }

    fn path(&self, group: &str, kind: &str) -> String {
        format!("{group}/namespaces/{}/{kind}", self.namespace.name)
    }

    /// The current object.
    pub(crate) fn object(&self) -> Result<Value> {
        let path = self.path("/apis/rqlite.dev/v1alpha1", "rqliteclusters");
        self.fixture.api.get(&path, self.name)
    }

    /// The current state of a recovery.
    pub(crate) fn recovery(&self, name: &str) -> Result<Value> {
        let path = self.path("/apis/rqlite.dev/v1alpha1", "rqliterecoveries");
        self.fixture.api.get(&path, name)
    }

    /// One of its StatefulSets.
    pub(crate) fn set(&self, name: &str) -> Result<Value> {
        self.fixture
            .api
            .get(&self.path("/apis/apps/v1", "statefulsets"), name)
    }

    /// An object of the core API group.
    pub(crate) fn core(&self, kind: &str, name: &str) -> Result<Value> {
        self.fixture.api.get(&self.path("/api/v1", kind), name)
    }

    /// Its PersistentVolumeClaims.
    pub(crate) fn claims(&self) -> Result<Vec<Value>> {
        let path = self.path("/api/v1", "persistentvolumeclaims");
        self.fixture.api.list(&path, "")
    }

    /// Waits until `probe` accepts the object.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&Value) -> Result<T>,
    ) -> Result<T> {
        until(what, limit, || {
            let object = self.object()?;
            probe(&object)
        })
        .map_err(|error| error.context(self.namespace.pods()))
    }

    /// Watches for this long that its pods stay the same.
    pub(crate) fn pods_stay(&self, span: Duration, pods: &BTreeMap<String, String>) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < span {
            let now = self.uids()?;
            ensure!(now == *pods, "pods change: {pods:?}, then {now:?}");
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Waits until a condition has this status and, if given, this reason; returns its message.
    pub(crate) fn until_condition(
        &self,
        kind: &str,
        status: &str,
        reason: Option<&str>,
        limit: Duration,
    ) -> Result<String> {
        let what = format!("{kind}={status} {}", reason.unwrap_or_default());
        self.until(&what, limit, |object| {
            let seen = condition(object, kind);
            let is = seen["status"] == status && reason.is_none_or(|r| seen["reason"] == r);
            ensure!(is, "{seen}");
            Ok(text(&seen["message"]).to_owned())
        })
    }

    /// Waits until it is Ready for its current generation and its nodes are ready, too.
    pub(crate) fn ready(&self, limit: Duration) -> Result<()> {
        self.until("the cluster to be Ready", limit, |object| {
            let generation = &object["metadata"]["generation"];
            let ready = condition(object, "Ready");
            ensure!(ready["status"] == "True", "{ready}");
            ensure!(
                ready["observedGeneration"] == *generation,
                "Ready is for generation {} of {generation}",
                ready["observedGeneration"]
            );
            ensure!(object["status"]["operation"].is_null(), "an operation");
            let wanted = object["spec"]["replicas"].as_u64().unwrap_or_default();
            let pods = self.voters()?;
            let ready = pods.iter().filter(|p| p.ready && !p.deleting).count();
            ensure!(
                ready as u64 == wanted,
                "{ready} of {wanted} voters' pods are ready"
            );
            Ok(())
        })
    }

    /// Pods of a pool: `voter` or `read`.
    pub(crate) fn pods(&self, pool: &str) -> Result<Vec<Pod>> {
        let labels = format!("rqlite.dev/cluster={},rqlite.dev/pool={pool}", self.name);
        let all = self
            .fixture
            .api
            .list(&self.path("/api/v1", "pods"), &labels)?;
        // Strays carry the labels, too.
        let owned = |one: &&Value| one["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet";
        let mut pods: Vec<Pod> = all.iter().filter(owned).map(pod).collect();
        pods.sort_by_key(|pod| ordinal(&pod.name));
        Ok(pods)
    }

    /// The voters' pods.
    pub(crate) fn voters(&self) -> Result<Vec<Pod>> {
        self.pods("voter")
    }

    /// The voter's pod with this ordinal.
    pub(crate) fn voter(&self, ordinal: usize) -> Result<Pod> {
        let name = format!("{}-{ordinal}", self.name);
        Ok(pod(&self.core("pods", &name)?))
    }

    /// Uids of all pods, by name.
    pub(crate) fn uids(&self) -> Result<BTreeMap<String, String>> {
        let pods = self.voters()?.into_iter().chain(self.pods("read")?);
        Ok(pods.map(|pod| (pod.name, pod.uid)).collect())
    }

    fn voters_named(&self) -> Result<Vec<String>> {
        Ok(self.voters()?.into_iter().map(|pod| pod.name).collect())
    }

    /// The leader's pod, according to the nodes.
    pub(crate) fn leader(&self) -> Result<String> {
        let names = self.voters_named()?;
        until("a leader", LIMIT, || self.leader_of(&names))
    }

    /// The leader's pod, according to any of these.
    fn leader_of(&self, pods: &[String]) -> Result<String> {
        let login = self.login()?;
        let mut said = Vec::new();
        for pod in pods {
            match self.namespace.ask(pod, &login, "/leader", None) {
                Ok(text) => {
                    let node: Value = serde_json::from_str(&text).context("read /leader")?;
                    let id = node["id"].as_str().with_context(|| text.clone())?;
                    return Ok(id.to_owned());
                }
                Err(error) => said.push(format!("{error:#}")),
            }
        }
        bail!("no leader: {said:?}")
    }

    /// A Secret of the namespace, decoded; None if there is none.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        let all = self
            .fixture
            .api
            .list(&self.path("/api/v1", "secrets"), "")?;
        let found = all.iter().find(|s| s["metadata"]["name"] == name);
        found.map(decoded).transpose()
    }

    /// The operator's own user, which may do everything; nobody in particular in a cluster without users. By
    /// HTTPS where the cluster has nothing else, or the scenario wants it.
    pub(crate) fn login(&self) -> Result<Login> {
        let field = |secret: &BTreeMap<String, String>, key: &str| secret.get(key).cloned();
        let operator = self.secret(&format!("{}-rqlite-operator", self.name))?;
        let user = operator.and_then(|s| Some((field(&s, "username")?, field(&s, "password")?)));
        let status = self.object().map(|object| object["status"].clone());
        let stage = text(&status.unwrap_or_default()["tls"]["clients"]["stage"]).to_owned();
        if !self.tls && stage != "Require" {
            return Ok(Login { user, tls: None });
        }
        let secret = self.secret(&format!("{}-rqlite-http-tls", self.name))?;
        let secret = secret.context("no certificate for clients")?;
        let trusted = Trusted {
            authorities: field(&secret, "ca.crt").context("no ca.crt")?,
            name: format!("{}-client.{}.svc", self.name, self.namespace.name),
        };
        Ok(Login {
            user,
            tls: Some(trusted),
        })
    }

    /// Sends a POST with JSON, or a GET without, to a pod's node as the operator's user.
    pub(crate) fn ask(&self, pod: &str, path: &str, json: Option<&str>) -> Result<String> {
        self.namespace.ask(pod, &self.login()?, path, json)
    }

    /// Executes one statement at a pod's node.
    pub(crate) fn execute(&self, pod: &str, sql: &str) -> Result<()> {
        let body = json!([sql]).to_string();
        let said = self.ask(pod, "/db/execute", Some(&body))?;
        ensure!(!said.contains("\"error\""), "{sql}: {said}");
        Ok(())
    }

    /// The pod of a voter that is not the leader.
    pub(crate) fn follower(&self) -> Result<String> {
        let leader = self.leader()?;
        let other = self
            .voters_named()?
            .into_iter()
            .find(|name| *name != leader);
        other.context("no voter follows")
    }

    /// A node's `/status`.
    pub(crate) fn status_of(&self, pod: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(pod, "/status", None)?)?)
    }

    /// The leader's committed configuration: Raft id and voter flag of each member, by name.
    pub(crate) fn configuration(&self) -> Result<BTreeMap<String, (String, bool)>> {
        let status = self.status_of(&self.leader()?)?;
        let members = status["store"]["raft"]["committed_configuration"]["members"].as_array();
        let members = members.with_context(|| format!("no members: {status}"))?;
        let entry = |m: &Value| {
            let id = text(&m["id"]).to_owned();
            (id, (text(&m["raft_id"]).to_owned(), m["voter"] == true))
        };
        Ok(members.iter().map(entry).collect())
    }

    /// The Raft term, according to the leader.
    pub(crate) fn term(&self) -> Result<u64> {
        let status = self.status_of(&self.leader()?)?;
        status["store"]["raft"]["term"].as_u64().context("no term")
    }

    /// Transfers leadership to this voter.
    pub(crate) fn transfer_leadership(&self, target: &str) -> Result<()> {
        let names = self.voters_named()?;
        until(&format!("{target} to lead"), LIMIT, || {
            let leader = self.leader_of(&names)?;
            if leader != target {
                let body = json!({"id": target}).to_string();
                self.ask(&leader, "/leader?wait=true", Some(&body))?;
            }
            ensure!(leader == target, "{leader} leads");
            Ok(())
        })
    }

    /// The nodes' state file.
    pub(crate) fn state(&self) -> Result<Value> {
        let map = self.core("configmaps", &format!("{}-state", self.name))?;
        Ok(serde_json::from_str(text(&map["data"]["state.json"]))?)
    }

    /// Deletes pods without waiting.
    pub(crate) fn delete_pods(&self, names: &[&str]) -> Result<()> {
        self.namespace
            .run(&[&["delete", "pod", "--wait=false"], names].concat())
            .map(drop)
    }

    /// Deletes the claims of these voters and their pods.
    pub(crate) fn lose_disks(&self, names: &[&str]) -> Result<()> {
        let claims: Vec<_> = names.iter().map(|name| format!("data-{name}")).collect();
        let claims: Vec<_> = claims.iter().map(String::as_str).collect();
        self.namespace
            .run(&[&["delete", "pvc", "--wait=false"], &claims[..]].concat())?;
        self.delete_pods(names)
    }

    /// Waits until a pod has another uid and is ready.
    pub(crate) fn await_recreated(&self, name: &str, uid: &str, limit: Duration) -> Result<()> {
        until(&format!("another {name}"), limit, || {
            let pods = self.voters()?.into_iter().chain(self.pods("read")?);
            let pod = pods.into_iter().find(|pod| pod.name == name);
            let pod = pod.context("the pod does not exist")?;
            ensure!(pod.uid != uid && pod.ready, "{pod:?}");
            Ok(())
        })
        .map_err(|error| error.context(self.namespace.pods()))
    }

    /// Starts the numbered writer.
    pub(crate) fn writer(&self) -> Result<Writer<'_>> {
        Writer::start(self.namespace, &self.url()?)
    }

    /// Starts the writer on a machine that the scenario leaves alone.
    pub(crate) fn writer_on(&self, machine: &str) -> Result<Writer<'_>> {
        Writer::start_on(self.namespace, &self.url()?, Some(machine))
    }

    /// URL of the clients' Service, by its address, without a user: for those who have a connection Secret.
    pub(crate) fn url(&self) -> Result<String> {
        let login = Login {
            user: None,
            ..self.login()?
        };
        Ok(login.url(&self.address()?))
    }

    /// Address of the clients' Service.
    pub(crate) fn address(&self) -> Result<String> {
        let service = self.core("services", &format!("{}-client", self.name))?;
        let address = text(&service["spec"]["clusterIP"]);
        ensure!(!address.is_empty(), "the Service has no address");
        // An IPv6 address stands in brackets before a port.
        Ok(match address.contains(':') {
            true => format!("[{address}]:{HTTP_PORT}"),
            false => format!("{address}:{HTTP_PORT}"),
        })
    }

    /// URLs of all nodes with the operator's user, by the cluster's DNS.
    fn urls(&self) -> Result<Vec<String>> {
        let login = self.login()?;
        let names = self.uids()?.into_keys();
        let domain = format!(
            "{}-headless.{}.svc.cluster.local",
            self.name, self.namespace.name
        );
        Ok(names
            .map(|name| login.url(&format!("{name}.{domain}:{HTTP_PORT}")))
            .collect())
    }

    /// The end of every scenario: the cluster is Ready, no acknowledged write is lost, and all nodes'
    /// databases are equal.
    pub(crate) fn verify_intact(&self, writer: Writer<'_>) -> Result<Measurements> {
        let ended = self.verify_allowing_loss(writer)?;
        ensure!(
            ended.check.lost == 0,
            "acknowledged rows are lost: {:?}",
            ended.check
        );
        Ok(Measurements::of(&ended))
    }

    /// The same without a look at each node's copy, which is a dump of the whole database: for large ones.
    pub(crate) fn verify_rows(&self, writer: Writer<'_>) -> Result<Measurements> {
        self.verify_members()?;
        let ended = writer.assert_nothing_lost(&[])?;
        Ok(Measurements::of(&ended))
    }

    /// The same, but acknowledged rows may be lost.
    pub(crate) fn verify_allowing_loss(&self, writer: Writer<'_>) -> Result<writer::WriterResult> {
        self.verify_members()?;
        writer.end(&self.urls()?)
    }

    /// The cluster is Ready, and its members are exactly its pods.
    fn verify_members(&self) -> Result<()> {
        self.ready(LONG)?;
        // Ready concerns the voters only; a read replica may still be starting.
        until(
            "every pod to be a member and every member a pod",
            LONG,
            || {
                let members: BTreeSet<_> = self.configuration()?.into_keys().collect();
                let pods: BTreeSet<_> = self.uids()?.into_keys().collect();
                ensure!(
                    members == pods,
                    "members are {members:?}, pods are {pods:?}"
                );
                Ok(())
            },
        )
    }

    /// Saves objects that a namespace's own collection does not include, and the operator's log.
    fn save_state(&self) {
        let folder = results().join(&self.namespace.name);
        let kept = fs::create_dir_all(&folder)
            .context("make a folder")
            .and_then(|()| {
                let kinds = "rqliteclusters,rqliterecoveries,rqliterestores,rqlitebackups,rqlitescheduledbackups,jobs,statefulsets,configmaps,pdb,pvc";
                let said = self.namespace.run(&["get", kinds, "-o", "yaml"]);
                let said = said.unwrap_or_else(|error| format!("{error:#}"));
                fs::write(folder.join("rqlite.yaml"), said)?;
                self.fixture.save_operator_log(&self.namespace.name)
            });
        if let Err(error) = kept {
            eprintln!("could not save everything: {error:#}");
        }
    }
}

/// The values of a Secret.
fn decoded(secret: &Value) -> Result<BTreeMap<String, String>> {
    let data = secret["data"].as_object().into_iter().flatten();
    data.map(|(key, value)| {
        let bytes = STANDARD.decode(text(value))?;
        Ok((key.clone(), String::from_utf8_lossy(&bytes).into_owned()))
    })
    .collect()
}

fn pod(object: &Value) -> Pod {
    let metadata = &object["metadata"];
    let containers = object["spec"]["containers"].as_array();
    let node = containers
        .into_iter()
        .flatten()
        .find(|c| c["name"] == "rqlited");
    Pod {
        name: text(&metadata["name"]).to_owned(),
        uid: text(&metadata["uid"]).to_owned(),
        machine: text(&object["spec"]["nodeName"]).to_owned(),
        ready: is_ready(object),
        deleting: !metadata["deletionTimestamp"].is_null(),
        image: node.map_or("", |c| text(&c["image"])).to_owned(),
    }
}

fn ordinal(name: &str) -> u32 {
    let last = name.rsplit('-').next();
    last.and_then(|digits| digits.parse().ok())
        .unwrap_or(u32::MAX)
}
