//! An API server without machines, on loopback: etcd, kube-apiserver and optionally the controllers. It is
//! stopped when the value is dropped.
//!
//! For everything that needs no pod: API validation, permissions, installation, many clusters at once. Needs
//! no root.
use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use e2e_kubernetes::{
    command::{run, until},
    local::{certificates, layout::Layout},
    probe::Kubectl,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{http, objects::Objects, tool};

/// How long the API server may take to become ready on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Name of the API server among the child processes.
const SERVER: &str = "apiserver";
/// Audit policy: records every request with its user, without bodies.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// Controllers that need no machines. Those that would mark simulated pods and volumes as broken are left
/// out.
const CONTROLLERS: &str = "disruption-controller,garbage-collector-controller,job-controller,namespace-controller,\
    persistentvolumeclaim-protection-controller,serviceaccount-controller,statefulset-controller";

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    layout: Layout,
    kubernetes: PathBuf,
    server: String,
    store: u16,
    api: u16,
    children: Vec<(String, Child)>,
    _folder: TempDir,
}

impl ApiServer {
    /// Starts an API server; `None` if its programs have not been built.
    ///
    /// # Errors
    /// If a program does not start; shows the end of its log.
    pub fn start() -> Result<Option<Self>> {
        let (Some(etcd), Some(kubernetes)) = (tool::built("etcd"), tool::built("kubernetes"))
        else {
            return Ok(None);
        };
        let folder = tempfile::tempdir().context("make a folder")?;
        let layout = Layout::new(folder.path().to_owned());
        layout.create()?;
        certificates::write(&layout, 0)?;
        let [store, peer, api] = free_ports()?;
        let mut this = Self {
            layout,
            kubernetes,
            server: format!("https://localhost:{api}"),
            store,
            api,
            children: Vec::new(),
            _folder: folder,
        };
        for user in ["admin", "controller-manager"] {
            this.point(user)?;
        }
        this.spawn("etcd", &etcd.join("etcd"), &this.etcd(store, peer))?;
        this.start_server()?;
        Ok(Some(this))
    }

    /// Starts the API server again after [`ApiServer::stop_server`], and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start; shows the end of its log.
    pub fn start_server(&mut self) -> Result<()> {
        let program = self.kubernetes.join("kube-apiserver");
        let arguments = self.apiserver(self.store, self.api)?;
        self.spawn(SERVER, &program, &arguments)?;
        self.await_ready()
    }

    /// Kills the API server, as if its machine failed. Its store and its controllers keep running.
    ///
    /// # Errors
    /// If it is not running.
    pub fn stop_server(&mut self) -> Result<()> {
        let at = self.children.iter().position(|(name, _)| name == SERVER);
        let (_, mut server) = self.children.remove(at.context("it does not run")?);
        server.kill()?;
        server.wait().map(drop).context("wait for its end")
    }

    /// Compacts the store's history: a watch from an older version fails with 410.
    ///
    /// # Errors
    /// If the store rejects it.
    pub fn forget_history(&self) -> Result<()> {
        let now = http::post(self.store, "/v3/kv/range", &json!({ "key": "AA==" }))?;
        let revision = &now["header"]["revision"];
        let compact = json!({ "revision": revision, "physical": true });
        http::post(self.store, "/v3/kv/compaction", &compact).map(drop)
    }

    /// Skips a test that needs an API server where there is none: prints a message.
    ///
    /// # Errors
    /// Under `CI=true`.
    pub fn skip() -> Result<()> {
        tool::skip("a real API server", "run e2e/tools/build etcd kubernetes")
    }

