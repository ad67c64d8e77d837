//! A Consul agent that keeps its store in memory, optionally with ACLs and TLS.
use std::fs;

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{certificates::Certificates, coredns::port_for_both, daemon::Daemon, tool::Tool};
use crate::{client::Client, ports};

/// Configuration of the agent; the default is plain HTTP without credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// An ACL token with all rights; requests without it are denied.
    pub token: Option<&'a str>,
    /// Serve HTTPS too, with the server certificate; see [`Consul::https_addr`].
    pub certificates: Option<&'a Certificates>,
    /// With `certificates`: require HTTPS clients to present a certificate of the same authority.
    pub client_certificate: bool,
}

/// An agent with an empty store, which is lost when it is killed.
#[derive(Debug)]
pub struct Consul {
    daemon: Daemon,
    addr: String,
    https_addr: Option<String>,
    token: Option<String>,
}

impl Consul {
    /// Starts an agent with plain HTTP and no credentials required.
    ///
    /// # Errors
    /// If the agent cannot be started; shows the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts an agent with these options.
    ///
    /// # Errors
    /// If the agent cannot be started; shows the end of its log.
    pub fn start_with(options: Options<'_>) -> Result<Self> {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut server = Self {
            daemon: Daemon::new(Tool::Consul.program()?)?,
            addr: local(ports::reserve()?),
            https_addr: options
                .certificates
                .map(|_| ports::reserve().map(local))
                .transpose()?,
            token: options.token.map(str::to_owned),
        };
        let config = server.config(options)?;
        fs::write(server.daemon.dir().join("agent.json"), config.to_string())
            .context("write the agent's configuration")?;
        let args = ["agent", "-dev", "-config-file=agent.json"];
        let ready = server.writable();
        server
            .daemon
            .start(args.map(str::to_owned).to_vec(), ready)?;
        Ok(server)
    }

    fn config(&self, options: Options<'_>) -> Result<serde_json::Value> {
        let port = |addr: &str| addr.rsplit(':').next().and_then(|port| port.parse().ok());
        let https: i32 = self.https_addr.as_deref().and_then(port).unwrap_or(-1);
        let http: i32 = port(&self.addr).context("the agent's own port")?;
        let mut config = json!({
            "node_name": "e2e",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "disable_update_check": true,
            "connect": { "enabled": false },
            "ports": {
                "http": http, "https": https, "dns": -1, "grpc": -1, "serf_wan": -1,
                "server": ports::reserve()?, "serf_lan": port_for_both()?,
            },
        });
        if let Some(token) = options.token {
            config["acl"] = json!({
                "enabled": true, "default_policy": "deny", "tokens": { "master": token },
            });
        }
        if let Some(certificates) = options.certificates {
            config["cert_file"] = json!(certificates.server.cert);
            config["key_file"] = json!(certificates.server.key);
            config["ca_file"] = json!(certificates.ca);
            config["verify_incoming_https"] = json!(options.client_certificate);
        }
        Ok(config)
    }

    /// `host:port` of its HTTP API.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// `host:port` of its HTTPS API; `None` without certificates.
    #[must_use]
    pub fn https_addr(&self) -> Option<&str> {
        self.https_addr.as_deref()
    }

    /// The current value of `key`; `None` if it does not exist.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let reply = self.request("GET", &format!("/v1/kv/{key}"), b"")?;
        match reply.status {
            404 => Ok(None),
            200 => {
                let found = reply.json();
                let value = found[0]["Value"].as_str().unwrap_or_default();
                let bytes = BASE64_STANDARD.decode(value).context("Consul's base64")?;
                Ok(Some(String::from_utf8(bytes).context("a value in UTF-8")?))
            }
            _ => bail!("Consul: GET {key}: {reply:?}"),
        }
    }

    /// Sets `key`, as another client would.
    ///
    /// # Errors
    /// If the agent rejects the write.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.change("PUT", key, value.as_bytes())
    }

    /// Deletes `key`, as another client would.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.change("DELETE", key, b"")
    }

    /// Kills the process, as if its machine failed; [`Consul::restart`] starts it again.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again at the same address, with an empty store.
    ///
    /// # Errors
    /// See [`Consul::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.kill();
        let ready = self.writable();
        self.daemon.start_again(ready)
    }

    /// The process, for its log and for freezing it.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// An agent is ready once it accepts a write: it has a leader then, and its ACLs are in force.
    fn writable(&self) -> impl FnMut() -> Result<(), String> + use<> {
        let (addr, token) = (self.addr.clone(), self.token.clone());
        move || {
            for method in ["PUT", "DELETE"] {
                let reply = request(&addr, token.as_deref(), method, "/v1/kv/e2e-ready", b"")
                    .map_err(|error| format!("{error:#}"))?;
                if reply.status != 200 {
                    return Err(format!("{reply:?}"));
                }
            }
            Ok(())
        }
    }

    fn change(&self, method: &str, key: &str, value: &[u8]) -> Result<()> {
        let reply = self.request(method, &format!("/v1/kv/{key}"), value)?;
        if reply.status != 200 || reply.text().trim() != "true" {
            bail!("Consul: {method} {key}: {reply:?}");
        }
        Ok(())
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<crate::client::Reply> {
        request(&self.addr, self.token.as_deref(), method, path, body)
    }
}

fn request(
    addr: &str,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<crate::client::Reply> {
    let headers: Vec<_> = token.map(|t| ("X-Consul-Token", t)).into_iter().collect();
    Ok(Client::new(addr).send(method, path, &headers, body)?)
}
