//! A real S3 server in a scenario's namespace: versitygw, whose objects are files on a volume; and what is in
//! them, by the product's own commands and by SQLite.
use std::{collections::BTreeSet, io::Read, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e_kubernetes::{command::until, namespace::LIMIT, tools};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    cluster::Cluster,
    fixture::{Fixture, text},
};

/// The only bucket.
pub(crate) const BUCKET: &str = "backups";
/// The Secret with the credentials.
const SECRET: &str = "store";
/// Name of the server's objects.
const NAME: &str = "objects";
/// The server's own key.
const KEY: &str = "a-key-of-twenty-bytes";
const PORT: u16 = 7070;
/// The files of the bucket in the server's pod.
const FOLDER: &str = "/data/objects/backups";

/// Server, Service, volume and Secret, within the restricted Pod Security standard.
fn objects() -> String {
    let safe = "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}";
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {SECRET}}}
stringData: {{access-key-id: AKIASTORE, secret-access-key: {KEY}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {NAME}}}
spec: {{selector: {{app: {NAME}}}, ports: [{{port: {PORT}}}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {NAME}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {NAME}}}
spec:
  replicas: 1
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{app: {NAME}}}}}
  template:
    metadata: {{labels: {{app: {NAME}}}}}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 2
      securityContext: {{runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {{type: RuntimeDefault}}}}
      initContainers:
      - name: bucket
        image: localhost/object-server:1
        imagePullPolicy: IfNotPresent
        command: [mkdir, -p, {FOLDER}, /data/about]
        securityContext: {safe}
        volumeMounts: [{{name: data, mountPath: /data}}]
      containers:
      - name: server
        image: localhost/object-server:1
        imagePullPolicy: IfNotPresent
        args: [--port, ':{PORT}', --quiet, --health, /healthz, posix, --sidecar, /data/about, /data/objects]
        env:
        - {{name: ROOT_ACCESS_KEY, valueFrom: {{secretKeyRef: {{name: {SECRET}, key: access-key-id}}}}}}
        - {{name: ROOT_SECRET_KEY, valueFrom: {{secretKeyRef: {{name: {SECRET}, key: secret-access-key}}}}}}
        readinessProbe: {{httpGet: {{path: /healthz, port: {PORT}}}, periodSeconds: 1}}
        securityContext: {safe}
        volumeMounts: [{{name: data, mountPath: /data}}, {{name: tmp, mountPath: /tmp}}]
      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: {NAME}}}}}
      - {{name: tmp, emptyDir: {{}}}}
"
    )
}

/// Loads the image onto the machines, once.
fn load(fixture: &Fixture) -> Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let loaded = tools::folder("object-server").and_then(|folder| {
            let provider = fixture.provider()?;
            provider.load(&folder.join("object-server.tar"))
        });
        loaded.map_err(|error| format!("{error:#}"))
    });
    loaded.clone().map_err(anyhow::Error::msg)
}

/// The server of one namespace.
pub(crate) struct Store<'c, 'f> {
    cluster: &'c Cluster<'f>,
}

/// What a file of a backup holds.
#[derive(Debug)]
pub(crate) struct Held {
    /// Numbers of the writer's rows.
    pub(crate) rows: BTreeSet<u64>,
    /// SHA-256 of the database file, unpacked.
    pub(crate) sha256: String,
}

impl<'c, 'f> Store<'c, 'f> {
    /// Starts the server in the cluster's namespace.
    pub(crate) fn start(cluster: &'c Cluster<'f>) -> Result<Self> {
        load(cluster.fixture)?;
        cluster.namespace.apply(&objects())?;
        let store = Self { cluster };
        store.await_ready()?;
        Ok(store)
    }

    fn await_ready(&self) -> Result<()> {
        let deployment = format!("deployment/{NAME}");
        self.cluster.namespace.rolled_out(&deployment, LIMIT)
    }

    /// A target below this prefix, for the operator's objects.
    pub(crate) fn target(&self, prefix: &str) -> Value {
        json!({"s3": {"bucket": BUCKET, "prefix": prefix, "endpoint": self.endpoint(),
            "credentialsSecret": {"name": SECRET}}})
    }

    fn endpoint(&self) -> String {
        let namespace = &self.cluster.namespace.name;
        format!("http://{NAME}.{namespace}.svc.cluster.local:{PORT}")
    }

