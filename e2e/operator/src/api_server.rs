//! An API server without machines, on loopback: etcd, kube-apiserver and, if asked for, the controllers. It is gone with its value.
//!
//! For everything that needs no pod: rules of the API, rights, installation as objects, many clusters at once. Needs no root.
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

/// How long the API server may take to be ready on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// The API server among the programs.
const SERVER: &str = "apiserver";
/// Every request by its user, without bodies.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// Those that need no machines. What would mark played pods and volumes as broken is not among them.
const CONTROLLERS: &str = "disruption-controller,garbage-collector-controller,namespace-controller,serviceaccount-controller,\
    statefulset-controller";

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
    /// Starts one, unless its programs have not been built: then None.
    ///
    /// # Errors
    /// When a program does not start; with the end of its log.
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

    /// Starts the API server, once it was stopped, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start; with the end of its log.
    pub fn start_server(&mut self) -> Result<()> {
        let program = self.kubernetes.join("kube-apiserver");
        let arguments = self.apiserver(self.store, self.api)?;
        self.spawn(SERVER, &program, &arguments)?;
        self.await_ready()
    }

    /// Ends the API server at once, as a lost machine does. Its store and its controllers go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_server(&mut self) -> Result<()> {
        let at = self.children.iter().position(|(name, _)| name == SERVER);
        let (_, mut server) = self.children.remove(at.context("it does not run")?);
        server.kill()?;
        server.wait().map(drop).context("wait for its end")
    }

    /// Makes the store forget all history up to now: whoever asks for changes since an older version gets 410.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn forget_history(&self) -> Result<()> {
        let now = http::post(self.store, "/v3/kv/range", &json!({ "key": "AA==" }))?;
        let revision = &now["header"]["revision"];
        let compact = json!({ "revision": revision, "physical": true });
        http::post(self.store, "/v3/kv/compaction", &compact).map(drop)
    }

    /// What a test that needs one says when there is none.
    ///
    /// # Errors
    /// Under `CI=true`.
    pub fn skip() -> Result<()> {
        tool::skip("a real API server", "run e2e/tools/build etcd kubernetes")
    }

    /// Starts Kubernetes' controllers: StatefulSets make pods, deleted owners take their objects along, namespaces get an account.
    ///
    /// # Errors
    /// When they cannot be started.
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
            // Serves nothing: two of these must not ask for one port.
            "--secure-port=0".to_owned(),
        ];
        self.spawn("controller-manager", &program, &arguments)
    }

    /// The kubeconfig of a user: `admin`, or one made by [`ApiServer::account_kubeconfig`].
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.layout.kubeconfig(user)
    }

    /// Writes a kubeconfig that uses a ServiceAccount's token.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn account_kubeconfig(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let admin = self.objects()?;
        let words = [
            "create",
            "token",
            account,
            "--namespace",
            namespace,
            "--duration=24h",
        ];
        let token = admin.ask(&words)?;
        let mut config = read(&self.kubeconfig("admin"))?;
        config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
        let path = self.kubeconfig(account);
        self.layout.write(&path, &config.to_string())?;
        Ok(path)
    }

    /// Asks it as the administrator.
    ///
    /// # Errors
    /// When there is no kubectl.
    pub fn objects(&self) -> Result<Objects> {
        Objects::new(Kubectl::new(&self.kubeconfig("admin"))?)
    }

    /// One JSON object a line for each request that was answered.
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
            // Nobody reaches it through its Service: there are no machines.
            "--advertise-address=192.0.2.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={port}"),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.audit_log().display()),
        ])
    }

    /// A child that ends with the thread that started it, however that ends.
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
                // Reported at once: nothing more is to be awaited. The tail of the log, below, says why.
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

/// Ports that nobody uses at this moment; all held until all are known.
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
