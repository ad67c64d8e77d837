//! A single etcd server, optionally with authentication and TLS.
use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{certificates::Certificates, daemon::Daemon, tool::Tool};
use crate::{client::Client, ports};

/// Password of etcd's root user in tests with authentication.
const ROOT_PASSWORD: &str = "e2e-root";

/// Configuration of the server; the default is plain HTTP without credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// User and password that every client needs; the user may read and write all keys.
    pub user: Option<(&'a str, &'a str)>,
    /// Serve TLS with the server certificate.
    pub certificates: Option<&'a Certificates>,
    /// With `certificates`: require clients to present a certificate of the same authority.
    pub client_certificate: bool,
}

/// A server with an empty store.
#[derive(Debug)]
pub struct Etcd {
    daemon: Daemon,
    addr: String,
    /// Always plain HTTP: used by the test itself to access the store.
    inner_addr: String,
    token: Option<String>,
}

impl Etcd {
    /// Starts a server with plain HTTP and no credentials required.
    ///
    /// # Errors
    /// If the server cannot be started; shows the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts a server with these options.
    ///
    /// # Errors
    /// If the server cannot be started or configured; shows the end of its log.
    pub fn start_with(options: Options<'_>) -> Result<Self> {
        let mut server = Self {
            daemon: Daemon::new(Tool::Etcd.program()?)?,
            addr: format!("127.0.0.1:{}", ports::reserve()?),
            inner_addr: format!("127.0.0.1:{}", ports::reserve()?),
            token: None,
        };
        let args = server.args(options)?;
        let ready = server.healthy();
        server.daemon.start(args, ready)?;
        if let Some((user, password)) = options.user {
            server
                .enable_auth(user, password)
                .context("switch etcd's log-in on")?;
        }
        Ok(server)
    }

    fn args(&self, options: Options<'_>) -> Result<Vec<String>> {
        let peer = format!("http://127.0.0.1:{}", ports::reserve()?);
        let scheme = if options.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let own = format!("{scheme}://{}", self.addr);
        let mut args = vec![
            "--name=e2e".to_owned(),
            "--data-dir=data".to_owned(),
            "--log-level=warn".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={own},http://{}", self.inner_addr),
            format!("--advertise-client-urls={own}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=e2e={peer}"),
        ];
        if let Some(certificates) = options.certificates {
            args.push(format!(
                "--cert-file={}",
                certificates.server.cert.display()
            ));
            args.push(format!("--key-file={}", certificates.server.key.display()));
            if options.client_certificate {
                args.push("--client-cert-auth".to_owned());
                args.push(format!("--trusted-ca-file={}", certificates.ca.display()));
            }
        }
        Ok(args)
    }

    /// `host:port` for clients: HTTP, or HTTPS with certificates.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The current value of `key`, read without the TLS and credentials that clients need.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let found = self.request("/v3/kv/range", &json!({ "key": encoded(key) }))?;
        let Some(value) = found["kvs"][0]["value"].as_str() else {
            return Ok(None);
        };
        let bytes = BASE64_STANDARD.decode(value).context("etcd's base64")?;
        Ok(Some(String::from_utf8(bytes).context("a value in UTF-8")?))
    }

    /// Sets `key`, as another client would.
    ///
    /// # Errors
    /// If the server rejects the write.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.request(
            "/v3/kv/put",
            &json!({ "key": encoded(key), "value": encoded(value) }),
        )
        .map(drop)
    }

    /// Deletes `key`, as another client would.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.request("/v3/kv/deleterange", &json!({ "key": encoded(key) }))
            .map(drop)
    }

    /// Kills the process, as if its machine failed; [`Etcd::restart`] starts it again.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again at the same address with its stored data.
    ///
    /// # Errors
    /// See [`Etcd::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.kill();
        let ready = self.healthy();
        self.daemon.start_again(ready)
    }

    /// The process, for its log and for freezing it.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn healthy(&self) -> impl FnMut() -> Result<(), String> + use<> {
        let addr = self.inner_addr.clone();
        move || match Client::new(&addr).get("/health") {
            Ok(reply) if reply.json()["health"] == "true" => Ok(()),
            Ok(reply) => Err(format!("{reply:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn enable_auth(&mut self, user: &str, password: &str) -> Result<()> {
        self.request("/v3/auth/role/add", &json!({ "name": "root" }))?;
        for (name, password) in [("root", ROOT_PASSWORD), (user, password)] {
            let account = json!({ "name": name, "password": password });
            self.request("/v3/auth/user/add", &account)?;
        }
        self.request(
            "/v3/auth/user/grant",
            &json!({ "user": "root", "role": "root" }),
        )?;
        self.request("/v3/auth/role/add", &json!({ "name": "all-keys" }))?;
        // The range from a single zero byte to the end covers all keys.
        let every = json!({ "permType": "READWRITE", "key": "AA==", "range_end": "AA==" });
        let grant = json!({ "name": "all-keys", "perm": every });
        self.request("/v3/auth/role/grant", &grant)?;
        self.request(
            "/v3/auth/user/grant",
            &json!({ "user": user, "role": "all-keys" }),
        )?;
        self.request("/v3/auth/enable", &json!({}))?;
        let account = json!({ "name": "root", "password": ROOT_PASSWORD });
        let session = self.request("/v3/auth/authenticate", &account)?;
        self.token = Some(
            session["token"]
                .as_str()
                .context("no token in etcd's response")?
                .to_owned(),
        );
        Ok(())
    }

    fn request(&self, path: &str, body: &Value) -> Result<Value> {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(self.token.as_deref().map(|token| ("Authorization", token)));
        let body = body.to_string();
        let reply = Client::new(&self.inner_addr).send("POST", path, &headers, body.as_bytes())?;
        if reply.status != 200 {
            bail!("etcd: POST {path}: {reply:?}");
        }
        Ok(reply.json())
    }
}

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}