    /// Stops the server: nobody reaches the store, what it holds stays.
    pub(crate) fn stop(&self) -> Result<()> {
        let namespace = self.cluster.namespace;
        let deployment = format!("deployment/{NAME}");
        namespace.run(&["scale", &deployment, "--replicas=0"])?;
        until("the server to be gone", LIMIT, || {
            let label = format!("app={NAME}");
            let pods = namespace.run(&["get", "pods", "-l", &label, "-o", "name"])?;
            ensure!(pods.is_empty(), "{pods}");
            Ok(())
        })
    }

    /// Starts it again.
    pub(crate) fn resume(&self) -> Result<()> {
        let deployment = format!("deployment/{NAME}");
        let namespace = self.cluster.namespace;
        namespace.run(&["scale", &deployment, "--replicas=1"])?;
        self.await_ready()
    }

    fn in_server(&self, args: &[&str]) -> Result<String> {
        let deployment = format!("deploy/{NAME}");
        let all = [&["exec", &deployment, "-c", "server", "--"], args].concat();
        self.cluster.namespace.run(&all)
    }

    /// Names of all objects below a prefix.
    pub(crate) fn names(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let found = self.in_server(&["find", FOLDER, "-type", "f"])?;
        let below = found.lines().filter_map(|path| {
            let name = path.strip_prefix(FOLDER)?.trim_start_matches('/');
            name.starts_with(prefix).then(|| name.to_owned())
        });
        // What is being uploaded has a hidden folder.
        Ok(below.filter(|name| !name.starts_with('.')).collect())
    }

    /// The bytes of an object.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let said = self.in_server(&["base64", "-w", "0", &format!("{FOLDER}/{name}")])?;
        STANDARD.decode(said.trim()).context("base64")
    }

    /// Overwrites a few bytes in the middle of an object, as a failing disk does.
    pub(crate) fn damage(&self, name: &str) -> Result<()> {
        let path = format!("{FOLDER}/{name}");
        let script = format!(
            "chmod u+w '{path}'; half=$(($(wc -c < '{path}') / 2)); printf 'DAMAGED' | dd of='{path}' bs=1 seek=$half conv=notrunc 2>/dev/null"
        );
        let before = self.bytes(name)?;
        self.in_server(&["sh", "-c", &script])?;
        ensure!(before != self.bytes(name)?, "{name} was not damaged");
        Ok(())
    }

    /// A backup's file from the bucket, unpacked and opened.
    pub(crate) fn backup(&self, name: &str) -> Result<Held> {
        let bytes = self.bytes(name)?;
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut unpacked)
            .with_context(|| format!("unpack {name}"))?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &unpacked)?;
        let database = Connection::open(file.path())?;
        let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure!(check == "ok", "{name}: {check}");
        let mut all = database.prepare("SELECT n FROM numbered")?;
        let rows = all.query_map([], |row| row.get::<_, i64>(0))?;
        Ok(Held {
            rows: rows
                .map(|row| Ok(u64::try_from(row?)?))
                .collect::<Result<_>>()?,
            sha256: Sha256::digest(&unpacked)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        })
    }

    /// Runs one of the node's commands in a pod, with this configuration of the store; returns its output.
    pub(crate) fn command(&self, name: &str, prefix: &str, args: &[&str]) -> Result<String> {
        let config = json!({"version": 1, "type": "s3", "sub": {"bucket": BUCKET, "path": prefix, "region": "us-east-1",
            "endpoint": self.endpoint(), "force_path_style": true, "access_key_id": "${ID}", "secret_access_key": "${KEY}"}});
        let env = |name: &str, key: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}});
        let safe = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"config.json": config.to_string()}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "command", "image": "localhost/rqlited:dev", "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/rqlited"], "args": args, "securityContext": safe,
                    "env": [env("ID", "access-key-id"), env("KEY", "secret-access-key")],
                    "volumeMounts": [{"name": "config", "mountPath": "/config"}, {"name": "tmp", "mountPath": "/tmp"}]}],
                "volumes": [{"name": "config", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}]}}]});
        let namespace = self.cluster.namespace;
        namespace.apply(&objects.to_string())?;
        let limit = Duration::from_secs(300);
        let phase = until(&format!("{name} to end"), limit, || {
            let pod = self.cluster.core("pods", name)?;
            let phase = text(&pod["status"]["phase"]).to_owned();
            let has_ended = phase == "Succeeded" || phase == "Failed";
            ensure!(has_ended, "{}", pod["status"]);
            Ok(phase)
        })?;
        let said = namespace.run(&["logs", name])?;
        let left = ["delete", "pod,configmap", name, "--wait=false"];
        namespace.run(&left)?;
        ensure!(phase == "Succeeded", "{args:?}: {said}");
        Ok(said)
    }
}
