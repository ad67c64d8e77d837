//! Object stores: an S3 server, a Google Cloud Storage server, Azurite. Each has one bucket (container).
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{certificates::Certificates, daemon::Daemon, tool::Tool};
use crate::{client::Client, ports};

/// Name of the bucket or container.
pub const BUCKET: &str = "backups";
/// Access key of the S3 server.
pub const ACCESS_KEY: &str = "AKIDTEST";
/// Its secret.
pub const SECRET_KEY: &str = "very-secret-\"key\"";
/// Azurite's account, and its key, which is public.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Creates a container: its request must be signed.
const CREATE_CONTAINER: &str = r"
const crypto = require('crypto'), http = require('http');
const [port, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString(), version = '2021-08-06';
const text = ['PUT', '', '', '', '', '', '', '', '', '', '', '',
  `x-ms-date:${date}`, `x-ms-version:${version}`,
  `/${account}/${account}/${container}`, 'restype:container'].join('\n');
const sign = crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8').digest('base64');
const request = http.request({host: '127.0.0.1', port, method: 'PUT',
  path: `/${account}/${container}?restype=container`,
  headers: {'x-ms-date': date, 'x-ms-version': version, 'Content-Length': 0,
    Authorization: `SharedKey ${account}:${sign}`}},
  answer => { let body = ''; answer.on('data', part => body += part);
    answer.on('end', () => { if (answer.statusCode !== 201) { console.error(answer.statusCode, body); process.exit(1); } }); });
request.on('error', e => { console.error(e); process.exit(1); });
request.end();
";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// versitygw.
    S3,
    /// fake-gcs-server.
    Gcs,
    /// Azurite.
    Azure,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    /// The program.
    #[must_use]
    pub fn tool(self) -> Tool {
        match self {
            Self::S3 => Tool::VersityGw,
            Self::Gcs => Tool::FakeGcs,
            Self::Azure => Tool::Azurite,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct ObjectServer {
    kind: Kind,
    addr: String,
    daemon: Daemon,
    ca: Option<PathBuf>,
}

impl ObjectServer {
    /// Starts a server and makes its bucket.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, None)
    }

    /// An S3 server that speaks HTTPS.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start_with(kind: Kind, certificates: Option<&Certificates>) -> Result<Self> {
        let port = ports::reserve()?;
        let addr = format!("127.0.0.1:{port}");
        let mut daemon = Daemon::new(kind.tool().program()?)?;
        let data = daemon.dir().join("data");
        fs::create_dir_all(data.join(BUCKET)).context("create the bucket")?;
        fs::create_dir_all(daemon.dir().join("about")).context("create a directory")?;
        let args: Vec<String> = match kind {
            Kind::S3 => {
                let mut args = words(&format!("--port {addr} --quiet --access {ACCESS_KEY}"));
                args.extend(["--secret".to_owned(), SECRET_KEY.to_owned()]);
                if let Some(certificates) = certificates {
                    let server = &certificates.server;
                    args.extend(words(&format!(
                        "--cert {} --key {}",
                        server.cert.display(),
                        server.key.display()
                    )));
                }
                // It changes its directory to the data's.
                let about = daemon.dir().join("about");
                args.extend(["posix", "--sidecar"].map(str::to_owned));
                args.extend([about, data].map(|path| path.display().to_string()));
                args
            }
            Kind::Gcs => words(&format!(
                "-scheme http -host 127.0.0.1 -port {port} -backend memory -public-host {addr} \
                 -external-url http://{addr} -log-level warn"
            )),
            Kind::Azure => words(&format!(
                "--blobHost 127.0.0.1 --blobPort {port} --location data --silent --skipApiVersionCheck --disableTelemetry"
            )),
        };
        let (asked, https) = (addr.clone(), certificates.is_some());
        daemon.start(args, move || answers(&asked, https))?;
        let server = Self {
            kind,
            addr,
            daemon,
            ca: certificates.map(|certificates| certificates.ca.clone()),
        };
        server.make_bucket(port)?;
        Ok(server)
    }

    fn make_bucket(&self, port: u16) -> Result<()> {
        match self.kind {
            Kind::S3 => Ok(()),
            Kind::Gcs => {
                let body = json!({ "name": BUCKET }).to_string();
                let headers = [("Content-Type", "application/json")];
                let path = "/storage/v1/b?project=test";
                let reply =
                    Client::new(&self.addr).send("POST", path, &headers, body.as_bytes())?;
                ensure!(reply.status == 200, "creating the bucket: {reply:?}");
                Ok(())
            }
            Kind::Azure => {
                let output = Command::new("node")
                    .args(["-e", CREATE_CONTAINER, "--", &port.to_string()])
                    .args([AZURE_ACCOUNT, AZURE_KEY, BUCKET])
                    .stdin(Stdio::null())
                    .output()
                    .context("run node")?;
                if !output.status.success() {
                    bail!(
                        "creating the container: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
                Ok(())
            }
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// `type` and `sub` for an object of this name, at this address (a link's, or [`Self::addr`]).
    #[must_use]
    pub fn target_at(&self, addr: &str, path: &str) -> Value {
        let mut sub = match self.kind {
            Kind::S3 => json!({
                "bucket": BUCKET, "path": path, "region": "us-east-1", "force_path_style": true,
                "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY,
                "endpoint": format!("{}://{addr}", if self.ca.is_some() { "https" } else { "http" }),
            }),
            Kind::Gcs => {
                json!({"bucket": BUCKET, "name": path, "endpoint": format!("http://{addr}")})
            }
            Kind::Azure => json!({
                "account": AZURE_ACCOUNT, "container": BUCKET, "name": path, "access_key": AZURE_KEY,
                "endpoint": format!("http://{addr}/{AZURE_ACCOUNT}"),
            }),
        };
        if let Some(ca) = &self.ca {
            sub["ca_file"] = json!(ca);
        }
        let kind = match self.kind {
            Kind::S3 => "s3",
            Kind::Gcs => "gcs",
            Kind::Azure => "azure",
        };
        json!({"version": 1, "type": kind, "sub": sub})
    }

    /// [`Self::target_at`] its own address.
    #[must_use]
    pub fn target(&self, path: &str) -> Value {
        self.target_at(&self.addr, path)
    }

    /// Kills the process, as if its machine failed.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again at the same address (Google's has lost everything, and gets its bucket again).
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.kill();
        let (addr, https) = (self.addr.clone(), self.ca.is_some());
        self.daemon.start_again(move || answers(&addr, https))?;
        match (self.kind, self.addr.rsplit_once(':')) {
            (Kind::Gcs, Some((_, port))) => self.make_bucket(port.parse()?),
            _ => Ok(()),
        }
    }

    /// The process, for its log and for freezing it.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Any answer will do; behind TLS, an open port.
fn answers(addr: &str, https: bool) -> Result<(), String> {
    if https {
        return std::net::TcpStream::connect(addr)
            .map(drop)
            .map_err(|e| e.to_string());
    }
    let reply = Client::new(addr).get("/");
    reply.map(drop).map_err(|e| e.to_string())
}