    /// Starts Kubernetes' controllers: StatefulSets create pods, deleting an owner deletes its objects,
    /// namespaces get a ServiceAccount.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn start_controllers(&mut self) -> Result<()> {
        let program = self.kubernetes.join("kube-controller-manager");
        let pki = |file: &str| self.layout.pki(file).display().to_string();
        let arguments = [
            format!(
                "--kubeconfig={}",
                self.kubeconfig("controller-manager").display()
            ),
            format!("--service-account-private-key-file={}", pki("sa.key")),
            format!("--root-ca-file={}", pki("ca.crt")),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            format!("--controllers={CONTROLLERS}"),
            // Serves nothing, so that two of these do not compete for one port.
            "--secure-port=0".to_owned(),
        ];
        self.spawn("controller-manager", &program, &arguments)
    }

    /// The kubeconfig of a user: `admin`, or one created by [`ApiServer::account_kubeconfig`].
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.layout.kubeconfig(user)
    }

    /// Writes a kubeconfig that uses a ServiceAccount's token.
    ///
    /// # Errors
    /// If there is no such ServiceAccount.
    pub fn account_kubeconfig(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let admin = self.objects()?;
        let args = [
            "create",
            "token",
            account,
            "--namespace",
            namespace,
            "--duration=24h",
        ];
        let token = admin.run(&args)?;
        let mut config = read(&self.kubeconfig("admin"))?;
        config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
        let path = self.kubeconfig(account);
        self.layout.write(&path, &config.to_string())?;
        Ok(path)
    }

    /// Access to it as administrator.
    ///
    /// # Errors
    /// If kubectl is not available.
    pub fn objects(&self) -> Result<Objects> {
        Objects::new(Kubectl::new(&self.kubeconfig("admin"))?)
    }

    /// The audit log: one JSON object per line for each completed request.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.layout.logs().join("audit.log")
    }

    fn point(&self, user: &str) -> Result<()> {
        let path = self.kubeconfig(user);
        let mut config = read(&path)?;
        config["clusters"][0]["cluster"]["server"] = self.server.as_str().into();
        self.layout.write(&path, &config.to_string())
    }

    fn etcd(&self, client: u16, peer: u16) -> Vec<String> {
        let client = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        vec![
            "--name=e2e".to_owned(),
            "--log-level=error".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--data-dir={}", self.layout.root.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=e2e={peer}"),
        ]
    }

    fn apiserver(&self, store: u16, port: u16) -> Result<Vec<String>> {
        let pki = |file: &str| self.layout.pki(file).display().to_string();
        let policy = self.layout.root.join("audit.yaml");
        self.layout.write(&policy, AUDIT_POLICY)?;
        Ok(vec![
            format!("--etcd-servers=http://127.0.0.1:{store}"),
            "--bind-address=127.0.0.1".to_owned(),
            // Nothing reaches it through its Service, since there are no machines.
            "--advertise-address=192.0.2.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={port}"),
            // Both IP families; a Service that asks for nothing else has the first one.
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".to_owned(),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // Admission that rewrites objects, without a webhook to serve. Does nothing without a policy.
            "--feature-gates=MutatingAdmissionPolicy=true".to_owned(),
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.audit_log().display()),
        ])
    }

    /// Starts a child that is killed with the thread that started it.
    fn spawn(&mut self, name: &str, program: &Path, arguments: &[String]) -> Result<()> {
        let log = File::create(self.log(name)).context("make a log")?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("start {name} with setpriv"))?;
        self.children.push((name.to_owned(), child));
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.layout.logs().join(format!("{name}.log"))
    }

    fn await_ready(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig("admin");
        let ready = until("the API server to be ready", READY_LIMIT, || {
            for (_, child) in &mut self.children {
                // Return at once: waiting longer is useless, and the log's end, shown below, gives the
                // reason.
                if let Some(status) = child.try_wait()? {
                    return Ok(Err(status));
                }
            }
            let mut get = Command::new(self.kubernetes.join("kubectl"));
            get.arg("--kubeconfig").arg(&kubeconfig);
            run(get.args(["get", "--raw", "/readyz"])).map(Ok)
        });
        match ready {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => bail!("a program ended: {status}\n{}", self.tails()),
            Err(error) => Err(error.context(self.tails())),
        }
    }

    fn tails(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(10)..].join("\n")
        };
        format!("etcd:\n{}\napiserver:\n{}", tail("etcd"), tail("apiserver"))
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// Ports that are free now. All are held until all are known, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
